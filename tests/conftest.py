"""Shared by all tests: a tiny random BERT, a checkpoint trained from it, a bundle made of that, the command line."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from headway.cli import main as cli
from tests.tiny_bert import tiny_bert

os.environ["HEADWAY_CACHE"] = (
    "off"  # no engine is chosen by its speed, and nothing written to the user's folders
)
settings.register_profile("headway", deadline=None)  # no test asserts a time
settings.load_profile("headway")


def pytest_configure() -> None:
    """Let each of several test processes have processors of its own.

    Where threads of one wait for the other's, all become many times slower.
    """
    if name := os.environ.get("PYTEST_XDIST_WORKER"):
        own, count = int(name.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, processors[own::count] or processors)


SUPPORT = Path(str(resources.files("headway.examples"))) / "support"
LABELS = ("bug", "delivery", "feature_request", "refund")
MAX_LENGTH = 48
"""tokens a text in the shared checkpoint, fewer than many of the texts have"""


class Ran(NamedTuple):
    """What one command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def rows_of(opened: Any, texts: Sequence[str]) -> Any:
    """What an opened text classifier reads of each text."""
    from headway.core import tasks

    task: Any = tasks.load("text-classification")
    examples = [tasks.read_input(task, text, i) for i, text in enumerate(texts)]
    return task.rows(examples, opened.tokenizer.backend_tokenizer, opened.spec)


def records(name: str, count: int, labels: Sequence[str] = LABELS) -> list[dict[str, str]]:
    """The first records of a file in examples/support with some of its labels."""
    rows = [json.loads(line) for line in (SUPPORT / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [row for row in rows if row["label"] in labels][:count]


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of many lengths, some longer than the model."""
    found = [r["text"] for r in records("test", 60)]
    words = " ".join(found).split()
    return [
        *found,
        *(" ".join(words[:n]) for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 200)),
        "Ünïcode 漢字 😀 ok",
    ]


@pytest.fixture(scope="session")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", records("train", 160))


@pytest.fixture(scope="session")
def dev_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "dev.jsonl", records("dev", 32))


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `transformers` saves it: random weights, a WordPiece tokenizer with the training texts' words."""
    texts = [record["text"] for record in records("train", 160)]
    return tiny_bert(tmp_path_factory.mktemp("pretrained") / "tiny-bert", texts, length=64, layers=2)


@pytest.fixture(scope="session")
def tokenizers(pretrained: Path) -> dict[str, Tokenizer]:
    """A WordPiece tokenizer without capitals and accents, and a byte-level one whose tokens begin with spaces."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([r["text"] for r in records("train", 160)], trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return {"wordpiece": Tokenizer.from_file(str(pretrained / "tokenizer.json")), "byte-level": raw}


@pytest.fixture(scope="session")
def checkpoint(
    pretrained: Path, train_file: Path, dev_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from headway.train.fit import train
    from headway.train.options import TrainOptions

    options = TrainOptions(
        model=str(pretrained),
        train=train_file,
        eval=dev_file,
        output=tmp_path_factory.mktemp("checkpoint") / "checkpoint",
        epochs=2,
        batch_size=8,
        learning_rate=1e-3,
        max_length=MAX_LENGTH,
        precision="fp32",
        threads=1,
    )
    return train("text-classification", options).checkpoint


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, dev_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from headway.export.bundle import export
    from headway.export.options import ExportOptions

    output = tmp_path_factory.mktemp("bundle") / "bundle"
    return export(checkpoint, ExportOptions(output=output, eval=dev_file, threads=1)).bundle


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """More threads than processors make PyTorch many times slower on a tiny model."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run one `headway` command in this process."""
    before, disabled = signal.getsignal(signal.SIGTERM), logging.root.manager.disable

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = cli.run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    yield call
    signal.signal(signal.SIGTERM, before)
    logging.disable(disabled)
