"""Which variant to run on which engine: the fastest, measured once for each machine and bundle, then remembered.

On GPUs a rule chooses: there an engine is built for what it runs, which takes minutes.

Every variant of a bundle was proven by its export, so that only speed is left to ask for. `HEADWAY_CACHE=off` in the
environment turns measuring off: then a rule chooses, as it does where nothing is left to choose.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headway.core import hardware
from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle
from headway.core.tasks import Row
from headway.runtime.backends.base import Backend, load_engine
from headway.runtime.devices import place
from headway.runtime.ragged import Ragged

FORMAT = 1
"""of the files in the cache"""
SWITCH = "HEADWAY_CACHE"
"""environment variable: "off" for no measuring"""

LENGTHS = (16, 64, 128)
"""tokens of the texts that are measured, one alone and many at once"""
AT_ONCE = 256
"""tokens that go through together where many are measured, in two batches"""
LIMIT = 2.0
"""seconds of running, for all candidates together; opening them comes on top"""
ROUNDS = 5
"""runs of each, of which the fastest counts"""


class Choice(NamedTuple):
    """A variant and the engine to run it on."""

    precision: str
    engine: str


@dataclass(frozen=True)
class Opener:
    """Opens a bundle's encoder, having verified what it reads."""

    folder: Path
    declared: Bundle
    read: Sequence[str]
    """names of outputs"""
    device: str
    threads: int
    buckets: int = 0
    """as the engine is to be opened with"""

    def verified(self, precision: str) -> dict[str, Path]:
        """A variant's graphs, by role. Raises BundleError."""
        named = self.declared.variants[precision].graphs
        beside = tuple(
            f"{Path(name).parent.as_posix()}/" for name in named.values()
        )  # weights of large graphs
        needed = [name for name in self.declared.files if name.startswith(beside)]
        self.declared.verify(self.folder, dict.fromkeys([*named.values(), *needed]))
        for name in dict.fromkeys(Path(graph).parent.as_posix() for graph in named.values()):
            self.declared.refuse_unlisted_links(self.folder, name)
        return {role: self.folder / name for role, name in named.items()}

    def open(self, choice: Choice) -> Backend:
        """Raises BundleError or UnavailableError."""
        graph, declared = self.verified(choice.precision)["model"], self.declared.graphs["model"]
        engine = load_engine(choice.engine)
        return engine.open_graph(
            graph, declared, self.read, self.declared.pad_id, self.device, self.threads, self.buckets
        )


Measure = Callable[[Backend, list[list[Ragged]], float], list[float]]
"""seconds for each piece of work, on a backend, in about so many seconds"""


def candidates(
    declared: Bundle, precisions: Sequence[str], engines: Sequence[str], device: str
) -> list[Choice]:
    """What can be chosen from, in the order of the rule: what is likely to be fast first.

    A single precision, or a single engine, is what the user named and stays, whatever is said against it.
    """
    if len(engines) > 1:
        engines = [name for name in engines if _stamp(name) is not None] or engines[:1]
    if (
        len(engines) > 1 and place(device).kind == "cuda"
    ):  # those that have variants of their own, TensorRT before others
        targets = {v.target for v in declared.variants.values()}
        engines = sorted(
            engines, key=lambda name: (load_engine(name).TARGET not in targets, name != "tensorrt")
        )
    return [Choice(p, engine) for engine in engines for p in _meant(declared, precisions, engine)]


def _meant(declared: Bundle, precisions: Sequence[str], engine: str) -> list[str]:
    """Of several variants those that were made for an engine, if any were, the one that is likely to be fast first."""
    if len(precisions) == 1:
        return list(precisions)
    target = load_engine(engine).TARGET
    meant = [p for p in precisions if declared.variants[p].target == target]
    fast = ["fp16", "bf16", "fp8", "int8-static", "fp32"]
    if target == "cpu":
        fast = ["int8" if hardware.has_fast_int8(hardware.cpu_flags()) else "fp32"]
    places = {kind: i for i, kind in enumerate(fast)}
    return sorted(meant or precisions, key=lambda p: places.get(declared.variants[p].precision, len(places)))


