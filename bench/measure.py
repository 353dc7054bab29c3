"""Measure subjects side by side: fresh processes, in turns, same threads, same texts, answers checked."""

from __future__ import annotations

import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.bench.peers.base import Setting, Wanted, load_peer
from headway.bench.worker import DONE, FIRST, Job, Measured, versions
from headway.core import hardware, threads
from headway.core.errors import GateError, MeasurementError
from headway.core.progress import Progress, silent

AGREEMENT = 0.95
"""share of a peer's answers that must equal the first subject's; a peer below that is refused. The bundle's own
variants were proven when they were exported; their share is reported"""
COSINE = 0.995
"""the same where answers are vectors: mean cosine with the first subject's"""
SOURCE = Path(__file__).parents[1]
"""the folder that is `headway`"""
START = (
    "import sys, types; sys.modules['headway'] = headway = types.ModuleType('headway'); "
    "headway.__path__ = [sys.argv.pop()]; from headway.bench.{module} import main; main()"
)
"""starts a worker in any interpreter, whether headway is installed there or not"""

Answers = list[str] | NDArray[np.float32]
"""labels, or vectors (N, D)"""


@dataclass(frozen=True)
class SubjectName:
    peer: str
    precision: str
    model: Path

    def __str__(self) -> str:
        return f"{self.peer} {self.precision}"


class Figure(msgspec.Struct, frozen=True):
    """Median over the rounds, with the smallest and the largest."""

    median: float
    least: float
    most: float


class Row(msgspec.Struct, frozen=True):
    """One subject's figures."""

    subject: str
    latency_ms: Figure
    """median of one text at a time"""
    latency_p95_ms: Figure
    latency_p99_ms: Figure
    throughput: Figure
    """texts a second"""
    cold_start_s: Figure
    """from process start to first answer"""
    memory_mb: Figure
    """largest resident size"""
    agreement: float
    """share of answers equal to the first subject's; of vectors the mean cosine with them"""
    least_cosine: float | None
    """of vectors: of the text whose answers differ most"""
    setting: Setting
    """of the fastest round"""
    versions: dict[str, str]
    """libraries of its interpreter that are not the record's"""


class Record(msgspec.Struct, frozen=True):
    """A whole comparison, with what is needed to understand it."""

    rows: list[Row]
    texts: int
    one_by_one: int
    rounds: int
    threads: int
    max_length: int
    """tokens that texts were cut to"""
    machine: dict[str, Any]
    versions: dict[str, str]
    bundle_seal: str


class _Agreement(NamedTuple):
    """With the first subject's answers."""

    figure: float
    """share of equal labels, or mean cosine"""
    least: float | None = None
    """least cosine"""


class _Run(NamedTuple):
    """One process's."""

    cold: float
    """seconds from its start to its first answer"""
    measured: Measured
    agreement: _Agreement


def compare(
    subjects: Sequence[SubjectName],
    texts: Sequence[str],
    wanted: Wanted,
    *,
    bundle_seal: str,
    one_by_one: int = 300,
    rounds: int = 3,
    progress: Progress = silent,
) -> Record:
    """Run every subject `rounds` times, taking turns, each time in a fresh process.

    Raises GateError if a peer's answers differ too much, MeasurementError if its process fails.
    """
    runs: dict[SubjectName, list[_Run]] = {s: [] for s in subjects}
    turns = [s for _ in range(rounds) for s in subjects]
    expected: Answers | None = None
    with tempfile.TemporaryDirectory() as folder:
        models = _prepared(subjects, wanted, Path(folder))
        vectors = Path(folder) / "vectors.npy"
        for subject in progress(turns, "measuring", len(turns)):
            model = str(models[subject])
            job = Job(subject.peer, model, subject.precision, wanted, list(texts), one_by_one, str(vectors))
            cold, measured, answers = _run(subject, job)
            expected = answers if expected is None else expected
            agreement = _agreement(answers, expected)
            if subject.peer != subjects[0].peer:
                _refuse_other_answers(subject, subjects[0], agreement)
            runs[subject].append(_Run(cold, measured, agreement))
    return Record(
        rows=[_row(subject, runs[subject]) for subject in subjects],
        texts=len(texts),
        one_by_one=min(one_by_one, len(texts)),
        rounds=rounds,
        threads=wanted.threads,
        max_length=wanted.max_length,
        machine=machine(),
        versions=versions(),
        bundle_seal=bundle_seal,
    )


