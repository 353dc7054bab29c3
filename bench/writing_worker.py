"""One writer in a process of its own: prepare what it opens, answer as the reference, or measure, with all checked."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from headway.bench.worker import DONE
from headway.bench.writers.base import Found, Ids, Subject, Wish, Write, load_writer
from headway.core import files
from headway.core.errors import MeasurementError

TIE = 1e-4
"""hypotheses in the same place with scores that differ by less may change places: `generate()` in fp32 is no more exact"""


class Question(msgspec.Struct, frozen=True):
    """What is asked and timed."""

    name: str
    wish: Wish
    requests: list[Ids]
    repeats: int
    """how often each request is timed"""


class Job(msgspec.Struct, frozen=True):
    """For one process."""

    action: Literal["prepare", "answer", "measure"]
    writer: str
    precision: str
    work: str
    threads: int
    questions: list[Question] = []
    expected: list[list[Found]] = []
    """by question and request: what `generate()` in fp32 makes of it"""


class Answered(msgspec.Struct, frozen=True):
    """What `generate()` in fp32 says."""

    expected: list[list[Found]]
    step_weights: int
    """numbers that a step of the decoder reads"""


class Timed(msgspec.Struct, frozen=True):
    """One question in one process."""

    ms: list[float]
    """of each request that was timed"""
    engine_ms: float | None
    """of all of them together, within the engine"""
    same: float
    """share of hypotheses that are `generate()`'s"""
    way: str


def main() -> None:
    """What a fresh process does: a job from standard input, what came of it to standard output."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    said = {"prepare": _prepare, "answer": _answer, "measure": _measure}[job.action](job)
    print(DONE, msgspec.json.encode(said).decode(), flush=True)


def _places(job: Job) -> tuple[Path, Path]:
    """The checkpoint, and what was prepared."""
    work = Path(job.work)
    return work / "checkpoint", work / job.writer / job.precision


def _prepare(job: Job) -> None:
    checkpoint, folder = _places(job)
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with files.whole_folder(folder) as made:
            load_writer(job.writer).prepared(checkpoint, job.precision, made)


def _answer(job: Job) -> Answered:
    from headway.bench.writers import generate

    checkpoint, folder = _places(job)
    subject = generate.open_subject(checkpoint, job.precision, folder, job.threads)
    expected = []
    for question in job.questions:
        write = next(iter(subject.ways(question.wish, scored=True).values()))
        expected.append([write(request) for request in question.requests])
    return Answered(expected, generate.step_weights(generate.opened(checkpoint)))


def _measure(job: Job) -> list[Timed]:
    checkpoint, folder = _places(job)
    writer = load_writer(job.writer)
    subject = writer.open_subject(checkpoint, job.precision, folder, job.threads)
    exact = job.precision in writer.EXACT
    asked = zip(job.questions, job.expected, strict=True)
    return [timed(subject, question, expected, exact) for question, expected in asked]


def timed(subject: Subject, question: Question, expected: list[Found], exact: bool) -> Timed:
    """The fastest way of a subject, after every way's hypotheses were checked. Raises MeasurementError."""
    same, scored = {}, subject.ways(question.wish, scored=True)
    for way, write in scored.items():
        found = [write(request) for request in question.requests]
        if wrong := problem(question.wish, found, expected, exact):
            raise MeasurementError(f"{question.name} {way}".strip(), wrong)
        same[way] = _same(found, expected)
    ways = subject.ways(question.wish, scored=False)
    tried = max(2, len(question.requests) * question.repeats // 10)
    least = {way: min(_ms(write, islice(cycle(question.requests), tried))) for way, write in ways.items()}
    way = min(least, key=least.__getitem__)
    before = subject.engine_seconds()
    ms = _ms(ways[way], question.requests * question.repeats)
    after = subject.engine_seconds()
    engine = None if before is None or after is None else 1e3 * (after - before)
    if engine == 0:
        raise MeasurementError(question.name, "no run of the engine was seen")
    return Timed(ms, engine, same[way], way)


def _ms(write: Write, requests: Iterable[Ids]) -> list[float]:
    """Of each."""
    found = []
    for request in requests:
        begin = time.perf_counter()
        write(request)
        found.append(1e3 * (time.perf_counter() - begin))
    return found


def problem(wish: Wish, found: Sequence[Found], expected: Sequence[Found], exact: bool) -> str | None:
    """Why what was written is not what was asked for; None if it is."""
    for given, wanted in zip(_flat(found), _flat(expected), strict=True):
        if len(given) != wish.returned:
            return f"gave {len(given)} hypotheses, not {wish.returned}"
        for own, other in zip(given, wanted, strict=True):
            if not max(1, wish.least) <= len(own.tokens) <= wish.new:
                return f"wrote {len(own.tokens)} tokens, not {max(1, wish.least)} to {wish.new}"
            if not math.isfinite(own.score):
                return f"gave a score of {own.score}"
            if exact and own.tokens != other.tokens and not abs(own.score - other.score) <= TIE:
                return f"wrote other tokens than generate(): {own.tokens[:8]}…, not {other.tokens[:8]}…"
    return None


def _same(found: Sequence[Found], expected: Sequence[Found]) -> float:
    """Share of hypotheses with the tokens that stand in their place in `generate()`'s."""
    pairs = zip(_flat(found), _flat(expected), strict=True)
    return statistics.fmean(
        a.tokens == b.tokens for own, other in pairs for a, b in zip(own, other, strict=True)
    )


def _flat(every: Sequence[Found]) -> list[Any]:
    """By source."""
    return [source for request in every for source in request]
