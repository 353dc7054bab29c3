"""How fast each variant is on the machine that makes the bundle, for the model card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec

from headway.core.errors import UnavailableError
from headway.core.manifest import Variant
from headway.core.progress import Progress
from headway.export.engine import base as engines
from headway.export.proof import Proof

ROUNDS = 15
"""of each variant; they take turns, so that a busy moment meets all"""


def measure(
    variants: Mapping[str, Variant], held: Proof, out: Path, progress: Progress
) -> dict[str, Variant]:
    """The variants with their tokens per second, the median of all rounds; those that nothing here runs without."""
    away = () if held.target == "cpu" else engines.load(held.target).SIMULATED
    work = dict[str, Callable[[], int]]()
    for name, variant in variants.items():
        with suppress(UnavailableError):
            if variant.precision not in away:
                work[name] = held.work(out / name)
    found: dict[str, list[float]] = {name: [] for name in work}
    for once in work.values():
        once()
    for _ in progress(range(ROUNDS), "speed", ROUNDS):
        for name, once in work.items():
            begin = time.perf_counter()
            tokens = once()
            found[name].append(tokens / (time.perf_counter() - begin))
    return {
        name: msgspec.structs.replace(v, tokens_per_second=median(found[name]) if name in found else None)
        for name, v in variants.items()
    }