def _prepared(subjects: Sequence[SubjectName], wanted: Wanted, folder: Path) -> dict[SubjectName, Path]:
    """What each subject opens."""
    models = {}
    for place, subject in enumerate(subjects):
        own = folder / str(place)
        own.mkdir()
        models[subject] = load_peer(subject.peer).prepared(subject.model, subject.precision, wanted, own)
    return models


def _run(subject: SubjectName, job: Job) -> tuple[float, Measured, Answers]:
    """Seconds from process start to first answer, the figures, and the answers."""
    begin = time.perf_counter()
    command = started(load_peer(subject.peer).interpreter(), "worker")
    with tempfile.TemporaryFile() as words, tempfile.TemporaryFile() as given:
        given.write(msgspec.json.encode(job))
        given.seek(0)
        with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=words) as worker:
            assert worker.stdout is not None
            cold = 0.0
            for line in worker.stdout:
                if line.startswith(FIRST.encode()):
                    cold = time.perf_counter() - begin
                elif line.startswith(DONE.encode()):
                    measured = msgspec.json.decode(line[len(DONE) :], type=Measured)
                    return cold, measured, measured.answers or np.load(job.vectors, allow_pickle=False)
        words.seek(0)
        last_words = words.read().decode(errors="replace").strip().splitlines()[-1:]
    raise MeasurementError(str(subject), " ".join(last_words))


def started(interpreter: str, module: str) -> list[str]:
    """The command for `main` of a module of headway.bench."""
    return [interpreter, "-c", START.format(module=module), str(SOURCE)]


def _agreement(answers: Answers, expected: Answers) -> _Agreement:
    if isinstance(answers, list) or isinstance(expected, list):
        return _Agreement(statistics.fmean(a == b for a, b in zip(answers, expected, strict=True)))
    if answers.shape != expected.shape:
        return _Agreement(0.0, 0.0)
    a, b = answers.astype(np.float64), expected.astype(np.float64)
    cosines = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return _Agreement(float(cosines.mean()), float(cosines.min()))


def _refuse_other_answers(subject: SubjectName, first: SubjectName, agreement: _Agreement) -> None:
    name, limit = ("agreement", AGREEMENT) if agreement.least is None else ("mean cosine", COSINE)
    if not agreement.figure >= limit:  # what is no number is refused too
        raise GateError("benchmark", str(subject), f"{name} with {first}", agreement.figure, limit)


def _row(subject: SubjectName, runs: Sequence[_Run]) -> Row:
    all_measured = [run.measured for run in runs]
    agreement = min(run.agreement for run in runs)
    here = versions()
    return Row(
        subject=str(subject),
        latency_ms=_latency(all_measured, 50),
        latency_p95_ms=_latency(all_measured, 95),
        latency_p99_ms=_latency(all_measured, 99),
        throughput=figure([m.throughput for m in all_measured]),
        cold_start_s=figure([run.cold for run in runs]),
        memory_mb=figure([m.memory / 1e6 for m in all_measured]),
        agreement=agreement.figure,
        least_cosine=agreement.least,
        setting=max(all_measured, key=lambda m: m.throughput).setting,
        versions={k: v for k, v in all_measured[0].versions.items() if here.get(k) != v},
    )


def _latency(all_measured: Sequence[Measured], percentile: int) -> Figure:
    """In milliseconds, of one text at a time."""
    return figure([1e3 * float(np.percentile(m.latencies, percentile)) for m in all_measured])


def figure(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))


def machine() -> dict[str, Any]:
    """What is measured on."""
    return {
        "processor": hardware.cpu_name(),
        "int8": hardware.has_fast_int8(hardware.cpu_flags()),
        "bf16": hardware.has_fast_bf16(hardware.cpu_flags()),
        "processors": threads.affinity_cpus(),
        "cgroup_processors": threads.cgroup_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
