"""Load in an open loop, on a clock that only moves when somebody works or sleeps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.bench import arrivals
from headway.runtime import load as open_bundle
from headway.runtime.front import Front
from tests.small import small_bundle, texts


class Server:
    """Answers a batch in a fixed time, on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 100.0, seconds
        self.batches: list[list[Any]] = []

    def __call__(self, waiting: list[Any]) -> None:
        self.batches.append(waiting)
        self.now += self.seconds

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-9)

    def measured(self, rate: float, seconds: float, together: int = arrivals.TOGETHER) -> arrivals.Load:
        return arrivals.load(
            [self],
            ["a", "b", "c"],
            rate,
            seconds,
            together=together,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def test_latency_counts_from_when_a_request_should_have_been_sent() -> None:
    server = Server(0.1)
    found = server.measured(8, 50, together=1)
    times = arrivals.schedule(8, 50)
    free, expected = 0.0, []
    for due in times:  # a queue with one server, worked out apart
        free = max(free, due) + 0.1
        expected.append(1e3 * (free - due))
    np.testing.assert_allclose(found.latencies_ms, expected, atol=1e-3)
    assert max(expected) > 300  # those that waited for others
    assert found.unanswered == 0
    assert found.batch == 1


def test_what_waits_goes_together() -> None:
    server = Server(0.5)
    found = server.measured(20, 10)
    assert found.unanswered == 0
    assert found.batch is not None
    assert found.batch > 3
    assert max(map(len, server.batches)) <= arrivals.TOGETHER
    asked = [given for batch in server.batches for given in batch]
    assert asked == [["a", "b", "c"][i % 3] for i in range(len(asked))]


def test_a_server_that_is_too_slow_is_not_waited_for() -> None:
    server = Server(1.0)
    found = server.measured(10, 4, together=1)
    count = len(arrivals.schedule(10, 4))
    assert len(found.latencies_ms) == count
    assert found.unanswered == count - len(server.batches)
    assert found.unanswered > count / 2
    late = found.latencies_ms[len(server.batches) :]
    assert min(late) > 1e3  # those that nobody answered are not forgotten


def test_two_servers_share_the_requests() -> None:
    def answer(waiting: list[Any]) -> None:
        time.sleep(0.02)

    one, two = (arrivals.load([answer] * n, ["a"], 60, 1, together=1) for n in (1, 2))
    assert one.unanswered + two.unanswered >= 0
    assert np.median(two.latencies_ms) < np.median(one.latencies_ms)
    assert len(one.latencies_ms) == len(two.latencies_ms)


def test_through_a_front(tmp_path: Path) -> None:
    pipe = open_bundle(small_bundle(tmp_path / "bundle"), threads=1)
    some = texts(20)

    async def main(workers: int) -> arrivals.Load:
        async with Front(pipe, workers=workers) as front:
            return await arrivals.through(front, some, 100, 0.5)

    for workers in (1, 2):
        found = asyncio.run(main(workers))
        assert found.unanswered == 0
        assert len(found.latencies_ms) == len(arrivals.schedule(100, 0.5))
        assert min(found.latencies_ms) > 0


def test_a_closed_front_leaves_all_unanswered(tmp_path: Path) -> None:
    pipe = open_bundle(small_bundle(tmp_path / "bundle"), threads=1)

    async def main() -> arrivals.Load:
        async with Front(pipe, queue=1, patience_ms=0) as front:
            pipe._tokenizing.acquire()  # the engine is stuck
            try:
                return await arrivals.through(front, texts(5), 50, 0.3)
            finally:
                pipe._tokenizing.release()

    found = asyncio.run(main())
    assert found.unanswered == len(found.latencies_ms)


@pytest.mark.parametrize("rate", [5.0, 500.0])
def test_nothing_is_left_out(rate: float) -> None:
    found = Server(0.001).measured(rate, 3)
    assert len(found.latencies_ms) == len(arrivals.schedule(rate, 3))
