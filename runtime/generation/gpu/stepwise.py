"""Steps on a GPU whose tokens the processor chooses: logits come down, tokens and parents go up.

Each source keeps equally many rows, side by side, for as long as any source goes on; those of one that has ended wait.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UnavailableError
from headway.runtime.generation.base import Floats, Ints
from headway.runtime.generation.gpu.device import as_floats, rounded
from headway.runtime.generation.gpu.reading import Reading
from headway.runtime.generation.gpu.steps import Steps

ROOM = 64
"""columns of the caches are multiples of it"""


class Stepwise:
    """What the decoder has read of a batch so far. For one thread."""

    def __init__(self, reading: Reading, padding: Ints, count: int) -> None:
        """
        Args:
            reading: of the sources, which is done.
            padding: columns before each of its rows.
            count: sources that are there.
        """
        self._reading, self._padding = reading, padding
        self._source = self._places = np.arange(count)
        """of each row of the last step: its source, and its row on the GPU"""
        self._each = 1
        """rows of a source on the GPU"""
        self._written = reading.step
        self._steps: Steps | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self._source)

    def join(self, other: object) -> None:
        raise UnavailableError(
            "a place beside other texts on a GPU", "wait until those under way are finished"
        )

    def step(self, ids: Ints, parents: Ints | None = None) -> Floats:
        """Read a token in each row: logits (R, V).

        Args:
            ids: (R, 1).
            parents: the row of the last step that each of the rows (R) goes on from; none: the same.
        """
        assert ids.shape[1] == 1
        place = self._reading.model.place
        if parents is None:
            parents = np.arange(len(self._source))
        with place.lock:
            place.device.use()
            self._go_on(parents)
            steps = self._steps
            assert steps is not None
            host, at = steps.memory.host, steps.memory.at
            host["input_ids"][:] = 0
            host["input_ids"][self._places] = ids[:, 0]
            steps.upload("input_ids")
            steps.give()
            place.stream.download(at["logits"], host["found"])
            place.stream.synchronize()
            self._written += 1
            return as_floats(host["found"][self._places, 0])

    def _go_on(self, parents: Ints) -> None:
        """Give every row a place on the GPU, and what its parent has read."""
        from_rows, self._source = self._places[parents], self._source[parents]
        batch = self._reading.batch
        each = max(self._each, int(np.bincount(self._source).max()))
        steps = self._steps
        stays = steps is not None and each == self._each and self._written < steps.room
        if not stays:
            self._each = each
            room = rounded(self._written + 1, ROOM)
            self._steps = Steps(self._reading, batch * each, room)
            self._places = placed(self._source, each, None)
        else:
            self._places = placed(self._source, each, from_rows)
        assert self._steps is not None
        host = self._steps.memory.host
        host["parents"][:] = np.arange(batch * each) if stays else 0
        host["parents"][self._places] = from_rows
        padding = self._padding.repeat(each)
        pointer = self._steps.memory.at["parents"]
        if stays:
            self._steps.count(self._written, padding)
            self._steps.upload("counters", "parents")
            self._steps.follow(pointer)
            return
        self._steps.begin(self._written, padding)
        self._steps.upload()
        self._steps.upload("parents")
        if steps is None:
            self._steps.spread(pointer)
        else:
            self._steps.take_over(steps, pointer)
            self._reading.model.place.stream.synchronize()  # the old caches may go


def placed(source: Ints, each: int, wanted: Ints | None) -> NDArray[np.int64]:
    """A row for each of some rows among the `each` rows of its source; the first that wants a row gets it."""
    found = np.full(len(source), -1, np.int64)
    if wanted is not None:
        _, first = np.unique(wanted, return_index=True)
        found[first] = wanted[first]
    taken = set(found.tolist())
    free: dict[int, list[int]] = {}
    for i in np.flatnonzero(found < 0).tolist():
        own = int(source[i])
        if own not in free:
            free[own] = [row for row in range(own * each, (own + 1) * each) if row not in taken]
        found[i] = free[own].pop(0)
    return found
