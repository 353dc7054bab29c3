"""What the model said to inputs that it read before, so that the same input need not be run again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UsageError
from headway.runtime.fork_safety import ForkSafeLock
from headway.runtime.ragged import Ragged

ENTRIES = 10_000
"""answers that are kept, at most, where nothing else is said: 15 MB of vectors of 384 numbers"""
OVERHEAD = 400
"""bytes that an entry takes beside its numbers: key, array object, place in the table (measured: 380)"""

Run = Callable[[Ragged], list[NDArray[np.float32]]]
"""the engine: an answer to each row"""


class Cache:
    """Answers by content hash, those used last. Safe to share between threads; its arrays are read-only.

    The key is of the tokens, not of the text: it holds for every task, and texts that the tokenizer does not
    tell apart share an entry. One cache belongs to one opened model.
    """

    def __init__(self, entries: int = ENTRIES, most_bytes: int | None = None) -> None:
        """Keep at most `entries` answers and, where it is given, at most `most_bytes` bytes of them."""
        if entries < 1:
            raise UsageError("cache", f"must hold at least 1 answer, not {entries}")
        if most_bytes is not None and most_bytes < 1:
            raise UsageError("cache", f"must hold at least 1 byte, not {most_bytes}")
        self._entries, self._most_bytes = entries, most_bytes
        self._answers: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()  # used longest ago first
        self._lock = ForkSafeLock()
        self.bytes = self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The answer to an input, read-only, or None."""
        with self._lock:
            found = self._answers.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                self._answers.move_to_end(key)
            return found

    def put(self, key: bytes, answer: NDArray[np.float32]) -> None:
        """Keep a copy of an answer, and let go of those used longest ago if there is no room."""
        kept = answer.copy()  # not a view, which would keep the whole batch
        kept.flags.writeable = False
        with self._lock:
            self._drop(key)
            self._answers[key] = kept
            self.bytes += _size(kept)
            while self._full():
                self._drop(next(iter(self._answers)))

    def clear(self) -> None:
        with self._lock:
            self._answers.clear()
            self.bytes = 0

    def _full(self) -> bool:
        too_large = self._most_bytes is not None and self.bytes > self._most_bytes
        return len(self._answers) > self._entries or too_large

    def _drop(self, key: bytes) -> None:
        dropped = self._answers.pop(key, None)
        if dropped is not None:
            self.bytes -= _size(dropped)


def contents(ragged: Ragged) -> list[bytes]:
    """Each row's tokens and segments, as bytes: equal for equal rows only."""
    both = np.stack([ragged.ids, ragged.types], axis=-1)  # (N, 2)
    raw, width = both.tobytes(), 2 * both.itemsize
    ends = (ragged.offsets * width).tolist()
    return [raw[begin:end] for begin, end in pairwise(ends)]


def content_hash(content: bytes) -> bytes:
    """The key of a row's content."""
    return hashlib.blake2b(content, digest_size=32).digest()


def distinct(contents: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Rows in which each content occurs first (U), and for every row the place of its equal among them (B)."""
    places: dict[bytes, int] = {}
    of_row = [places.setdefault(content, len(places)) for content in contents]
    if len(places) == len(of_row):
        return of_row, of_row
    first: list[int] = []
    for row, place in enumerate(of_row):
        if place == len(first):
            first.append(row)
    return first, of_row


def answer_once(ragged: Ragged, run: Run, cache: Cache | None) -> list[NDArray[np.float32]]:
    """What `run` says to each row (B). Equal rows are run once and share their answer; known ones not at all."""
    if len(ragged) == 1 and cache is None:
        return run(ragged)
    found = contents(ragged)
    first, of_row = distinct(found)
    keys = [content_hash(found[row]) for row in first] if cache is not None else []
    answers: list[Any] = [None] * len(first) if cache is None else [cache.get(key) for key in keys]
    missing = [place for place, answer in enumerate(answers) if answer is None]
    if missing:
        rows = np.array([first[place] for place in missing])
        asked = ragged if len(rows) == len(ragged) else ragged.take(rows)
        for place, answer in zip(missing, run(asked), strict=True):
            answers[place] = answer
            if cache is not None:
                cache.put(keys[place], answer)
    return [answers[place] for place in of_row]


def _size(answer: NDArray[np.float32]) -> int:
    return answer.nbytes + OVERHEAD
