"""The kernels that writing on a GPU needs, played on the host: work of the played driver's streams, in its memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from headway.core.search import Search
from headway.cpp_ext import Searcher
from headway.runtime.generation.gpu.device import STORED, as_floats
from tests.cuda_driver import Driver

NO_WRONG_ROW = 0x7F7F7F7F


def array(address: int, shape: Sequence[int], dtype: Any) -> Any:
    """What lies in the played memory."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * count).from_address(address), dtype).reshape(shape)


class Kernels:
    """What `headway.runtime.generation` uses of `headway.cpp_ext.cuda`."""

    no_wrong_row = NO_WRONG_ROW

    def __init__(self, driver: Driver) -> None:
        self.driver, self.begun = driver, list[Beams]()

    def Beams(self, *told: Any) -> Beams:  # noqa: N802 (its name)
        self.begun.append(Beams(self.driver, *told))
        return self.begun[-1]

    def follow(
        self, from_caches: int, to_caches: int, parents: int, written: int, shape: tuple[int, ...], at: int = 0, stream: int = 0
    ) -> None:  # fmt: skip
        caches, rows, heads, before, after, nbytes = shape

        def work() -> None:
            of, first = array(parents, [rows], np.int64), int(array(at, [1], np.int64)[0]) if at else 0
            columns = int(array(written, [1], np.int64)[0])
            assert columns <= before
            assert first + columns <= after
            for source, target in zip(
                array(from_caches, [caches], np.int64).tolist(), array(to_caches, [caches], np.int64).tolist(), strict=True
            ):  # fmt: skip
                if source == target:
                    assert (of[of] == of).all(), "who is followed must follow itself"
                count = int(of.max()) + 1
                assert self.driver.inside(target, rows * heads * after * nbytes)
                assert self.driver.inside(source, count * heads * before * nbytes)
                held = array(source, [count, heads, before, nbytes], np.uint8)[of, :, :columns].copy()
                array(target, [rows, heads, after, nbytes], np.uint8)[:, :, first : first + columns] = held

        self.driver.give(stream, work)

    def advance(self, numbers: int, count: int, by: int = 1, stream: int = 0) -> None:
        def work() -> None:
            array(numbers, [count], np.int64)[:] += by

        self.driver.give(stream, work)


class Beams:
    """The search on the processor, with the rows that it has on the GPU."""

    def __init__(
        self, driver: Driver, vocabulary: int, prompts: Any, settings: Search, longest: Any, shortest: Any, sources: Any, room: Any
    ) -> None:  # fmt: skip
        self.driver, self.vocabulary, self.settings, self.room = driver, vocabulary, settings, room
        self.batch, self.beams = len(prompts), settings.num_beams
        self.spoilt = False
        """whether the next logits are no numbers"""
        rows = self.batch * self.beams
        self.addresses = tuple(
            driver._taken(driver.blocks, n) for n in (8 * rows, 8 * rows, 4 * (self.batch + 1))
        )
        self.begin(prompts, longest, shortest, sources)

    def begin(self, prompts: Any, longest: Any, shortest: Any, sources: Any, stream: int = 0) -> None:
        if stream:
            self.driver.cuStreamSynchronize(stream)
        assert max(longest) <= self.room[0]
        assert max(map(len, sources)) <= self.room[1]
        self.searcher = Searcher(self.vocabulary)
        told = zip(prompts, longest, shortest, sources, strict=True)
        self.keys = [
            self.searcher.add(np.array(p), self.settings, a, b, np.array(s or p), None) for p, a, b, s in told
        ]
        self.running = list(self.keys)
        array(self.addresses[2], [self.batch + 1], np.int32)[:] = [0] * self.batch + [NO_WRONG_ROW]

    def record(self, logits: int, kind: str, first: bool, stream: int) -> None:
        self.driver.give(stream, lambda: self._step(logits, kind, first))

    def _step(self, address: int, kind: str, first: bool) -> None:
        tokens, parents = (array(at, [self.batch * self.beams], np.int64) for at in self.addresses[:2])
        flags = array(self.addresses[2], [self.batch + 1], np.int32)
        if flags[-1] != NO_WRONG_ROW:
            return
        each = 1 if first else self.beams
        shape = [self.batch, each, self.vocabulary]
        logits = as_floats(array(address, shape, STORED[kind]))
        going = [b for b, key in enumerate(self.keys) if key in self.running]
        tokens[:], parents[:] = 0, np.arange(len(parents))
        if not going:
            return
        asked = logits[going].reshape(-1, self.vocabulary)
        if self.spoilt:
            asked[0], self.spoilt = np.nan, False
        if not (asked < np.inf).all():
            flags[-1] = int(np.flatnonzero(~(asked < np.inf).all(axis=1))[0])
            return
        self.searcher.advance(asked, None)
        ended = [b for b in going if self.keys[b] in self.searcher.finished]
        still = [b for b in going if b not in ended]
        self.running = [self.keys[b] for b in still]
        flags[ended] = 1
        rows = np.array([b * self.beams + i for b in still for i in range(self.beams)], np.int64)
        before = np.array([b * each + i for b in going for i in range(each)], np.int64)
        tokens[rows], parents[rows] = self.searcher.tokens, before[self.searcher.parents]
        if first:
            lost = np.setdiff1d(np.arange(len(parents)), rows)
            parents[lost] = lost // self.beams

    def found_all(self, stream: int) -> list[Any]:
        self.driver.cuStreamSynchronize(stream)
        flags = array(self.addresses[2], [self.batch + 1], np.int32)
        if flags[-1] != NO_WRONG_ROW:
            raise ValueError(f"row {flags[-1]} holds NaN or +inf")
        return [self.searcher.found(key) for key in self.keys]
