"""What every variant of a model is held to. One file per kind of model: `encoders`, `writers`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.core.errors import GateError
from headway.core.manifest import Bundle, Graph
from headway.core.progress import Progress
from headway.core.tasks import Example, Spec, Task
from headway.core.tolerance import PRECISION
from headway.export.precision.base import Feeds

LEAST_AGREEMENT = -1.0
"""of a correlation or a cosine: every number will do"""

Answers = list[NDArray[np.float32]]
"""of each row: (C), (T, C) or (D); of what is written (T, V)"""


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
    identical: float | None = None
    """of a model that writes: share of texts that are `generate()`'s token for token, greedy and with four beams"""

    def worst_of(self, other: Parity) -> Parity:
        """Of two graphs of one variant, compared on the same rows."""
        larger: dict[str, Any] = {
            name: largest([getattr(self, name), getattr(other, name)])
            for name in ("worst", "mean", "neighbours")
        }
        return replace(self, **larger, agreement=float(np.min([self.agreement, other.agreement])))

    def as_manifest(self, precision: str, by: str) -> dict[str, Any]:
        return asdict(self) | {"limits": asdict(PRECISION[precision]), "by": by}


@dataclass(frozen=True)
class Proof(ABC):
    """A model's fp32 graphs, and what their variants are compared with."""

    task: Task
    spec: Spec
    draft: Bundle
    """the manifest, still without variants"""
    tokenizer: Any
    """the bundle's own"""
    fp32: dict[str, ir.Model]
    """graphs by role, which nobody changes; one that gives what another takes stands before it"""
    traced: dict[str, Graph]
    """what those take and give"""
    examples: list[Example]
    """labelled; empty without --eval"""
    reference: dict[str, float]
    """the checkpoint's own figures on the examples"""
    max_drop: float | None
    target: str
    """what the variants are to run on"""
    threads: int
    checkpoint: str

    @property
    def metric(self) -> str:
        return self.task.metric(self.spec.settings)

    def graphs(self, folder: Path) -> dict[str, Path]:
        """Where a variant's graphs lie, by role."""
        return {role: folder / f"{role}.onnx" for role in self.fp32}

    def runnable(self, role: str, model: ir.Model, given: Mapping[str, ir.DataType]) -> ir.Model:
        """A variant's graph as headway's runtime takes it; it may be changed in place.

        `given`: types of what the variant's graphs before it give, by name.
        """
        return model

    def provable(self, role: str, model: ir.Model) -> ir.Model:
        """The same for the processor, which has no caches in 16 bits."""
        return model

    def written(self, folder: Path) -> dict[str, Path]:
        """The graphs that a variant has, by role."""
        return self.graphs(folder)

    def without_padding(self, role: str, model: ir.Model) -> ir.Model | None:
        """A variant's graph over tokens end to end, where it has one."""
        return None

    @abstractmethod
    def feeds(self, role: str) -> Feeds:
        """What real inputs give a graph."""

    @abstractmethod
    def measure(self, folder: Path, progress: Progress, label: str) -> Parity:
        """Compare a variant with PyTorch, alone and in batches."""

    @abstractmethod
    def judge(self, folder: Path, precision: str) -> tuple[Any, dict[str, float]]:
        """The task's settings fitted for a variant, and its figures on the examples with them."""

    @abstractmethod
    def work(self, folder: Path) -> Callable[[], int]:
        """A piece of a variant's usual work, to be timed: each call does it once and says how many tokens it was."""

    @abstractmethod
    def answers(self, folder: Path) -> Answers:
        """A variant's answers to a few rows."""


def differences(found: Answers, expected: Answers) -> tuple[float, float, float]:
    """Worst and mean difference as shares of the expected answers' spread, and that spread."""
    flat, wanted = (np.concatenate([a.ravel() for a in answers]) for answers in (found, expected))
    spread = float(wanted.std()) or 1.0
    apart = np.abs(flat - wanted)
    return float(apart.max()) / spread, float(apart.mean()) / spread, spread


def largest(figures: Sequence[float]) -> float:
    """The largest, at least 0; NaN where any is NaN, which Python's `max` loses: `max(0.0, nan)` is 0.0."""
    return float(np.max(figures, initial=0.0))


def problem(precision: str, measured: Parity) -> GateError | None:
    """The first figure that is on the wrong side of its limit, or is no number; None if all hold."""
    limits = PRECISION[precision]
    for figure in ("worst", "mean", "neighbours"):
        if not getattr(measured, figure) <= getattr(limits, figure):
            return GateError("parity", precision, figure, getattr(measured, figure), getattr(limits, figure))
    if not np.isfinite(measured.agreement):
        return GateError("parity", precision, "agreement", measured.agreement, LEAST_AGREEMENT)
    if measured.identical is not None and not measured.identical >= limits.identical:
        return GateError("parity", precision, "identical texts", measured.identical, limits.identical)
    return None
