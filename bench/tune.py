"""The fastest way to run a bundle on this machine for a latency and a rate, found by measuring, not by rule."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headway.bench.estimates import Estimate, percentile
from headway.bench.measure import started
from headway.bench.record import Load
from headway.bench.tune_worker import Job, Way
from headway.bench.worker import DONE, versions
from headway.core import tasks
from headway.core.errors import MeasurementError, UsageError
from headway.core.manifest import Bundle
from headway.core.progress import Progress, silent
from headway.runtime import tuned
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.choice import SWITCH
from headway.runtime.front import BATCH_TOKENS as FRONT_TOKENS
from headway.runtime.load import WRITERS
from headway.runtime.plan import BATCH_TOKENS

SECONDS = 2.0
"""of load for each way in the first pass; later passes take longer"""
KEPT = 3
"""ways of the first pass whose batches are varied, and of the second whose buckets are"""
BATCHES = (256, BATCH_TOKENS, 1024)
TOGETHER = (256, FRONT_TOKENS, 8192)
REPLAYS = 3
"""fresh processes in which the winner is replayed"""
STEPS = 5
"""halvings of the range in which the highest rate is looked for"""
MOST = 64.0
"""times the wanted rate: the highest rate that is looked for"""

Measure = Callable[[Way, Sequence[float], float], list[Load]]
"""of a way, loads at these rates for so many seconds each"""


@dataclass(frozen=True)
class Target:
    p95_ms: float
    rate: float
    """requests a second"""
    max_drop: float
    """of the task's metric, or of the share of equal answers, against fp32"""


@dataclass(frozen=True)
class Outcome:
    """What tuning has found."""

    way: Way
    p95: Estimate
    """of the winner, replayed, in milliseconds"""
    highest_rate: float
    """requests a second at which the wanted latency is still held; 0 if at none"""
    tried: int
    met: bool


