"""Resident size over many mixed requests, which must become flat: `python -m headway.bench.memory --help`."""

from __future__ import annotations

import argparse
import gc
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from headway.runtime import Pipeline, load

LARGEST = 32
"""texts in a request, at most; every other request is one text alone"""


class Size(msgspec.Struct, frozen=True):
    """The process after so many requests."""

    requests: int
    texts: int
    resident_mb: float
    """MB of 1,000,000 bytes that are in memory now"""


def sizes(pipe: Pipeline, texts: Sequence[str], requests: int, every: int, seed: int = 0) -> Iterator[Size]:
    """Ask for random texts, alone and in lists of random sizes; yields before, and after every so many requests."""
    chance, answered = random.Random(seed), 0
    yield Size(0, 0, resident_mb())
    for number in range(1, requests + 1):
        some = chance.choices(texts, k=chance.choice((1, chance.randint(2, LARGEST))))
        answered += len(pipe(some))
        if number % every == 0 or number == requests:
            gc.collect()
            yield Size(number, answered, resident_mb())


def resident_mb() -> float:
    """Of this process, now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print a line of JSON after every so many requests."""
    options = argparse.ArgumentParser(prog="python -m headway.bench.memory", description=main.__doc__)
    options.add_argument("bundle", type=Path)
    options.add_argument("texts", type=Path, help="a text a line")
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--every", type=int, default=10_000)
    options.add_argument("--precision", default="auto")
    options.add_argument("--threads", type=int)
    given = options.parse_args()
    lines = [line for line in given.texts.read_text("utf-8").splitlines() if line.strip()]
    pipe = load(given.bundle, precision=given.precision, threads=given.threads)
    for size in sizes(pipe, lines, given.requests, given.every):
        print(msgspec.json.encode(size).decode(), flush=True)


if __name__ == "__main__":
    main()
