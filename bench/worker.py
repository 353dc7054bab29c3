"""One measurement in a process of its own: first answer, then one at a time, then all at once, then under load."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.bench import arrivals, energy
from headway.bench.peers.base import Setting, Subject, Wanted, load_peer
from headway.bench.record import Round

FIRST = "headway-bench-first"
DONE = "headway-bench-done"
TRIED = 256
"""inputs on which each setting is tried"""
WINDOW = 10
"""inputs in each part of the warm-up"""
STEADY = 0.05
"""share by which the medians of two parts of the warm-up may differ once it is warm"""
WARM_UP = 3.0
"""seconds of warm-up, at most"""
LIBRARIES = (
    "headway",
    "numpy",
    "tokenizers",
    "onnxruntime",
    "openvino",
    "torch",
    "transformers",
    "sentence-transformers",
    "ctranslate2",
    "fastembed",
    "optimum-onnx",
)


class Job(msgspec.Struct, frozen=True):
    """What to measure."""

    peer: str
    model: str
    precision: str
    wanted: Wanted
    inputs: list[Any]
    """as `answers.given` has them"""
    one_by_one: int
    """inputs that are answered one at a time"""
    rates: list[float]
    """requests a second under which latency is measured"""
    seconds: float
    """of each rate"""
    vectors: str
    """the .npy file for answers that are vectors"""


class Measured(msgspec.Struct, frozen=True):
    """What came out of one process."""

    round: Round
    """its cold start is for the one to fill in who started the process"""
    answers: list[Any]
    """none where they are vectors"""
    versions: dict[str, str]


def main() -> None:
    """Read a Job from standard input; write FIRST at the first answer, then DONE and a Measured."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    os.environ["RAYON_NUM_THREADS"] = str(job.wanted.threads)  # of every subject's tokenizer
    subject = load_peer(job.peer).open_subject(Path(job.model), job.precision, job.wanted)
    inputs = [tuple(given) if isinstance(given, list) else given for given in job.inputs]
    subject.one(inputs[0])
    print(FIRST, flush=True)
    print(DONE, msgspec.json.encode(measure(subject, job, inputs)).decode(), flush=True)


def measure(subject: Subject, job: Job, inputs: Sequence[Any]) -> Measured:
    """Answers are produced by the very runs that are timed."""
    steady = warm_up(subject, inputs)
    latencies = []
    for given in inputs[: job.one_by_one]:
        begin = time.perf_counter()
        subject.one(given)
        latencies.append(time.perf_counter() - begin)
    setting = min(subject.SETTINGS, key=lambda s: _seconds(subject, inputs[:TRIED], s))
    before, begin = energy.joules(), time.perf_counter()
    answers = subject.many(inputs, **setting)
    seconds, after = time.perf_counter() - begin, energy.joules()
    memory = _peak_memory()  # of these two ways; what waits under load comes on top
    stages, waste = _stages(subject, inputs, job.one_by_one)
    done = Round(
        cold_start_s=0.0,
        latencies_ms=(1e3 * np.array(latencies)).round(4).tolist(),
        throughput=len(inputs) / seconds,
        setting=setting,
        memory_mb=memory / 1e6,
        steady=steady,
        stages_ms=stages,
        waste=waste,
        joules=None if before is None or after is None else (after - before) / len(inputs),
        load=[arrivals.load([_server(subject, setting)], inputs, rate, job.seconds) for rate in job.rates],
    )
    return Measured(done, _plain(answers, job.vectors), versions())


def warm_up(subject: Subject, inputs: Sequence[Any]) -> bool:
    """Answer one by one until the times of two parts are alike, the same inputs in both; False if they never were."""
    begin, before = time.perf_counter(), float("inf")
    while time.perf_counter() - begin < WARM_UP:
        median = statistics.median(_seconds_of_one(subject, given) for given in inputs[:WINDOW])
        if abs(median - before) <= STEADY * before:
            return True
        before = median
    return False


def _seconds_of_one(subject: Subject, given: Any) -> float:
    begin = time.perf_counter()
    subject.one(given)
    return time.perf_counter() - begin


def _server(subject: Subject, setting: Setting) -> arrivals.Answer:
    """As a server would ask the subject: what waits goes together, one that waits alone goes alone."""
    return lambda waiting: subject.one(waiting[0]) if len(waiting) == 1 else subject.many(waiting, **setting)


def _stages(
    subject: Subject, inputs: Sequence[Any], one_by_one: int
) -> tuple[dict[str, float], float | None]:
    """Mean milliseconds of each stage of one at a time, and share of padding of all at once, where it can tell."""
    look = getattr(subject, "stages", None)
    return ({}, None) if look is None else look(inputs[:one_by_one], inputs)


def _plain(answers: Any, vectors: str) -> list[Any]:
    """The answers; or none where they are vectors (N, D), which go to a file."""
    if not isinstance(answers, np.ndarray):
        return list(answers)
    np.save(vectors, answers.astype(np.float32, copy=False), allow_pickle=False)
    return []


def versions() -> dict[str, str]:
    """Of the libraries that take part, as far as this interpreter has them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _peak_memory() -> int:
    """Largest resident size in bytes. Linux's ru_maxrss would count the parent process in; VmHWM does not."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _seconds(subject: Subject, inputs: Sequence[Any], setting: Setting) -> float:
    begin = time.perf_counter()
    subject.many(inputs, **setting)
    return time.perf_counter() - begin