def ways(declared: Bundle, target: Target, threads: int) -> list[Way]:
    """All that may be tried first: variants that lose little enough, engines, and how threads are shared out.

    Raises UsageError where no variant is good enough.
    """
    writes = "decoder" in declared.graphs
    engines = [name for name in engines_for("cpu") if name in WRITERS or not writes]
    variants = [
        n for n, v in declared.variants.items() if v.target == "cpu" and drop(declared, n) <= target.max_drop
    ]
    if not variants:
        raise UsageError("--max-drop", f"no variant of the bundle loses {target.max_drop:g} or less")
    splits = [(n, threads // n) for n in range(1, threads + 1) if threads % n == 0]
    return [
        Way(variant, engine, each, workers, BATCH_TOKENS, FRONT_TOKENS)
        for variant in variants
        for engine in engines
        for each, workers in splits
    ]


def drop(declared: Bundle, variant: str) -> float:
    """What a variant has lost against fp32: of the task's metric where it was measured, else in equal answers."""
    own, full = declared.variants[variant], declared.variants.get("fp32")
    name = tasks.load(declared.task).metric(tasks.spec(tasks.load(declared.task), declared).settings)
    if full is not None and name in own.quality and name in full.quality:
        lost = full.quality[name] - own.quality[name]
        return -lost if name in tasks.FIGURES_FALLING else lost
    return 1 - float(own.parity.get("agreement", 1.0))


def tune(
    declared: Bundle, target: Target, threads: int, measure: Measure, *, progress: Progress = silent
) -> Outcome:
    """Try every way for a little, the best with other batches for longer, then replay the winner.

    The winner is the way with the lowest 95th percentile under the wanted rate. Raises MeasurementError if none runs.
    """
    first = ways(declared, target, threads)
    found: dict[Way, Held] = {}
    for way in progress(first, "trying", len(first)):
        found[way] = _held(measure, way, target.rate, SECONDS)
    best = sorted(found, key=found.__getitem__)[:KEPT]
    if not np.isfinite(found[best[0]].p95):
        raise MeasurementError("every way to run the bundle", "none could be measured")
    varied = [*best, *(w for way in best for w in _batches(way) if w not in found)]
    for way in progress(varied, "varying batches", len(varied)):
        found[way] = _held(measure, way, target.rate, 2 * SECONDS)
    padded = [w for way in sorted(varied, key=found.__getitem__)[:KEPT] for w in _buckets(way)]
    for way in progress(padded, "varying buckets", len(padded)):
        found[way] = _held(measure, way, target.rate, 2 * SECONDS)
    winner = min((*varied, *padded), key=found.__getitem__)
    replays = [
        measure(winner, [target.rate], 4 * SECONDS)[0] for _ in progress(range(REPLAYS), "replaying", REPLAYS)
    ]
    p95 = percentile([load.latencies_ms for load in replays], 95)
    if p95 is None:
        few = float(np.percentile(np.concatenate([load.latencies_ms for load in replays]), 95))
        p95 = Estimate(few, few, few)
    met = p95.value <= target.p95_ms and not any(load.unanswered for load in replays)
    highest = highest_rate(measure, winner, target, met)
    return Outcome(winner, p95, highest, len(found), met)


def highest_rate(measure: Measure, way: Way, target: Target, met: bool) -> float:
    """The highest rate, to a few percent, at which the 95th percentile is the wanted one; 0 if there is none."""
    wanted = Held(False, target.p95_ms)
    low, high = (target.rate, target.rate * MOST) if met else (target.rate / MOST, target.rate)
    if not met and _held(measure, way, low, 2 * SECONDS) > wanted:
        return 0.0
    if met:  # the range first
        while low < high and _held(measure, way, 2 * low, SECONDS) <= wanted:
            low *= 2
        high = min(2 * low, high)
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        if _held(measure, way, middle, SECONDS) <= wanted:
            low = middle
        else:
            high = middle
    return low


def _batches(way: Way) -> Iterator[Way]:
    for batch in BATCHES:
        for together in TOGETHER:
            yield msgspec.structs.replace(way, batch_tokens=batch, front_tokens=together)


def _buckets(way: Way) -> Iterator[Way]:
    """Other ones than the engine's own choice."""
    for buckets in load_engine(way.backend).BUCKETS[1:]:
        yield msgspec.structs.replace(way, buckets=buckets)


class Held(NamedTuple):
    """What a way holds under a load; the least is best."""

    overloaded: bool
    """whether requests were left unanswered"""
    p95: float
    """milliseconds; infinite for a way that cannot run"""


def _held(measure: Measure, way: Way, rate: float, seconds: float) -> Held:
    try:
        (load,) = measure(way, [rate], seconds)
    except MeasurementError:
        return Held(True, float("inf"))
    return Held(load.unanswered > 0, float(np.percentile(load.latencies_ms, 95)))


class Journal:
    """Measures in fresh processes, and remembers, so that an interrupted search goes on where it was."""

    def __init__(self, bundle: Path, inputs: Sequence[Any], place: Path | None) -> None:
        """`place`: folder; None: nothing is remembered."""
        self._bundle, self._inputs, self._place = bundle, list(inputs), place
        self._asked = Counter[bytes]()

    def __call__(self, way: Way, rates: Sequence[float], seconds: float) -> list[Load]:
        job = Job(str(self._bundle), way, self._inputs, list(rates), seconds)
        known = self._known(job)
        if known is not None:
            with suppress(OSError, msgspec.DecodeError):
                return msgspec.json.decode(known.read_bytes(), type=list[Load])
        loads = _in_fresh_process(job)
        if known is not None:
            with suppress(OSError):
                known.parent.mkdir(parents=True, exist_ok=True)
                partial = known.with_suffix(f".{os.getpid()}")
                partial.write_bytes(msgspec.json.encode(loads))
                partial.replace(known)
        return loads

    def _known(self, job: Job) -> Path | None:
        """The file named by all that the figures depend on, and by how often they were asked for."""
        if self._place is None:
            return None
        key = msgspec.json.encode([job, Bundle.read(self._bundle).seal, tuned.machine_key(1), versions()])
        self._asked[key] += 1
        return self._place / f"{hashlib.sha256(key).hexdigest()}-{self._asked[key]}.json"


def journal(bundle: Path, inputs: Sequence[Any]) -> Journal:
    """In the user's cache folder; nowhere with HEADWAY_CACHE=off."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    place = None
    with suppress(RuntimeError):  # nobody's home
        place = None if os.environ.get(SWITCH) == "off" else user.expanduser() / "headway" / "tune"
    return Journal(bundle, inputs, place)


def _in_fresh_process(job: Job) -> list[Load]:
    ran = subprocess.run(
        started(sys.executable, "tune_worker"),
        input=msgspec.json.encode(job),
        capture_output=True,
        check=False,
    )
    said = [line for line in ran.stdout.splitlines() if line.startswith(DONE.encode())]
    if ran.returncode != 0 or not said:
        words = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise MeasurementError(f"{job.way.backend} {job.way.precision}", " ".join(words))
    return msgspec.json.decode(said[-1][len(DONE) :], type=list[Load])
