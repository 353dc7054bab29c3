"""Resident size over many mixed calls, which must stay flat: `python -m headway.bench.soak --help`.

Of a bundle that writes, generations in several threads. Of an encoder's, single requests to a `Front`, of which some are bad
and some are cancelled: every other one must have the answer that the pipeline gives to it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.bench.memory import Size, resident_mb
from headway.core.errors import InputError, UsageError
from headway.runtime import Pipeline, load
from headway.runtime.front import Front
from headway.runtime.pipeline import Input

KINDS: tuple[dict[str, Any], ...] = (
    {"num_beams": 1},
    {"num_beams": 4},
    {"num_beams": 4, "num_return_sequences": 4, "early_stopping": True},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"num_beams": 1, "do_sample": True, "top_p": 0.9},
    {"num_beams": 1, "do_sample": True, "num_return_sequences": 3},
    {"num_beams": 3, "do_sample": True, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
)
"""settings of a generation, beside its lengths"""
LONGEST = 48
"""tokens that are written"""
WORDS = 60
"""of a source, at most"""
TEXTS = 8
"""in a generation, at most"""
TENTHS = 10
FLAT = 0.02
"""share of the largest size in the first half, without its beginning, that the second half may add"""


def sizes(pipe: Any, words: Sequence[str], generations: int, threads: int, seed: int = 0) -> Iterator[Size]:
    """Generate in several threads, each time with other settings; yields before, and after every tenth."""
    yield Size(0, 0, resident_mb())
    texts = done = 0
    with ThreadPoolExecutor(threads) as pool:
        for tenth in range(1, TENTHS + 1):
            until = generations * tenth // TENTHS
            texts += sum(
                pool.map(lambda number: generate(pipe, words, f"{seed}/{number}"), range(done, until))
            )
            done = until
            gc.collect()
            yield Size(done, texts, resident_mb())


def generate(pipe: Any, words: Sequence[str], seed: str) -> int:
    """A call for some texts; or every third time a text piece by piece, mostly left in the middle. Says how many texts."""
    chance = random.Random(seed)
    new = chance.randint(1, LONGEST)
    settings = chance.choice(KINDS) | {"max_new_tokens": new, "min_new_tokens": chance.randint(0, new)}
    texts = [
        " ".join(chance.choices(words, k=chance.randint(1, WORDS))) for _ in range(chance.randint(1, TEXTS))
    ]
    if chance.randrange(3) == 0:
        pieces = pipe.write(texts[0], **settings)
        list(islice(pieces, chance.randint(0, new)))
        pieces.close()
        return 1
    return len(pipe(texts, **settings))


def growth(found: Sequence[Size]) -> float:
    """How much larger the second half's largest is than the first half's, as a share; the first tenth warms up."""
    whole = [size.resident_mb for size in found[1:]]
    half = len(whole) // 2
    return max(whole[half:]) / max(whole[1:half]) - 1


BAD = 0.01
"""share of requests that are bad"""
CANCELLED = 0.10
"""share of requests that are cancelled, at moments of any kind"""
AT_ONCE = 64
"""requests under way"""
KNOWN = 500
"""texts that are asked for, again and again"""


class Uncomparable:
    """As a setting: comparing or showing it raises."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("shown")


BAD_REQUESTS: tuple[tuple[Any, dict[str, Any]], ...] = (
    ("", {}),
    (" \n", {}),
    (5, {}),
    (None, {}),
    ("half \ud83d", {}),
    ("nul \0", {}),
    ({"other": "field"}, {}),
    ([["nested"]], {}),
    ("text", {"no_such_setting": 1}),
    ("text", {"no_such_setting": np.arange(3)}),
    ("text", {"no_such_setting": Uncomparable()}),
    ("text", {"no_such_setting": {1, 2}}),
    ("text", {"no_such_setting": [[0] * 100] * 200}),
)
"""inputs and settings, of which an InputError or a UsageError must come"""


class Requests:
    """Requests to a front, by chance, and what became of them."""

    def __init__(self, pipe: Pipeline, words: Sequence[str], seed: int = 0) -> None:
        self._pipe, self._chance = pipe, random.Random(seed)
        texts = [
            " ".join(self._chance.choices(words, k=self._chance.randint(1, WORDS))) for _ in range(KNOWN)
        ]
        self._known = [(text, pipe(text)) for text in texts]
        self.outcomes: Counter[str] = Counter()
        """requests by what became of them: right, cancelled, refused (the bad ones), and wrong"""

    async def run(self, requests: int) -> AsyncIterator[Size]:
        """Yields before, and after every tenth."""
        yield Size(0, 0, resident_mb())
        async with Front(self._pipe) as front:
            done = 0
            for tenth in range(1, TENTHS + 1):
                until = requests * tenth // TENTHS
                left = iter(range(done, until))
                await asyncio.gather(*(self._ask(front, left) for _ in range(AT_ONCE)))
                done = until
                gc.collect()
                yield Size(done, done, resident_mb())

    async def _ask(self, front: Front, left: Iterator[int]) -> None:
        for _ in left:
            given: Input
            settings: Mapping[str, Any]
            kind = self._chance.random()
            if kind < BAD:
                given, settings = self._chance.choice(BAD_REQUESTS)
                expected: Any = None
            else:
                (given, expected), settings = self._chance.choice(self._known), {}
            asked = asyncio.create_task(front(given, **settings))
            if BAD <= kind < BAD + CANCELLED:
                await asyncio.sleep(self._chance.choice((0, 0, 0.001, 0.005)) * self._chance.random())
                asked.cancel()
            self.outcomes[await self._outcome(asked, expected)] += 1

    async def _outcome(self, asked: asyncio.Task[Any], expected: Any) -> str:
        try:
            found = await asyncio.wait_for(asked, PATIENCE)
        except asyncio.CancelledError:
            return "cancelled"
        except TimeoutError:
            return "never answered"
        except (InputError, UsageError):
            return "refused" if expected is None else "wrong"
        except Exception as error:  # noqa: BLE001 (it is counted)
            return f"wrong: {type(error).__name__}"
        return "right" if expected is not None and found == expected else "wrong"


PATIENCE = 60
"""seconds until a request counts as never answered"""


def main() -> None:
    """Print a line of JSON before, after every tenth, and whether memory is flat and every answer right (else exit 4)."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.soak", description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path, help="a file whose words the sources are made of")
    parser.add_argument("--generations", type=int, default=10_000, help="of a bundle that writes")
    parser.add_argument("--requests", type=int, default=100_000, help="to a front of an encoder's bundle")
    parser.add_argument("--workers", type=int, default=3, help="threads that ask for generations")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, help="of the engine")
    given = parser.parse_args()
    words = given.texts.read_text("utf-8").split()
    pipe = load(given.bundle, precision=given.precision, threads=given.threads)
    asked = None if "decoder" in pipe.manifest.graphs else Requests(pipe, words)
    found = []

    def show(size: Size) -> None:
        found.append(size)
        print(msgspec.json.encode(size).decode(), flush=True)

    async def ask(asked: Requests) -> None:
        async for size in asked.run(given.requests):
            show(size)

    if asked is None:
        for size in sizes(pipe, words, given.generations, given.workers):
            show(size)
    else:
        asyncio.run(ask(asked))
    outcomes = dict[str, float]() if asked is None else dict[str, float](asked.outcomes)
    flat = growth(found) <= FLAT
    print(msgspec.json.encode({"growth": growth(found), "flat": flat} | outcomes).decode())
    sys.exit(0 if flat and set(outcomes) <= {"right", "cancelled", "refused"} else 4)


if __name__ == "__main__":
    main()
