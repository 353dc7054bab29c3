"""Open loop: requests arrive at a rate, however slow the answers are, so that no delay hides another one.

The times at which requests should be sent are fixed beforehand (a Poisson process, the same for every subject), and
latency counts from them, not from when somebody was ready to send. A client that waits for an answer before it sends
the next request leaves out just the requests that would have waited ("coordinated omission", Tene).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.bench.record import Load
from headway.core.errors import OverloadedError

SEED = 1
PATIENCE = 0.5
"""how much longer than the arrivals a run may take, as a share of their time, before the rest counts as unanswered"""
TOGETHER = 32
"""requests that are answered together, at most, where so many wait"""

Answer = Callable[[list[Any]], object]
"""answers inputs that wait, together"""


def schedule(rate: float, seconds: float) -> NDArray[np.float64]:
    """Times in seconds (N) of a Poisson process of so many arrivals a second; at least one."""
    random = np.random.default_rng(SEED)
    gaps = random.exponential(1 / rate, int(rate * seconds * 2) + 20)
    times = np.cumsum(gaps)
    return times[: max(1, int(np.searchsorted(times, seconds)))]


def load(
    servers: Sequence[Answer],
    inputs: Sequence[Any],
    rate: float,
    seconds: float,
    *,
    together: int = TOGETHER,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Load:
    """Let requests arrive for so many seconds, and each free server answer what waits then.

    Inputs are taken in turn, again from the first when they are used up. As arrivals are known, nobody has to send
    them: a server that is free sleeps until the next. What is not answered when time is over is counted, with the
    latency that it has reached.
    """
    times = schedule(rate, seconds)
    last = times[-1] + PATIENCE * seconds
    latencies = np.full(len(times), np.nan)
    batches, taken, lock = [], 0, Lock()
    begin = clock()

    def take() -> tuple[int, int] | None:
        """Places of the requests to answer next; none when there are no more or time is over."""
        nonlocal taken
        while True:
            with lock:
                now = clock() - begin
                if taken == len(times) or now > last:
                    return None
                wait = times[taken] - now
                if wait <= 0:
                    first = taken
                    taken = min(int(np.searchsorted(times, now, side="right")), first + together)
                    batches.append(taken - first)
                    return first, taken
            sleep(wait)

    def serve(answer: Answer) -> None:
        while (places := take()) is not None:
            first, end = places
            answer([inputs[i % len(inputs)] for i in range(first, end)])
            latencies[first:end] = clock() - begin - times[first:end]

    threads = [Thread(target=serve, args=(answer,)) for answer in servers[1:]]
    for thread in threads:
        thread.start()
    serve(servers[0])
    for thread in threads:
        thread.join()
    return _counted(rate, times, latencies, clock() - begin, float(np.mean(batches)))


async def through(front: Any, inputs: Sequence[Any], rate: float, seconds: float) -> Load:
    """The same through `headway.runtime.front.Front`, as a server would send them; refused requests are unanswered."""
    times = schedule(rate, seconds)
    latencies = np.full(len(times), np.nan)
    begin = time.perf_counter()

    async def ask(i: int) -> None:
        await asyncio.sleep(begin + times[i] - time.perf_counter())
        with suppress(OverloadedError):
            await front(inputs[i % len(inputs)])
            latencies[i] = time.perf_counter() - begin - times[i]

    asking = [asyncio.create_task(ask(i)) for i in range(len(times))]
    _, late = await asyncio.wait(asking, timeout=times[-1] + PATIENCE * seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return _counted(rate, times, latencies, time.perf_counter() - begin)


def _counted(
    rate: float,
    times: NDArray[np.float64],
    latencies: NDArray[np.float64],
    spent: float,
    batch: float | None = None,
) -> Load:
    """With the latencies (N) that unanswered requests, which are not numbers yet, have reached."""
    unanswered = np.isnan(latencies)
    reached = np.where(unanswered, spent - times, latencies)
    return Load(rate, (1e3 * reached).round(4).tolist(), int(unanswered.sum()), spent, batch)
