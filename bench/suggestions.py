"""Next words beside peers, on a real shape with random weights: `python -m headway.bench.suggestions --help`.

One prefix at a time, to the best next tokens, and to the best continuations by beam search. What is given is compared
with `generate()` in fp32 before its time counts, as in `headway.bench.beams`.
"""

from __future__ import annotations

import numpy as np

from headway.bench import shapes
from headway.bench.writers.base import Wish
from headway.bench.writing import Record, asked
from headway.bench.writing_report import spread, table
from headway.bench.writing_worker import Question

SHAPES = ("gpt2-small",)
PREFIX = 20
"""tokens"""
REQUESTS = 200
CANDIDATES = 5
AGAINST = "headway,ctranslate2,generate/fp32,optimum-onnx"
"""all but bf16, which is no faster where the processor has no such products"""
LENGTHS = {"next tokens": 1, "continuations": 3}
"""what is asked for -> tokens of a candidate, at most"""


def main() -> None:
    """Prepare and measure everyone, write --output; a table goes to standard output."""
    print(report(asked("suggestions", main.__doc__, SHAPES, questions, AGAINST)))


def questions(shape: str) -> list[Question]:
    """The same prefixes for both; always the same."""
    words = shapes.SHAPES[shape][1]["vocab_size"]
    prefixes = np.random.default_rng(0).integers(shapes.SPECIAL, words, (REQUESTS, 1, PREFIX)).tolist()
    return [
        Question(name, Wish(beams=CANDIDATES, returned=CANDIDATES, new=new), prefixes, repeats=1)
        for name, new in LENGTHS.items()
    ]


def report(record: Record) -> str:
    """The table."""
    return table(
        record, {"median, ms": lambda row: spread(row.ms), "p99, ms": lambda row: spread(row.p99_ms)}
    )


if __name__ == "__main__":
    main()
