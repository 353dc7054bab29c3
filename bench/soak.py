"""Resident size over many mixed generations, which must stay flat: `python -m headway.bench.soak --help`."""

from __future__ import annotations

import argparse
import gc
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from headway.bench.memory import Size, resident_mb
from headway.runtime import load

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


def main() -> None:
    """Print a line of JSON before, after every tenth of the generations, and whether memory is flat (else exit 4)."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.soak", description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path, help="a file whose words the sources are made of")
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=3, help="threads that ask")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, help="of the engine")
    given = parser.parse_args()
    words = given.texts.read_text("utf-8").split()
    pipe = load(given.bundle, precision=given.precision, threads=given.threads)
    found = []
    for size in sizes(pipe, words, given.generations, given.workers):
        found.append(size)
        print(msgspec.json.encode(size).decode(), flush=True)
    flat = growth(found) <= FLAT
    print(msgspec.json.encode({"growth": growth(found), "flat": flat}).decode())
    sys.exit(0 if flat else 4)


if __name__ == "__main__":
    main()
