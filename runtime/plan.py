"""Step 2: which texts go through the model together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BATCH_TOKENS = 512
"""padded tokens in a batch: enough to fill the processor's vector units, few enough to stay in its caches"""
BATCH_OVERHEAD = 12
"""what starting one batch costs, in tokens' worth of time"""


def plan(lengths: NDArray[np.int64], budget: int = BATCH_TOKENS) -> list[NDArray[np.int64]]:
    """Split B texts into batches so that padding plus per-batch overhead is least.

    Texts are taken in order of length. Between any two neighbouring lengths a batch may end; dynamic
    programming finds the cheapest set of ends, where texts i…j together cost
    `count * longest + batches * overhead` and no batch exceeds `budget` padded tokens, unless it is one text.

    Args:
        lengths: (B) tokens of each text.
        budget: padded tokens in a batch.
    Returns:
        Rows of each batch; every row occurs once. Longest batch first, so that memory peaks at the start.
    """
    order = np.argsort(lengths, kind="stable")
    distinct, first = np.unique(lengths[order], return_index=True)  # (G) groups of equal length
    begins = np.append(first, len(order))  # (G + 1)
    rows_per_batch = np.maximum(1, budget // np.maximum(distinct, 1))  # (G) if this length is the longest
    cheapest = np.zeros(len(distinct) + 1)  # cost of the groups before g
    start = np.zeros(len(distinct), dtype=np.int64)  # where the range that ends with group g begins
    for g, (longest, rows) in enumerate(zip(distinct, rows_per_batch, strict=True)):
        counts = begins[g + 1] - begins[: g + 1]  # (g + 1) texts in a range that begins at each group
        costs = cheapest[: g + 1] + counts * longest + -(-counts // rows) * BATCH_OVERHEAD
        start[g] = np.argmin(costs)
        cheapest[g + 1] = costs[start[g]]
    batches: list[NDArray[np.int64]] = []
    end = len(distinct)
    while end > 0:
        begin = start[end - 1]
        rows_of_range = order[begins[begin] : begins[end]]
        parts = -(-len(rows_of_range) // rows_per_batch[end - 1])
        batches += reversed(np.array_split(rows_of_range, parts))
        end = begin
    return batches
