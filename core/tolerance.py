"""How far a variant may be from the PyTorch model: one table, by precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Limits on logits, as a share of the reference logits' spread (their standard deviation over all texts)."""

    worst: float
    """largest |difference| from PyTorch"""
    mean: float
    """mean |difference| from PyTorch"""
    neighbours: float
    """largest |difference| between a text alone and the same text in any batch, with any padding"""


PRECISION: dict[str, Tolerance] = {
    "fp32": Tolerance(worst=1e-4, mean=1e-5, neighbours=1e-4),
    "int8": Tolerance(worst=1.0, mean=0.1, neighbours=1e-3),
}
