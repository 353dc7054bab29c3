"""One measurement in a process of its own: first answer, then one text at a time, then all at once."""

from __future__ import annotations

import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.bench.peers.base import Setting, Subject, Wanted, load_peer

FIRST = "headway-bench-first"
DONE = "headway-bench-done"
TRIED = 256
"""texts on which each setting is tried"""
WARM_UP = 20
"""texts before the clock starts"""
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
    "optimum-onnx",
)


class Job(msgspec.Struct, frozen=True):
    """What to measure."""

    peer: str
    model: str
    precision: str
    wanted: Wanted
    texts: list[str]
    one_by_one: int
    """texts that are answered one at a time"""
    vectors: str
    """the .npy file for answers that are vectors"""


class Measured(msgspec.Struct, frozen=True):
    """What came out of one process."""

    latencies: list[float]
    """seconds a text, one at a time"""
    throughput: float
    """texts a second, all at once"""
    setting: Setting
    """the way of running `many` that was fastest"""
    memory: int
    """bytes, the process's largest resident size"""
    answers: list[str]
    """labels; none where they are vectors"""
    versions: dict[str, str]


def main() -> None:
    """Read a Job from standard input; write FIRST at the first answer, then DONE and a Measured."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    os.environ["RAYON_NUM_THREADS"] = str(job.wanted.threads)  # of every subject's tokenizer
    subject = load_peer(job.peer).open_subject(Path(job.model), job.precision, job.wanted)
    subject.one(job.texts[0])
    print(FIRST, flush=True)
    print(DONE, msgspec.json.encode(measure(subject, job)).decode(), flush=True)


def measure(subject: Subject, job: Job) -> Measured:
    """Answers are produced by the very runs that are timed."""
    for text in job.texts[:WARM_UP]:
        subject.one(text)
    latencies = []
    for text in job.texts[: job.one_by_one]:
        begin = time.perf_counter()
        subject.one(text)
        latencies.append(time.perf_counter() - begin)
    setting = min(subject.SETTINGS, key=lambda s: _seconds(subject, job.texts[:TRIED], s))
    begin = time.perf_counter()
    answers = subject.many(job.texts, **setting)
    throughput = len(answers) / (time.perf_counter() - begin)
    memory = _peak_memory()
    return Measured(latencies, throughput, setting, memory, _labels(answers, job.vectors), versions())


def _labels(answers: Any, vectors: str) -> list[str]:
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


def _seconds(subject: Subject, texts: list[str], setting: Setting) -> float:
    begin = time.perf_counter()
    subject.many(texts, **setting)
    return time.perf_counter() - begin
