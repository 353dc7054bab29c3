"""Beam search beside peers, on real shapes with random weights: `python -m headway.bench.beams --help`.

Every subject writes equally many tokens for the same sources. What it writes is compared with `generate()` in fp32
before its time counts: an fp32 subject with the same search that writes other tokens is refused, of others the share of
equal texts is told.
"""

from __future__ import annotations

import numpy as np

from headway.bench import shapes
from headway.bench.writers.base import Wish
from headway.bench.writing import Record, Row, asked
from headway.bench.writing_report import spread, table
from headway.bench.writing_worker import Question

SHAPES = ("t5-small", "bart-base")
SOURCE = 64
"""tokens of a source"""
WISH = Wish(beams=4, returned=1, new=64, least=64)
BATCHES = {1: 9, 8: 5}
"""sources in a request -> how often it is timed"""
WIDTHS = {"fp32": 4, "float32": 4, "bf16": 2, "int8": 1, "int8-weights": 1}
"""bytes of a weight"""


def main() -> None:
    """Prepare and measure everyone, write --output; a table goes to standard output."""
    print(report(asked("beams", main.__doc__, SHAPES, questions)))


def questions(shape: str) -> list[Question]:
    """A request for each number of sources; always the same."""
    words = shapes.SHAPES[shape][1]["vocab_size"]
    sources = np.random.default_rng(0).integers(shapes.SPECIAL, words, (max(BATCHES), SOURCE)).tolist()
    return [
        Question(f"{size} source{'s' * (size > 1)}", WISH, [sources[:size]], repeats)
        for size, repeats in BATCHES.items()
    ]


def report(record: Record) -> str:
    """The table, with tokens a second and the share of memory's speed that reading the weights takes."""
    sizes = {question.name: len(question.requests[0]) for question in questions(record.shape)}

    def tokens(row: Row) -> str:
        return f"{1e3 * sizes[row.question] * WISH.new / row.ms.median:.0f}"

    def read(row: Row) -> str:
        width = WIDTHS[row.subject.split()[1]]
        speed = width * record.step_weights * 1e3 * WISH.new / row.ms.median
        return f"{speed / record.bytes_per_second.median:.0%}"

    columns = {"ms": lambda row: spread(row.ms), "tokens/s": tokens, "of memory's speed": read}
    return table(record, columns)


if __name__ == "__main__":
    main()
