"""Proof of a variant: its outputs against PyTorch's, and a text alone against the same text among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import GateError
from headway.core.progress import Progress
from headway.core.tolerance import PRECISION
from headway.runtime.backends.base import Backend, Outputs
from headway.runtime.tokenize import Tokenizer
from headway.train import checkpoint
from headway.train.checkpoint import Opened

BATCHES = (2, 5, 16, 64)
"""texts in a batch; texts of all lengths meet, so that each is padded in many ways"""
OWN_TEXTS = 192
"""of the user's texts, evenly spread over the file"""


@dataclass(frozen=True)
class Parity:
    """Differences of logits as a share of the reference logits' standard deviation."""

    texts: int
    shortest: int
    """tokens"""
    longest: int
    """tokens"""
    worst: float
    mean: float
    neighbours: float
    """largest difference between a text alone and the same text in a batch"""
    agreement: float
    """share of texts whose largest logit is the same as PyTorch's"""

    def as_manifest(self, precision: str) -> dict[str, Any]:
        return asdict(self) | {"batches": list(BATCHES), "limits": asdict(PRECISION[precision])}


def texts(own: Sequence[str]) -> list[str]:
    """Texts to compare on: the user's, headway's own in many scripts, and some of every length up to very long."""
    every = max(1, len(own) // OWN_TEXTS)
    shipped = resources.files("headway.export").joinpath("parity_texts.txt").read_text("utf-8").splitlines()
    chosen = [*own[::every][:OWN_TEXTS], *shipped]
    words = " ".join(chosen).split()
    return chosen + [" ".join(words[:n]) for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610)]


def reference(opened: Opened, compared: Sequence[str], progress: Progress) -> NDArray[np.float32]:
    """PyTorch's logits, each text alone and so without any padding: (B, …)."""
    alone = [checkpoint.outputs(opened, [t])["logits"] for t in progress(compared, "PyTorch", len(compared))]
    return np.concatenate(alone)


def measure(
    tokenizer: Tokenizer,
    backend: Backend,
    compared: Sequence[str],
    expected: NDArray[np.float32],
    progress: Progress,
    label: str,
) -> Parity:
    """Run the texts alone and in batches through the runtime's own tokenizer and engine."""
    ragged, _ = tokenizer(compared)
    rows = np.arange(len(ragged))
    alone = _logits(
        [backend.run([ragged.take(rows[i : i + 1])])[0] for i in progress(rows, label, len(rows))]
    )
    spread = float(expected.std()) or 1.0
    neighbours = 0.0
    for size in BATCHES:
        mixed = np.random.default_rng(size).permutation(rows)
        parts = [mixed[i : i + size] for i in range(0, len(mixed), size)]
        together = _logits([out for p in parts for out in backend.run([ragged.take(p)])])
        neighbours = max(neighbours, float(np.abs(together - alone[mixed]).max()))
    difference = np.abs(alone - expected)
    return Parity(
        texts=len(rows),
        shortest=int(ragged.lengths.min()),
        longest=int(ragged.lengths.max()),
        worst=float(difference.max()) / spread,
        mean=float(difference.mean()) / spread,
        neighbours=neighbours / spread,
        agreement=float(np.mean(alone.argmax(-1) == expected.argmax(-1))),
    )


def gate(precision: str, measured: Parity) -> None:
    """Raise GateError for the first figure that is above its limit, or is no number."""
    for figure, limit in asdict(PRECISION[precision]).items():
        if not getattr(measured, figure) <= limit:
            raise GateError("parity", precision, figure, getattr(measured, figure), limit)


def _logits(outputs: Sequence[Outputs]) -> NDArray[np.float32]:
    return np.concatenate([o["logits"] for o in outputs])
