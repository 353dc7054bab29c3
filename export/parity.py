"""Proof of an encoder's variant: its outputs against PyTorch's, and a row alone against the same row among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core import tasks
from headway.core.errors import GateError
from headway.core.progress import Progress
from headway.core.tasks import EncoderTask, Example, Row, Spec
from headway.core.tolerance import PRECISION
from headway.runtime.backends.base import Backend
from headway.runtime.ragged import Ragged
from headway.train import checkpoint
from headway.train.checkpoint import Opened

BATCHES = (2, 5, 16, 64)
"""rows in a batch; rows of all lengths meet, so that each is padded in many ways"""
BATCH_TOKENS = 32_768
"""padded tokens in a batch, at most: 64 rows of 512"""
OWN = 192
"""of the user's examples, evenly spread over the file"""
LONGEST = 2048
"""tokens; a model that takes more is compared up to here"""
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
"""tokens of rows that are cut from a long one"""

Answers = list[NDArray[np.float32]]
"""of each row: (C), (T, C) or (D)"""


@dataclass(frozen=True)
class Parity:
    """Differences of logits (or vectors) as a share of the reference's standard deviation."""

    rows: int
    shortest: int
    """tokens"""
    longest: int
    """tokens"""
    worst: float
    mean: float
    neighbours: float
    """largest difference between a row alone and the same row in a batch"""
    agreement: float
    """share of answers that are the same as PyTorch's; of scores the correlation, of vectors the mean cosine"""

    def as_manifest(self, precision: str) -> dict[str, Any]:
        return asdict(self) | {"batches": list(BATCHES), "limits": asdict(PRECISION[precision])}


def rows(task: EncoderTask, tokenizer: Any, spec: Spec, own: Sequence[Example]) -> list[Row]:
    """Inputs to compare on: of the user's examples, of texts in many scripts, pairs, and of every length.

    `tokenizer` is a `tokenizers.Tokenizer`.
    """
    longest = min(spec.max_length, LONGEST)
    short = Spec(spec.labels, longest, spec.settings)
    every = max(1, len(own) // OWN)
    chosen = task.rows(own[::every][:OWN], tokenizer, short) if own else []
    chosen = [row for row in chosen if row.ids][:OWN]
    shipped = _shipped()
    pairs = list(zip(shipped[::3], shipped[1::3], strict=False))
    chosen += [Row(0, e.ids, e.type_ids) for e in tasks.encode(tokenizer, shipped, longest)]
    chosen += [Row(0, e.ids, e.type_ids) for e in tasks.encode(tokenizer, pairs, longest)]
    endless = " ".join(shipped * (1 + longest // len(shipped)))
    (long,) = tasks.encode(tokenizer, [endless], longest)
    return chosen + [Row(0, long.ids[:n], long.type_ids[:n]) for n in (*LENGTHS, longest) if n <= longest]


def check_tokenizer(opened: Opened, tokenizer: Any) -> None:
    """Raise GateError if the bundle's tokenizer splits a text otherwise than the model's own does."""
    texts = _shipped()
    longest = min(opened.spec.max_length, LONGEST)
    own = opened.tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    bundled = [e.ids for e in tasks.encode(tokenizer, texts, longest)]
    other = sum(a != b for a, b in zip(own, bundled, strict=True))
    if other:
        raise GateError("parity", "tokenizer", "texts split into other tokens", other, 0)


def _shipped() -> list[str]:
    """headway's own texts, in many scripts."""
    return resources.files("headway.export").joinpath("parity_texts.txt").read_text("utf-8").splitlines()


def reference(opened: Opened, task: EncoderTask, compared: Sequence[Row], progress: Progress) -> Answers:
    """PyTorch's answers, each row alone and so without any padding."""
    return [
        tasks.joined(task, checkpoint.outputs(opened, [row]))[0]
        for row in progress(compared, "PyTorch", len(compared))
    ]


def alone(
    task: EncoderTask, backend: Backend, compared: Sequence[Row], progress: Progress, label: str
) -> Answers:
    """A graph's answers, each row alone."""
    ragged = Ragged.of(compared)
    return [
        tasks.joined(task, backend.run([ragged.take(np.array([i]))])[0])[0]
        for i in progress(range(len(compared)), label, len(compared))
    ]


def measure(
    task: EncoderTask,
    spec: Spec,
    backend: Backend,
    compared: Sequence[Row],
    expected: Answers,
    progress: Progress,
    label: str,
) -> Parity:
    """Run the rows alone and in batches through the runtime's own engine."""
    ragged = Ragged.of(compared)
    found = alone(task, backend, compared, progress, label)
    neighbours = 0.0
    longest = int(ragged.lengths.max())
    for size in sorted({min(size, max(2, BATCH_TOKENS // longest)) for size in BATCHES}):
        mixed = np.random.default_rng(size).permutation(len(compared))
        parts = [mixed[i : i + size] for i in range(0, len(mixed), size)]
        for part, outputs in zip(parts, backend.run([ragged.take(p) for p in parts]), strict=True):
            for i, answer in zip(part, tasks.joined(task, outputs), strict=True):
                own = answer[: len(found[i])] if answer.ndim == 2 else answer
                neighbours = max(neighbours, float(np.abs(own - found[i]).max()))
    flat, wanted = (np.concatenate([a.ravel() for a in answers]) for answers in (found, expected))
    spread = float(wanted.std()) or 1.0
    difference = np.abs(flat - wanted)
    return Parity(
        rows=len(compared),
        shortest=int(ragged.lengths.min()),
        longest=longest,
        worst=float(difference.max()) / spread,
        mean=float(difference.mean()) / spread,
        neighbours=neighbours / spread,
        agreement=agreement(task, spec, found, expected),
    )


def agreement(task: EncoderTask, spec: Spec, found: Answers, expected: Answers) -> float:
    """How far two lists of answers come to the same."""
    if "width" in task.GRAPH[task.READ[0]]:
        ours, theirs = np.stack(found).astype(np.float64), np.stack(expected).astype(np.float64)
        lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
        return float(np.mean((ours * theirs).sum(-1) / np.maximum(lengths, 1e-12)))
    if "classes" not in task.GRAPH[task.READ[0]]:  # starts and ends: (T, 2)
        same = [f.argmax(0) == e.argmax(0) for f, e in zip(found, expected, strict=True)]
        return float(np.mean(np.concatenate(same)))
    if found[0].shape[-1] == 1:
        both = np.corrcoef(np.concatenate(found).ravel(), np.concatenate(expected).ravel())
        return float(np.nan_to_num(both[0, 1], nan=1.0))
    if getattr(spec.settings, "kind", "single") == "multi":
        return float(np.mean((np.stack(found) > 0) == (np.stack(expected) > 0)))
    same = [np.atleast_1d(f.argmax(-1) == e.argmax(-1)) for f, e in zip(found, expected, strict=True)]
    return float(np.mean(np.concatenate(same)))


def problem(precision: str, measured: Parity) -> GateError | None:
    """The first figure that is above its limit, or is no number; None if all hold."""
    for figure, limit in asdict(PRECISION[precision]).items():
        if not getattr(measured, figure) <= limit:
            return GateError("parity", precision, figure, getattr(measured, figure), limit)
    return None
