"""Two records side by side: what became slower or larger, beyond what chance explains."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from headway.bench.estimates import CONFIDENCE, Estimate, student
from headway.bench.record import Record, Round, Row
from headway.core.errors import UsageError

TOLERANCE = 0.02
"""share by which a figure may become worse without being a regression, were it known exactly"""

FIGURES: dict[str, Callable[[Round], float]] = {
    "one text": lambda r: float(np.median(r.latencies_ms)),
    "time a text, all at once": lambda r: 1 / r.throughput,
    "cold start": lambda r: r.cold_start_s,
    "memory": lambda r: r.memory_mb,
}
"""of a round; all are better when lower"""


class Change(msgspec.Struct, frozen=True):
    """Of one figure of one subject."""

    subject: str
    figure: str
    ratio: Estimate
    """new / old"""
    verdict: str
    """worse, better, same; or unclear: the interval is too wide to tell, more rounds are wanted"""


def compare(old: Record, new: Record, by: str | None = None, tolerance: float = TOLERANCE) -> list[Change]:
    """Changes of all subjects that both records have.

    Args:
        by: a subject in both whose code is the same, as a peer: figures count relative to its own in the same round,
            which takes out what the machine does from one day to the next. None: a peer that both have, or absolute
            times where both were measured on machines of one kind.
        tolerance: see `TOLERANCE`.
    Raises:
        UsageError: the records cannot be compared.
    """
    for name in ("task", "texts_sha256", "threads", "max_length"):
        if getattr(old, name) != getattr(new, name):
            what = (
                "other texts"
                if name == "texts_sha256"
                else f"{name} {getattr(old, name)} and {getattr(new, name)}"
            )
            raise UsageError("compare", f"the records have {what}")
    before, after = ({row.subject: row for row in record.rows} for record in (old, new))
    common = [name for name in after if name in before]
    if by is None:
        by = next((name for name in common if not name.startswith("headway ")), None)
    elif by not in common:
        raise UsageError("--by", f"'{by}' is not in both records; {', '.join(common) or 'nothing'} is")
    if by is None and old.machine["processor"] != new.machine["processor"]:
        raise UsageError(
            "compare", "the records are of different processors, and no peer is in both to relate them to"
        )
    subjects = [name for name in common if name != by]
    if not subjects:
        raise UsageError("compare", "no subject is in both records")
    tests = len(subjects) * len(FIGURES)
    return [
        _change(
            name, figure, [_relative(rows, name, by, figure) for rows in (before, after)], tolerance, tests
        )
        for name in subjects
        for figure in FIGURES
    ]


def in_one_run(
    record: Record, base: str, tolerance: float = TOLERANCE, figures: Sequence[str] = tuple(FIGURES)
) -> list[Change]:
    """Changes from subjects of the peer `base` to those of the same name of headway, measured in turns.

    What the machine does in a round hits both, so that the rounds' ratios are judged. Raises UsageError.
    """
    rows = {row.subject: row for row in record.rows}
    pairs = [(name, f"{base} {name.partition(' ')[2]}") for name in rows if name.startswith("headway ")]
    tests = len(pairs) * len(figures)
    return [
        _judged(name, figure, _relative(rows, name, other, figure), tolerance, tests)
        for name, other in pairs
        for figure in figures
    ]


def _judged(subject: str, figure: str, logs: Sequence[float], tolerance: float, tests: int) -> Change:
    """Student's interval of logarithms of ratios, as wide as so many tests together want (Bonferroni)."""
    _enough(logs)
    reach = (
        statistics.stdev(logs) / math.sqrt(len(logs)) * student(len(logs) - 1, 1 - (1 - CONFIDENCE) / tests)
    )
    return _verdict(subject, figure, statistics.fmean(logs), reach, tolerance)


def _enough(logs: Sequence[float]) -> None:
    if len(logs) < 2:
        raise UsageError("compare", "records of one round say nothing about chance: measure with --rounds 5")


def _relative(rows: dict[str, Row], name: str, by: str | None, figure: str) -> list[float]:
    """Logarithms of a subject's figure in each round, relative to another's in the same round."""
    read = FIGURES[figure]
    own = [math.log(read(r)) for r in rows[name].rounds]
    if by is None:
        return own
    return [a - math.log(read(b)) for a, b in zip(own, rows[by].rounds, strict=True)]


def _change(
    subject: str, figure: str, logs: Sequence[Sequence[float]], tolerance: float, tests: int
) -> Change:
    """Welch's interval (Biometrika 34, 1947) on logarithms, as wide as so many tests together want (Bonferroni)."""
    old, new = logs
    for side in logs:
        _enough(side)
    parts = [statistics.variance(side) / len(side) for side in logs]
    error, reach = math.sqrt(sum(parts)), 0.0
    if error > 0:
        degrees = sum(parts) ** 2 / sum(v**2 / (len(s) - 1) for v, s in zip(parts, logs, strict=True))
        reach = error * student(degrees, 1 - (1 - CONFIDENCE) / tests)
    return _verdict(subject, figure, statistics.fmean(new) - statistics.fmean(old), reach, tolerance)


def _verdict(subject: str, figure: str, difference: float, reach: float, tolerance: float) -> Change:
    """Of a difference of logarithms that is known to so much."""
    low, high = difference - reach, difference + reach
    limit = math.log1p(tolerance)
    if low > limit:
        verdict = "worse"
    elif high < -limit:
        verdict = "better"
    elif high <= 2 * limit and low >= -2 * limit:
        verdict = "same"
    else:
        verdict = "unclear"
    return Change(subject, figure, Estimate(math.exp(difference), math.exp(low), math.exp(high)), verdict)
