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
    identical: float = 0.0
    """of a model that writes: least share of texts that are `generate()`'s token for token"""


END_TO_END = 2e-3
"""largest difference of what a user gets from what the source's library gives, in fp32, as a share of the spread of the
library's values: ten times what differs between a text alone and in a batch, far below what any setting changes"""

PRECISION: dict[str, Tolerance] = {
    "fp32": Tolerance(worst=1e-4, mean=1e-5, neighbours=1e-4, identical=0.98),
    "fp16": Tolerance(worst=0.05, mean=0.005, neighbours=5e-3),
    "bf16": Tolerance(worst=0.4, mean=0.05, neighbours=0.05),
    "fp8": Tolerance(worst=2.0, mean=0.2, neighbours=1e-2),
    "int8": Tolerance(worst=1.0, mean=0.1, neighbours=1e-3),
    "int8-static": Tolerance(worst=1.0, mean=0.1, neighbours=1e-3),
    "int8-weights": Tolerance(worst=0.5, mean=0.05, neighbours=1e-3),
    "int4-weights": Tolerance(worst=2.0, mean=0.4, neighbours=1e-3),
}
