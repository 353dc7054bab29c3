"""Benchmarks of every task: what is asked is what the pipeline takes, and PyTorch's answers are headway's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.bench import answers, mixes, roofline
from headway.bench.inputs import of_lengths, read_inputs
from headway.bench.peers.base import Wanted, bytes_on_disk, load_peer
from headway.bench.peers.torch import COMPILED
from headway.cli.bench import _wanted
from headway.core import tasks
from headway.core.errors import DataError, UsageError
from headway.core.manifest import Bundle
from headway.export.bundle import export
from headway.export.options import ExportOptions
from tests.conftest import write_jsonl
from tests.test_export_tasks import untrained

QUALITY = {
    "single": {"accuracy", "macro_f1"},
    "multi": {"micro_f1", "macro_f1"},
    "regression": {"pearson", "spearman"},
    "documents": {"accuracy", "macro_f1"},
    "tags": {"entity_f1"},
    "questions": {"exact_match", "f1"},
    "ranking": {"ndcg_at_10"},
}
"""kind of data → some of the figures that tell quality"""


@pytest.fixture(scope="module", params=QUALITY)
def made(request: pytest.FixtureRequest, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind, checkpoint, bundle and labelled data."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint, rows = untrained(request.param, pretrained, folder, max_length=48)
    output = folder / "bundle"
    export(checkpoint, ExportOptions(output=output, precision="fp32", threads=1))
    return request.param, checkpoint, output, rows


def test_headway_and_pytorch_answer_alike(made: Any, tmp_path: Path) -> None:
    kind, checkpoint, bundle, rows = made
    declared = Bundle.read(bundle)
    wanted = _wanted(declared, 1, None)
    inputs, gold = read_inputs(declared, str(rows), None, 12)
    inputs = [tuple(given) if isinstance(given, list) else given for given in inputs]
    assert len(inputs) == len(gold) == 12
    own = load_peer("headway").open_subject(bundle, "fp32", wanted)
    expected = own.many(inputs)
    alone = [answers.plain(declared.task, own.one(given)) for given in inputs]
    assert answers.agreement(alone, expected).figure == 1
    found = answers.quality(declared.task, gold, expected)
    assert QUALITY[kind] <= found.keys()
    spent, waste = own.stages(inputs[:2], inputs)  # type: ignore[attr-defined]
    assert min(spent["tokenize"], spent["run"]) > 0
    assert waste is not None
    assert 0 <= waste < 1
    assert answers.agreement(own.many(inputs), expected).figure == 1  # the pipeline is as it was
    work = roofline.work(bundle, mixes.tokens(bundle, inputs, 48))
    assert work is not None
    assert work.operations > work.weights * work.tokens / 4
    size = bytes_on_disk(load_peer("headway"), bundle, "fp32")
    assert size == sum(f.bytes for n, f in declared.files.items() if n.startswith(("fp32/", "tokenizer")))
    peer = load_peer("torch")
    assert bytes_on_disk(peer, checkpoint, "fp32") >= (checkpoint / "model.safetensors").stat().st_size
    theirs = peer.open_subject(checkpoint, "fp32", wanted)
    for setting in theirs.SETTINGS[1:3]:
        assert answers.agreement(theirs.many(inputs, **setting), expected).figure >= 0.9
    assert theirs.one(inputs[0]) is not None


def test_answers_are_compared_by_their_kind() -> None:
    agreement = answers.agreement
    assert agreement(["a", "b"], ["a", "c"]).figure == 0.5
    assert agreement([["a", "b"], []], [["a", "b"], ["a"]]).figure == 0.5
    assert agreement([0.5, 0.1], [0.503, 0.9]).figure == 0.5  # a hundredth of the range is near
    assert agreement([float("nan")], [0.5]).figure == 0
    vectors = np.eye(3, dtype=np.float32)
    assert agreement(vectors, vectors) == (1, 1)
    assert agreement(vectors[:2], vectors).figure == 0
    assert answers.quality("sentence-embedding", [], vectors) == {}


def test_inputs(bundle: Path, tmp_path: Path) -> None:
    declared = Bundle.read(bundle)
    found, gold = read_inputs(declared, None, None, 7)
    assert (len(found), len(gold)) == (7, 0)
    unlabelled = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])
    assert read_inputs(declared, str(unlabelled), None, 9) == (["one", "two"], ())
    strange = write_jsonl(tmp_path / "b.jsonl", [{"text": "one", "label": "nonsense"}])
    with pytest.raises(DataError, match="nonsense"):
        read_inputs(declared, str(strange), None, 9)
    half = write_jsonl(tmp_path / "c.jsonl", [{"text": "one", "label": declared.labels[0]}, {"text": "two"}])
    with pytest.raises(DataError, match=r"c\.jsonl:2: field 'label'"):
        read_inputs(declared, str(half), None, 9)


def test_texts_of_stated_lengths(bundle: Path) -> None:
    declared = Bundle.read(bundle)
    found = of_lengths(bundle, declared, "12:3,30:1", 200)
    lengths = np.array(mixes.tokens(bundle, found, 99))
    short = lengths <= 12
    assert (lengths <= 30).all()
    assert np.median(lengths[short]) >= 10
    assert short.mean() == pytest.approx(0.75, abs=0.1)
    assert (lengths[~short] > 20).all()
    assert found == of_lengths(bundle, declared, "12:3,30:1", 200)
    for wrong in ("", "0:1", "8:0", "8:-1", "x", "8:y"):
        with pytest.raises(UsageError, match="--lengths"):
            of_lengths(bundle, declared, wrong, 1)


def test_a_task_that_needs_a_file(made: Any) -> None:
    _, _, bundle, _ = made
    declared = Bundle.read(bundle)
    if declared.task in ("text-classification", "token-classification"):
        assert read_inputs(declared, None, None, 1)[0]
        return
    with pytest.raises(UsageError, match=f"--input: is wanted for {declared.task}"):
        read_inputs(declared, None, None, 1)
    with pytest.raises(UsageError, match="--lengths: is for tasks that take one text"):
        of_lengths(bundle, declared, "8", 1)


def test_compiled_models_answer_alike(bundle: Path, checkpoint: Path) -> None:
    wanted = Wanted(task="text-classification", threads=1, max_length=48, pad_id=0, pooling="mean")
    plain, compiled = (
        load_peer("torch").open_subject(checkpoint, "fp32" + end, wanted) for end in ("", COMPILED)
    )
    some = ["where is my parcel", "thanks"]
    setting = plain.SETTINGS[0]
    assert compiled.many(some, **setting) == plain.many(some, **setting)


def test_every_task_can_be_measured() -> None:
    assert set(load_peer("headway").TASKS) == set(tasks.names())
