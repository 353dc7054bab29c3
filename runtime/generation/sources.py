"""What was read of sources before, so that the same source, or the same beginning of a prompt, is not read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UsageError
from headway.runtime.fork_safety import ForkSafeLock

Read = Mapping[str, NDArray[Any]]
"""keys and values (heads, T, head size) by name, of the T tokens of a source; not to be changed"""
NOTHING: Read = {}


class Sources:
    """Those used last. Safe to share between threads. Belongs to one engine."""

    def __init__(self, entries: int) -> None:
        """Keep at most so many sources. Raises UsageError."""
        if entries < 1:
            raise UsageError("cache", f"must hold at least 1 source, not {entries}")
        self._entries = entries
        self._read: OrderedDict[tuple[int, ...], Read] = OrderedDict()  # used longest ago first
        self._lock = ForkSafeLock()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._read)

    def get(self, source: Sequence[int]) -> Read | None:
        """What was read of this very source."""
        with self._lock:
            return self._found(tuple(source))

    def beginning(self, source: Sequence[int]) -> tuple[int, Read]:
        """How many of its first tokens were read before, and what was read of these and perhaps others behind them."""
        ids = np.array(source)
        with self._lock:
            most, best = 0, None
            for key in self._read:
                shorter = min(len(key), len(ids))
                differ = np.flatnonzero(np.array(key[:shorter]) != ids[:shorter])
                same = int(differ[0]) if len(differ) else shorter
                if same > most:
                    most, best = same, key
            return most, (self._found(best) if best is not None else None) or NOTHING

    def put(self, source: Sequence[int], read: Read) -> None:
        """Keep copies, and let go of what was used longest ago if there is no room."""
        held = {name: np.array(values) for name, values in read.items()}
        with self._lock:
            self._read[tuple(source)] = held
            self._read.move_to_end(tuple(source))
            while len(self._read) > self._entries:
                self._read.popitem(last=False)

    def _found(self, key: tuple[int, ...]) -> Read | None:
        found = self._read.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._read.move_to_end(key)
        return found
