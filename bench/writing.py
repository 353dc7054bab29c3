"""Writers side by side: fresh processes, in turns, same threads, same sources, everything that is written checked."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headway.bench import bandwidth, shapes
from headway.bench.estimates import Figure, figure
from headway.bench.machine import machine
from headway.bench.measure import started
from headway.bench.worker import DONE, versions
from headway.bench.writers.base import FAMILY, load_writer
from headway.bench.writing_worker import Answered, Job, Question, Timed
from headway.core import files, siblings
from headway.core.errors import MeasurementError, UsageError
from headway.core.progress import Progress, T, silent

OWN = "headway"
"""the writer whose failure ends the measurement; another one's is told in its place in the table"""
REFERENCE = "generate"


class Row(msgspec.Struct, frozen=True):
    """One subject's figures for one question, over all rounds."""

    subject: str
    question: str
    ms: Figure
    """median of the requests"""
    p99_ms: Figure
    between: float | None
    """share of the time between runs of the engine"""
    same: float
    way: str
    """of running it, which was fastest"""


class Record(msgspec.Struct, frozen=True):
    """A whole comparison, with what is needed to understand it."""

    shape: str
    rows: list[Row]
    problems: dict[str, str]
    """by subject: why there are no figures for it"""
    rounds: int
    threads: int
    bytes_per_second: Figure
    """that this machine reads from memory with so many threads"""
    step_weights: int
    """numbers that a step of the decoder reads"""
    machine: dict[str, Any]
    versions: dict[str, str]


class Name(NamedTuple):
    writer: str
    precision: str

    def __str__(self) -> str:
        return f"{self.writer} {self.precision}"


def names(against: str | None) -> list[Name]:
    """Subjects as they are asked for, "generate,ctranslate2/int8"; of all writers if None. Raises UsageError."""
    found = []
    for asked in siblings.names(FAMILY) if against is None else against.split(","):
        writer, _, precision = asked.partition("/")
        known = load_writer(writer).PRECISIONS
        if precision and precision not in known:
            raise UsageError("--against", f"{writer} has no '{precision}'; it has {', '.join(known)}")
        found += [Name(writer, p) for p in ([precision] if precision else known)]
    return sorted(found, key=lambda name: name.writer != OWN)


def compare(
    shape: str,
    questions: Sequence[Question],
    subjects: Sequence[Name],
    work: Path,
    *,
    threads: int,
    rounds: int,
    progress: Progress = silent,
) -> Record:
    """Ask every subject everything in every round, taking turns, each time in a fresh process.

    `work`: folder for the shape's checkpoint and what is made of it; what lies there is used again.
    Raises MeasurementError if headway or `generate()` in fp32 fails.
    """
    if not (work / "checkpoint").is_dir():
        work.mkdir(parents=True, exist_ok=True)
        with files.whole_folder(work / "checkpoint") as folder:
            shapes.write(shape, folder)
    job = Job("answer", REFERENCE, "fp32", str(work), threads, list(questions))
    said = _in_fresh_process(job, Answered)
    problems: dict[str, str] = {}
    for name in progress(subjects, "preparing", len(subjects)):
        _try(msgspec.structs.replace(job, action="prepare", **name._asdict()), type(None), problems)
    runs: dict[Name, list[list[Timed]]] = {name: [] for name in subjects}
    turns, speeds = [name for _ in range(rounds) for name in subjects], []
    for place, name in enumerate(progress(turns, "measuring", len(turns))):
        if place % len(subjects) == 0:
            speeds.append(bandwidth.reading(threads))
        if str(name) not in problems:
            measuring = {"action": "measure", "expected": said.expected} | name._asdict()
            found = _try(msgspec.structs.replace(job, **measuring), list[Timed], problems)
            runs[name] += [] if found is None else [found]
    return Record(
        shape=shape,
        rows=[
            _row(str(name), question.name, [run[place] for run in every])
            for place, question in enumerate(questions)
            for name, every in runs.items()
            if str(name) not in problems
        ],
        problems=problems,
        rounds=rounds,
        threads=threads,
        bytes_per_second=figure(speeds),
        step_weights=said.step_weights,
        machine=machine(),
        versions=versions(),
    )


def _row(subject: str, question: str, every: Sequence[Timed]) -> Row:
    engines = [run.engine_ms for run in every if run.engine_ms is not None]
    return Row(
        subject=subject,
        question=question,
        ms=figure([statistics.median(run.ms) for run in every]),
        p99_ms=figure([float(np.percentile(run.ms, 99)) for run in every]),
        between=1 - sum(engines) / sum(sum(run.ms) for run in every) if engines else None,
        same=min(run.same for run in every),
        way=min(every, key=lambda run: statistics.median(run.ms)).way,
    )


def _try(job: Job, kind: Any, problems: dict[str, str]) -> Any:
    """What a process says, or None; a peer's failure is noted."""
    try:
        return _in_fresh_process(job, kind)
    except MeasurementError as error:
        if job.writer == OWN:
            raise
        verb = "prepared" if job.action == "prepare" else "measured"
        problems[f"{job.writer} {job.precision}"] = f"cannot be {verb}: {error.last_words}"
        return None


def _in_fresh_process(job: Job, kind: Any) -> Any:
    """What it says, of a kind. Raises MeasurementError with its last words."""
    command = started(load_writer(job.writer).interpreter(), "writing_worker")
    ran = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=False)
    said = [line for line in ran.stdout.splitlines() if line.startswith(DONE.encode())]
    if ran.returncode != 0 or not said:
        words = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise MeasurementError(f"{job.writer} {job.precision}", " ".join(words))
    return msgspec.json.decode(said[-1][len(DONE) :], type=kind)


def asked(
    name: str,
    about: str | None,
    kinds: Collection[str],
    make: Callable[[str], list[Question]],
    against: str | None = None,
) -> Record:
    """Do what the command line of `python -m headway.bench.NAME` asks for, and write --output.

    Args:
        kinds: shapes that it measures.
        make: from a shape's name to its questions.
        against: subjects where none are asked for; all if None.
    """
    parser = argparse.ArgumentParser(prog=f"python -m headway.bench.{name}", description=about)
    parser.add_argument("--shape", choices=list(kinds), default=next(iter(kinds)))
    parser.add_argument(
        "--work", type=Path, required=True, help="folder, kept between runs; empty it for new graphs"
    )
    parser.add_argument("--output", type=Path, required=True, help="file for the figures, in JSON")
    parser.add_argument(
        "--against", default=against, help=f"subjects, as generate/fp32,headway; default: {against or 'all'}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    record = compare(
        given.shape,
        make(given.shape),
        names(given.against),
        given.work / given.shape,
        threads=given.threads,
        rounds=given.rounds,
        progress=told,
    )
    with files.whole_file(given.output) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(record), indent=1).decode() + "\n")
    return record


def told(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Tells on standard error which is next."""
    for place, item in enumerate(items, start=1):
        print(f"{label} {place}/{total}: {item}", file=sys.stderr, flush=True)
        yield item
