"""One way to run a bundle, in a process of its own, under load through a front."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from headway.bench import arrivals
from headway.bench.peers.base import Setting
from headway.bench.record import Load
from headway.bench.worker import DONE, warm_up
from headway.runtime import load
from headway.runtime.front import Front


class Way(msgspec.Struct, frozen=True):
    """How to run a bundle, as `runtime.tuned.Plan` has it."""

    precision: str
    backend: str
    threads: int
    workers: int
    batch_tokens: int
    front_tokens: int
    buckets: int = 0


class Job(msgspec.Struct, frozen=True):
    """Loads to measure, one after the other."""

    bundle: str
    way: Way
    inputs: list[Any]
    rates: list[float]
    seconds: float
    """of each"""


def main() -> None:
    """Read a Job from standard input; write DONE and a list of `Load`."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    inputs = [tuple(given) if isinstance(given, list) else given for given in job.inputs]
    way = job.way
    pipe = load(
        Path(job.bundle), precision=way.precision, backend=way.backend, threads=way.threads,
        batch_tokens=way.batch_tokens, buckets=way.buckets or None,
    )  # fmt: skip
    warm_up(Asked(pipe), inputs)
    pipe(inputs[:64])
    print(DONE, msgspec.json.encode(asyncio.run(loads(pipe, job, inputs))).decode(), flush=True)


async def loads(pipe: Any, job: Job, inputs: list[Any]) -> list[Load]:
    """Of each rate, in turn."""
    settings: dict[str, Any] = {"batch_tokens": job.way.front_tokens, "workers": job.way.workers}
    found = []
    for rate in job.rates:
        async with Front(pipe, queue=1 << 20, **settings) as front:
            found.append(await arrivals.through(front, inputs, rate, job.seconds))
            await front.close(drain=False)
    return found


class Asked:
    """A pipeline as a `Subject`, to warm it up."""

    SETTINGS: Sequence[Setting] = ({},)

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def one(self, given: Any) -> Any:
        return self._pipe([given])

    def many(self, inputs: Any, **setting: Any) -> Any:
        return self._pipe(inputs)