def choose(among: Sequence[Choice], opener: Opener, measure: Measure | None = None) -> tuple[Choice, Backend]:
    """The fastest, opened. Raises the error of the first if none can be opened."""
    measured_here = place(opener.device).kind == "cpu" and os.environ.get(SWITCH) != "off"
    remembered = _place(among, opener) if len(among) > 1 and measured_here else None
    if remembered is None:
        return _first(among, opener)
    known = _remembered(remembered, among)
    if known is None:
        known = _fastest(among, opener, measure or measured)
        _remember(remembered, known)
    return _first([known, *among], opener)


def _first(among: Sequence[Choice], opener: Opener) -> tuple[Choice, Backend]:
    """The first that can be opened."""
    failed: UnavailableError | None = None
    for choice in among:
        try:
            return choice, opener.open(choice)
        except UnavailableError as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _fastest(among: Sequence[Choice], opener: Opener, measure: Measure) -> Choice:
    """By the product of the times for all work, so that one short text counts as much as many long ones.

    One candidate is open at a time. The first counts where none can be opened.
    """
    for precision in dict.fromkeys(choice.precision for choice in among):
        opener.verified(
            precision
        )  # a damaged file is an error, an engine that cannot open a sound one is not
    work, slowness = workload(opener.declared), dict[Choice, float]()
    for choice in among:
        with suppress(UnavailableError, BundleError):
            seconds = measure(opener.open(choice), work, LIMIT / len(among))
            slowness[choice] = sum(math.log(s) for s in seconds)
    return min(slowness, key=slowness.__getitem__, default=among[0])


def workload(declared: Bundle) -> list[list[Ragged]]:
    """Texts of each length that the model takes: one alone, and two batches of many."""
    vocabulary = declared.architecture.get("vocab_size")
    ids = np.arange(declared.max_length) % (vocabulary if isinstance(vocabulary, int) else 1)
    work = []
    for length in sorted({min(length, declared.max_length) for length in LENGTHS}):
        row = Row(0, ids[:length].tolist(), [0] * length)
        half = Ragged.of([row] * max(1, AT_ONCE // length // 2))
        work += [[Ragged.of([row])], [half, half]]
    return work


def measured(backend: Backend, work: list[list[Ragged]], limit: float) -> list[float]:
    """Seconds for each piece of work: the least of some runs, the first apart, or the first where that took long."""
    best = [0.0] * len(work)
    begin = time.perf_counter()
    for turn in range(1 + ROUNDS):
        for i, batches in enumerate(work):
            start = time.perf_counter()
            if turn > 0 and start - begin > limit:
                return best
            backend.run(batches)
            took = time.perf_counter() - start
            best[i] = took if turn == 0 else min(best[i], took)
    return best


def _place(among: Sequence[Choice], opener: Opener) -> Path | None:
    """Where the choice is remembered: a file named by all that it depends on. None: nowhere."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    with suppress(RuntimeError):  # nobody's home
        key = [
            FORMAT,
            opener.declared.seal,
            hardware.cpu_name(),
            sorted(hardware.cpu_flags()),
            opener.threads,
            [[*choice, _stamp(choice.engine)] for choice in among],
        ]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return user.expanduser() / "headway" / "choice" / f"{name}.json"
    return None


def _stamp(engine: str) -> int | None:
    """When the package of an engine was installed, which tells one version from another. None: it is not.

    To ask for the version itself takes longer than the rest of a choice that is remembered.
    """
    spec = find_spec(load_engine(engine).PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).stat().st_mtime_ns


def _remembered(place: Path, among: Sequence[Choice]) -> Choice | None:
    try:
        content = json.loads(place.read_text("utf-8"))
        known = Choice(content["precision"], content["engine"])
        return known if known in among else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _remember(place: Path, choice: Choice) -> None:
    """Write it, if that can be."""
    partial = place.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(choice._asdict()), encoding="utf-8")
        os.replace(partial, place)
