"""Step 2: which texts go through the model together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BATCH_TOKENS = 512
"""padded tokens in a batch: enough to fill the processor's vector units, few enough to stay in its caches"""
BATCH_OVERHEAD = 12
"""what starting one batch costs, in tokens' worth of time"""


def plan(
    lengths: NDArray[np.int64], budget: int = BATCH_TOKENS, pads: bool = True
) -> list[NDArray[np.int64]]:
    """Split B texts into batches so that padding plus per-batch overhead is least.

    Texts are taken in order of length, and dynamic programming finds the cheapest places to cut that order,
    where a batch costs `texts * longest + BATCH_OVERHEAD` and holds at most `budget` padded tokens, unless it
    is one text.

    Args:
        lengths: (B) tokens of each text.
        budget: padded tokens in a batch.
        pads: False where no padding is computed; then each batch is filled with as many texts as the budget holds.
    Returns:
        Rows of each batch; every row occurs once. Longest batch first, so that memory peaks at the start.
    """
    order = np.argsort(lengths, kind="stable")
    if not pads:
        return _filled(order, lengths[order], budget)
    ordered = lengths[order].tolist()
    descending = np.arange(len(order), 0, -1)
    cheapest = np.zeros(len(order) + 1)  # cost of the first n texts
    begins = np.zeros(len(order), dtype=np.int64)  # where the batch that ends with text n begins
    for last, longest in enumerate(ordered):
        most = min(last + 1, max(1, budget // max(longest, 1)))  # texts in a batch that ends here
        costs = cheapest[last + 1 - most : last + 1] + descending[-most:] * longest
        best = int(costs.argmin())
        begins[last] = last + 1 - most + best
        cheapest[last + 1] = costs[best] + BATCH_OVERHEAD
    batches: list[NDArray[np.int64]] = []
    end = len(order)
    while end > 0:
        batches.append(order[begins[end - 1] : end])
        end = begins[end - 1]
    return batches


def _filled(order: NDArray[np.int64], ordered: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Texts in order of length, from the longest on, in batches of as many as the budget holds."""
    ends = np.cumsum(ordered[::-1])
    descending, batches, at = order[::-1], list[NDArray[np.int64]](), 0
    while at < len(order):
        before = ends[at - 1] if at else 0
        end = max(at + 1, int(np.searchsorted(ends, before + budget, side="right")))
        batches.append(descending[at:end])
        at = end
    return batches
