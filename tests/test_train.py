"""Training: a checkpoint that plain transformers opens, the same twice, resumed as if never interrupted."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from headway.core import data, files, tasks
from headway.core.errors import CheckpointError, DataError, OutputError, UsageError
from headway.core.manifest import Checkpoint
from headway.core.progress import silent
from headway.train import checkpoint as opener
from headway.train import encoder, fit
from headway.train.options import TrainOptions, whole_numbers
from tests.conftest import MAX_LENGTH, records, rows_of, write_jsonl
from tests.tolerance import TOLERANCE

TASK = tasks.load("text-classification")


@pytest.fixture
def options(pretrained: Path, tmp_path: Path) -> TrainOptions:
    """Three short epochs with dropout on, so that the random state matters."""
    return TrainOptions(
        model=str(pretrained),
        train=write_jsonl(tmp_path / "train.jsonl", records("train", 64)),
        output=tmp_path / "checkpoint",
        epochs=3,
        batch_size=16,
        learning_rate=1e-3,
        max_length=32,
        precision="fp32",
        threads=1,
    )


def train(options: TrainOptions, progress: Any = silent) -> dict[str, torch.Tensor]:
    """The weights that come out."""
    return load_file(fit.train("text-classification", options, progress).checkpoint / "model.safetensors")


def assert_equal(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == others.keys()
    assert all(torch.equal(ours[name], others[name]) for name in ours)


def test_plain_transformers_opens_it(checkpoint: Path, texts: list[str]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits.numpy()
    ours = opener.outputs(opened := opener.open_checkpoint(checkpoint), rows_of(opened, texts))
    np.testing.assert_array_equal(ours["logits"], logits)
    np.testing.assert_allclose(ours["probabilities"].sum(-1), 1, *TOLERANCE["float32"])
    assert list(model.config.id2label.values()) == Checkpoint.read(checkpoint).labels


def test_nothing_is_pickled(checkpoint: Path) -> None:
    names = {p.name for p in checkpoint.rglob("*")}
    assert {"headway.json", "config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {n for n in names if n.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))}


def test_the_manifest_says_how_it_was_made(checkpoint: Path, train_file: Path, dev_file: Path) -> None:
    told = Checkpoint.read(checkpoint)
    assert (told.task, told.max_length, told.model) == ("text-classification", MAX_LENGTH, "tiny-bert")
    assert told.labels == sorted({r["label"] for r in records("train", 160)})
    assert told.training_data == {"train": files.sha256(train_file), "eval": files.sha256(dev_file)}
    assert (told.options["epochs"], told.options["seed"]) == (2, 13)
    assert str(train_file) not in (checkpoint / "headway.json").read_text()


def test_told_metrics_are_those_of_evaluation(checkpoint: Path, dev_file: Path) -> None:
    opened = opener.open_checkpoint(checkpoint)
    examples = [TASK.read(r, labelled=True) for r in data.read(dev_file)]
    figures = TASK.metrics(examples, opener.predict(opened, examples))
    assert opened.manifest.metrics == pytest.approx(figures)


def test_predict_keeps_the_order_and_tells_what_was_cut(checkpoint: Path, texts: list[str]) -> None:
    opened = opener.open_checkpoint(checkpoint)
    examples = [TASK.read(data.Record({"text": t}, "", i), labelled=False) for i, t in enumerate(texts)]
    results: Any = opener.predict(opened, examples)
    alone = np.concatenate([opener.outputs(opened, [r])["probabilities"] for r in rows_of(opened, texts)])
    found = np.array([list(r.scores.values()) for r in results])
    np.testing.assert_allclose(found, alone, rtol=1e-3, atol=TOLERANCE["float32"][1])
    lengths = [len(opened.tokenizer(t)["input_ids"]) for t in texts]
    assert [r.truncated for r in results] == [n > MAX_LENGTH for n in lengths]


def test_the_same_seed_gives_the_same_weights(options: TrainOptions, tmp_path: Path) -> None:
    first = train(options)
    assert_equal(first, train(replace(options, output=tmp_path / "again")))
    other = train(replace(options, output=tmp_path / "other", seed=14))
    assert not all(torch.equal(first[name], other[name]) for name in first)


class Killed(BaseException):
    """As a signal would."""


def killed_after(steps: int) -> Any:
    """A progress bar in whose step the power fails."""

    def progress(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for done, item in enumerate(items):
            if label == "training" and done > steps:
                raise Killed
            yield item

    return progress


def test_resuming_gives_the_same_weights(options: TrainOptions, dev_file: Path, tmp_path: Path) -> None:
    options = replace(options, eval=dev_file, patience=5)
    uninterrupted = train(replace(options, output=tmp_path / "uninterrupted"))
    with pytest.raises(Killed):
        train(options, killed_after(6))  # four steps an epoch: in the middle of the second
    assert not options.output.exists()
    assert [p.name for p in tmp_path.glob("checkpoint.training/checkpoint-*")] == ["checkpoint-4"]
    assert_equal(train(replace(options, resume=True)), uninterrupted)
    assert not (tmp_path / "checkpoint.training").exists()


def test_nothing_to_resume(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match=r"^--resume: there is nothing to resume in .*checkpoint.training$"):
        train(replace(options, resume=True))


def test_balanced_class_weights_are_scikit_learns() -> None:
    gold = ["a"] * 7 + ["b"] * 2 + ["c"]
    found = encoder.balanced(gold, ["a", "b", "c"])
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(gold))
    np.testing.assert_allclose(found.numpy(), expected, *TOLERANCE["float32"])


def test_class_weights_take_part(options: TrainOptions, tmp_path: Path) -> None:
    rows = [r for r in records("train", 160) if r["label"] in ("bug", "refund")]
    bugs = [r for r in rows if r["label"] == "bug"]
    uneven = write_jsonl(tmp_path / "uneven.jsonl", bugs[:4] + [r for r in rows if r["label"] == "refund"])
    options = replace(options, train=uneven, epochs=1)
    plain = train(options)
    balanced = train(replace(options, output=tmp_path / "balanced", class_weights="balanced"))
    assert not torch.equal(plain["classifier.bias"], balanced["classifier.bias"])


def test_the_best_epoch_is_kept(
    options: TrainOptions, dev_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.5, 0.9, 0.1, 0.9])  # three epochs, and the one that was kept again
    seen: list[dict[str, torch.Tensor]] = []
    measure = fit._measure

    def measured(task: Any, specifics: Any, model: Any, *rest: Any) -> Any:
        seen.append({n: w.detach().clone() for n, w in model.state_dict().items()})
        said, metrics, spec = measure(task, specifics, model, *rest)
        return said, metrics | {"accuracy": next(figures)}, spec

    monkeypatch.setattr(fit, "_measure", measured)
    kept = train(replace(options, eval=dev_file))
    assert torch.equal(kept["classifier.weight"], seen[1]["classifier.weight"])
    assert not torch.equal(kept["classifier.weight"], seen[2]["classifier.weight"])


def test_early_stopping(options: TrainOptions, dev_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    measure = fit._measure

    def measured(*arguments: Any) -> Any:
        calls.append(0.5)
        said, metrics, spec = measure(*arguments)
        return said, metrics | {"accuracy": 0.5}, spec

    monkeypatch.setattr(fit, "_measure", measured)
    train(replace(options, eval=dev_file, epochs=6, patience=1))
    assert len(calls) == 3  # the first, one without improvement, and the one that was kept again


def test_cut_texts_are_counted(options: TrainOptions, pretrained: Path) -> None:
    lengths = [
        len(AutoTokenizer.from_pretrained(pretrained)(r["text"])["input_ids"]) for r in records("train", 64)
    ]
    trained = fit.train("text-classification", replace(options, epochs=1))
    cut = sum(n > 32 for n in lengths)
    assert trained.counts == {"cut at the model's longest input": cut}
    assert cut > 0
    assert trained.metrics == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs: must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size: must be at least 1, not 0"),
        ({"patience": 0}, "--patience: must be at least 1, not 0"),
        ({"max_length": 2}, "--max-length: must be at least 8, not 2"),
        ({"seed": -1}, "--seed: must be at least 0, not -1"),
        ({"stride": -1}, "--stride: must be at least 0, not -1"),
        ({"seed": 2**32}, "--seed: must be at most 4294967295, not 4294967296"),
        ({"batch_size": 10**20}, "--batch-size: must be at most 2147483647, not 100000000000000000000"),
        ({"learning_rate": 0.0}, "--learning-rate: must be a number above 0, not 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate: must be a number above 0, not nan"),
        ({"learning_rate": float("inf")}, "--learning-rate: must be a number above 0, not inf"),
        ({"warmup": 1.5}, "--warmup: must be between 0 and 1, not 1.5"),
        ({"weight_decay": -0.1}, "--weight-decay: must be between 0 and 1, not -0.1"),
        ({"accumulate": 33}, "--accumulate: parts 32 examples into 33"),
        (
            {"freeze": 1, "lora": 4},
            "--lora: trains no layer of the body, so that --freeze has none to leave out",
        ),
        ({"model": None}, "--model: give a pretrained model, or --from-scratch; one of the two"),
        ({"from_scratch": "small"}, "--model: give a pretrained model, or --from-scratch; one of the two"),
        ({"layer_decay": 0.0}, "--layer-decay: must be a number above 0, not 0.0"),
        ({"label_smoothing": -0.1}, "--label-smoothing: must be between 0 and 1, not -0.1"),
        ({"output": Path("m")}, "--output: is the folder of --model itself"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        TrainOptions(**{"model": "m", "train": Path("t"), "output": Path("o")} | changes)


@pytest.mark.parametrize("text", ["nan", "8,inf", "8.5", "8,,4", "eight"])
def test_what_are_no_whole_numbers(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--dimensions: wants "):
        whole_numbers("--dimensions", text)


def test_training_that_diverges_is_refused(options: TrainOptions) -> None:
    """Its model would give the same answer to all texts."""
    with pytest.raises(
        UsageError, match=r"^--learning-rate: with 1e\+30 training has diverged: .* no numbers$"
    ):
        train(replace(options, learning_rate=1e30))
    assert not options.output.exists()


def test_longer_than_the_model(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match="^--max-length: is 65, but .* ends at 64 tokens"):
        train(replace(options, max_length=65))


@pytest.mark.parametrize(
    ("role", "row", "message"),
    [
        (
            "eval",
            {"text": "fine", "label": "new"},
            r"bad.jsonl:2: field 'label': unknown label 'new'; known: bug",
        ),
        ("eval", {"text": "fine"}, r"bad.jsonl:2: field 'label': missing"),
        ("train", {"text": " ", "label": "bug"}, r"bad.jsonl:2: field 'text': is empty or only white space"),
    ],
)
def test_bad_data(
    role: str, row: dict[str, str], message: str, options: TrainOptions, tmp_path: Path
) -> None:
    bad: Any = write_jsonl(tmp_path / "bad.jsonl", [{"text": "fine", "label": "bug"}, row])
    with pytest.raises(DataError, match=message):
        train(replace(options, **{role: bad}))
    assert {p.name for p in tmp_path.iterdir()} == {"bad.jsonl", "train.jsonl"}


def test_one_label_is_not_enough(options: TrainOptions, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": "fine", "label": "bug"}] * 3)
    with pytest.raises(DataError, match=r"has 1 label; training needs two or more"):
        train(replace(options, train=one))


def test_a_model_that_cannot_be_opened(options: TrainOptions, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        train(replace(options, model=str(tmp_path / "empty")))
    assert not options.output.exists()


def test_pickled_weights_are_refused(options: TrainOptions, pretrained: Path, tmp_path: Path) -> None:
    import shutil

    model = shutil.copytree(pretrained, tmp_path / "pickled")
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the model cannot be opened"):
        train(replace(options, model=str(model)))


def test_output_that_is_taken(options: TrainOptions) -> None:
    options.output.mkdir()
    (options.output / "mine").touch()
    with pytest.raises(OutputError, match="give --overwrite"):
        train(options)


def test_damaged_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(CheckpointError, match="the model cannot be opened"):
        opener.open_checkpoint(copy)
    (copy / "tokenizer.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="the tokenizer cannot be opened"):
        opener.open_checkpoint(copy)
