"""One measurement in a process of its own: first answer, then one text at a time, then all at once."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import msgspec

from headway.bench.peers.base import Setting, Subject, load_peer

FIRST = "headway-bench-first"
DONE = "headway-bench-done"
TRIED = 256
"""texts on which each setting is tried"""
WARM_UP = 20
"""texts before the clock starts"""


class Job(msgspec.Struct, frozen=True):
    """What to measure."""

    peer: str
    model: str
    precision: str
    threads: int
    max_length: int
    texts: list[str]
    one_by_one: int
    """texts that are answered one at a time"""


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


def main() -> None:
    """Read a Job from standard input; write FIRST at the first answer, then DONE and a Measured."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    subject = load_peer(job.peer).open_subject(Path(job.model), job.precision, job.threads, job.max_length)
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
    return Measured(latencies, throughput, setting, _peak_memory(), answers)


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


if __name__ == "__main__":
    main()
