"""A ragged batch: token ids end to end, with the place where each text begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from headway.core.tasks import Row


@dataclass(frozen=True)
class Ragged:
    """B token sequences of N tokens in all. Row b is `ids[offsets[b]:offsets[b + 1]]`."""

    ids: NDArray[np.int32]  # (N)
    types: NDArray[np.int32]  # (N): segment of each token, 0 or 1
    offsets: NDArray[np.int64]  # (B + 1)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Ragged:
        """The model's inputs, in order."""
        ends = accumulate((len(row.ids) for row in rows), initial=0)
        offsets = np.fromiter(ends, np.int64, len(rows) + 1)
        ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32, offsets[-1])
        types = np.fromiter(chain.from_iterable(row.types for row in rows), np.int32, offsets[-1])
        return cls(ids, types, offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:  # (B)
        return self.offsets[1:] - self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """The given rows, in the given order, as a batch of their own."""
        lengths = self.lengths[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        flat = np.arange(offsets[-1]) + np.repeat(
            self.offsets[rows] - offsets[:-1], lengths
        )  # (N of the rows)
        return Ragged(self.ids[flat], self.types[flat], offsets)
