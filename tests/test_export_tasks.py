"""Export of every encoder task and architecture: variants near PyTorch, and the runtime's results those of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers

from headway.core import tasks
from headway.core.errors import BundleError, CheckpointError
from headway.core.manifest import Bundle, Checkpoint
from headway.core.tolerance import PRECISION
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.train import checkpoint as opener
from headway.train.options import TrainOptions
from headway.train.tasks import base
from tests import corpora
from tests.small import small_bundle
from tests.test_architectures import ENCODERS, model_of

DATA: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "single": ("text-classification", corpora.single, {}),
    "pooled": ("text-classification", corpora.single, {"pooling": "attention"}),
    "multi": ("text-classification", corpora.multi, {}),
    "regression": ("text-classification", corpora.regression, {}),
    "pairs": ("text-classification", corpora.pairs, {"pooling": "max"}),
    "documents": ("sequential-sentence-classification", corpora.documents, {}),
    "tags": ("token-classification", corpora.entities, {}),
    "questions": ("question-answering", corpora.questions, {"stride": 16}),
    "vectors": ("sentence-embedding", corpora.similar, {}),
    "ranking": ("text-ranking", corpora.passages, {}),
}
"""each kind of data with its task and options"""
TASKS = ("single", "documents", "tags", "questions", "vectors", "ranking")
"""one kind of data of each task"""


def untrained(kind: str, model: Path, folder: Path, max_length: int = 96) -> tuple[Path, Path]:
    """A checkpoint with a random head, whose answers are far apart, and data for it."""
    task, make, special = DATA[kind]
    rows = corpora.write(make, "train", folder, 40)
    options = TrainOptions(
        model=str(model), train=rows, output=folder / "checkpoint", max_length=max_length, **special
    )
    examples = tasks.read_labelled(tasks.load(task), rows)
    specifics = base.load(task)
    tokenizer = opener.open_tokenizer(str(model))
    spec = specifics.describe(examples, [], tokenizer, options)
    torch.manual_seed(1)
    network: Any = opener.open_model(str(model), task, spec, options)
    for name, weight in network.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    folder = options.output
    folder.mkdir()
    specifics.save(network, tokenizer, spec, folder)
    settings = msgspec.to_builtins(spec.settings)
    if kind == "multi":  # as if they had been fitted
        settings |= {"temperature": 1.5, "thresholds": np.linspace(0.3, 0.7, len(spec.labels)).tolist()}
    Checkpoint(
        task=task,
        labels=spec.labels,
        max_length=max_length,
        model="random",
        training_data={},
        options={},
        metrics={},
        settings=settings,
    ).write(folder)
    return folder, rows


def numbers(result: Any) -> list[float]:
    """All numbers in a result, in order."""
    found: list[float] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for part in value.values():
                walk(part)
        elif isinstance(value, list | tuple):
            for part in value:
                walk(part)
        elif isinstance(value, float):
            found.append(value)

    walk(msgspec.to_builtins(result))
    return found


@pytest.mark.parametrize("kind", DATA)
def test_every_task(kind: str, pretrained: Path, tmp_path: Path) -> None:
    folder, rows = untrained(kind, pretrained, tmp_path, max_length=60)
    report = export(folder, ExportOptions(output=tmp_path / "bundle", eval=rows, threads=1))
    opened = opener.open_checkpoint(folder)
    task = tasks.load(opened.manifest.task)
    examples = tasks.read_labelled(task, rows, spec=opened.spec)
    expected = opener.predict(opened, examples)
    pipe = load(tmp_path / "bundle", precision="fp32", threads=1)
    found = pipe.predict(examples)
    for ours, alone in zip(found, (pipe(dict(e.record.fields)) for e in examples), strict=True):
        np.testing.assert_allclose(numbers(ours), numbers(alone), rtol=1e-4, atol=1e-5)
    assert report.variants["fp32"].quality == pytest.approx(report.reference, abs=1e-6)
    assert [r.truncated for r in found] == [r.truncated for r in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-3, atol=1e-4)
    assert len({str(r) for r in found}) > len(found) // 4


def pairs() -> list[Any]:
    """Every architecture with every task; in the suite with two of them, so that each task meets three architectures."""
    return [
        pytest.param(architecture, kind, marks=() if (j - i) % len(TASKS) in (0, 3) else pytest.mark.grid)
        for i, architecture in enumerate([*ENCODERS, "albert", "xlm-roberta"])
        for j, kind in enumerate(TASKS)
    ]


@pytest.mark.parametrize(("architecture", "kind"), pairs())
def test_every_architecture(architecture: str, kind: str, tmp_path: Path) -> None:
    model = model_of(architecture, transformers.AutoModel, tmp_path / "model")
    folder, _ = untrained(kind, model, tmp_path)
    export(folder, ExportOptions(output=tmp_path / "bundle", threads=1))
    bundle = Bundle.read(tmp_path / "bundle")
    assert bundle.architecture["model_type"] == architecture
    for variant in bundle.variants.values():
        limits = PRECISION[variant.precision]
        assert variant.parity["worst"] <= limits.worst
        assert variant.parity["neighbours"] <= limits.neighbours
        assert variant.parity["longest"] == 96


def test_a_separator_that_the_tokenizer_does_not_have(pretrained: Path, tmp_path: Path) -> None:
    folder, _ = untrained("documents", pretrained, tmp_path)
    bundle = small_bundle(tmp_path / "bundle")
    told = Bundle.read(bundle)
    (logits,) = told.graphs["model"].outputs
    logits.shape.insert(1, "length")
    task, wrong = "sequential-sentence-classification", {"separator": "[END]"}
    msgspec.structs.replace(told, task=task, settings=wrong).write(bundle)
    msgspec.structs.replace(Checkpoint.read(folder), settings=wrong).write(folder)
    problem = r"its setting 'separator' is '\[END\]', which its tokenizer does not have$"
    with pytest.raises(CheckpointError, match=problem):
        opener.open_checkpoint(folder)
    with pytest.raises(BundleError, match=problem):
        load(bundle)
