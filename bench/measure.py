"""Measure subjects side by side: fresh processes, in turns, same threads, same texts, answers checked."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.bench.peers.base import Setting
from headway.bench.worker import DONE, FIRST, Job, Measured
from headway.core import hardware, threads
from headway.core.errors import GateError, MeasurementError
from headway.core.progress import Progress, silent

AGREEMENT = 0.95
"""share of a peer's answers that must equal the first subject's; a peer below that is refused. The bundle's own
variants were proven when they were exported; their share is reported"""
LIBRARIES = ("headway", "numpy", "tokenizers", "onnxruntime", "torch", "transformers")


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
    throughput: Figure
    """texts a second"""
    cold_start_s: Figure
    """from process start to first answer"""
    memory_mb: Figure
    """largest resident size"""
    agreement: float
    """share of answers equal to the first subject's"""
    setting: Setting


class Record(msgspec.Struct, frozen=True):
    """A whole comparison, with what is needed to understand it."""

    rows: list[Row]
    texts: int
    one_by_one: int
    rounds: int
    threads: int
    machine: dict[str, Any]
    versions: dict[str, str]
    bundle_seal: str


def compare(
    subjects: Sequence[SubjectName],
    texts: Sequence[str],
    *,
    threads: int,
    max_length: int,
    bundle_seal: str,
    one_by_one: int = 300,
    rounds: int = 3,
    progress: Progress = silent,
) -> Record:
    """Run every subject `rounds` times, taking turns, each time in a fresh process.

    Raises GateError if a peer's answers differ too much, MeasurementError if its process fails.
    """
    runs: dict[SubjectName, list[tuple[float, Measured]]] = {s: [] for s in subjects}
    turns = [s for _ in range(rounds) for s in subjects]
    expected: list[str] = []
    for subject in progress(turns, "measuring", len(turns)):
        job = Job(
            subject.peer, str(subject.model), subject.precision, threads, max_length, list(texts), one_by_one
        )
        cold, measured = _run(subject, job)
        expected = expected or measured.answers
        agreement = _agreement(measured, expected)
        if subject.peer != subjects[0].peer and agreement < AGREEMENT:
            raise GateError(
                "benchmark", str(subject), "agreement with " + str(subjects[0]), agreement, AGREEMENT
            )
        runs[subject].append((cold, measured))
    return Record(
        rows=[_row(subject, runs[subject], expected) for subject in subjects],
        texts=len(texts),
        one_by_one=min(one_by_one, len(texts)),
        rounds=rounds,
        threads=threads,
        machine=_machine(),
        versions=_versions(),
        bundle_seal=bundle_seal,
    )


def _run(subject: SubjectName, job: Job) -> tuple[float, Measured]:
    """Seconds from process start to first answer, and the figures."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "headway.bench.worker"]
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
                    return cold, msgspec.json.decode(line[len(DONE) :], type=Measured)
        words.seek(0)
        last_words = words.read().decode(errors="replace").strip().splitlines()[-1:]
    raise MeasurementError(str(subject), " ".join(last_words))


def _agreement(measured: Measured, expected: Sequence[str]) -> float:
    return statistics.fmean(a == b for a, b in zip(measured.answers, expected, strict=True))


def _row(subject: SubjectName, runs: Sequence[tuple[float, Measured]], expected: Sequence[str]) -> Row:
    all_measured = [m for _, m in runs]
    return Row(
        subject=str(subject),
        latency_ms=_figure([1e3 * statistics.median(m.latencies) for m in all_measured]),
        latency_p95_ms=_figure([1e3 * float(np.percentile(m.latencies, 95)) for m in all_measured]),
        throughput=_figure([m.throughput for m in all_measured]),
        cold_start_s=_figure([cold for cold, _ in runs]),
        memory_mb=_figure([m.memory / 1e6 for m in all_measured]),
        agreement=min(_agreement(m, expected) for m in all_measured),
        setting=max(all_measured, key=lambda m: m.throughput).setting,
    )


def _figure(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))


def _machine() -> dict[str, Any]:
    return {
        "processor": hardware.cpu_name(),
        "int8": hardware.has_fast_int8(hardware.cpu_flags()),
        "bf16": hardware.has_fast_bf16(hardware.cpu_flags()),
        "processors": threads.affinity_cpus(),
        "cgroup_processors": threads.cgroup_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
