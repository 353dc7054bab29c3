"""Percentiles with 95 % confidence intervals, and none that a sample cannot support."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from headway.core.errors import UnavailableError

CONFIDENCE = 0.95
ENOUGH = 3
"""rounds for an interval between them"""


class Estimate(msgspec.Struct, frozen=True):
    """A figure, with the interval that holds the true one with a confidence of 95 %; without one: low = high = value."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def mean(rounds: Sequence[float]) -> Estimate:
    """Geometric mean of positive figures, one a round, with Student's interval on their logarithms.

    Rounds are fresh processes, so that what differs between processes (placement in memory, neighbours on the machine)
    is in the interval, which samples of one process would not show.
    """
    value = math.exp(statistics.fmean(map(math.log, rounds)))
    low, high = reach(rounds)
    return Estimate(value, value * low, value * high)


def reach(rounds: Sequence[float]) -> tuple[float, float]:
    """By what factors the true figure may be below and above the geometric mean of the rounds.

    Fewer than three say nothing about chance: the factors are those of the least and the most of them.
    """
    logs = [math.log(value) for value in rounds]
    middle = statistics.fmean(logs)
    if len(rounds) < ENOUGH:
        return math.exp(min(logs) - middle), math.exp(max(logs) - middle)
    factor = math.exp(student(len(rounds) - 1) * statistics.stdev(logs) / math.sqrt(len(rounds)))
    return 1 / factor, factor


def supported(percentile: float, samples: int) -> bool:
    """Whether so many samples have a value on either side of that percentile's interval."""
    share = min(percentile, 100 - percentile) / 100
    return (1 - share) ** samples <= (1 - CONFIDENCE) / 2


def percentile(rounds: Sequence[Sequence[float]], wanted: float) -> Estimate | None:
    """Of positive samples in rounds; None where there are too few (`supported`).

    The interval is the wider of two: the order statistics of all samples, which hold for any distribution (Hahn and
    Meeker, Statistical Intervals, 5.2), and Student's over the percentiles of the rounds.
    """
    samples = np.sort(np.concatenate([np.asarray(r, np.float64) for r in rounds]))
    if not supported(wanted, len(samples)):
        return None
    value = float(np.percentile(samples, wanted))
    low, high = _order_statistics(len(samples), wanted / 100)
    below, above = reach([float(np.percentile(r, wanted)) for r in rounds])
    return Estimate(value, min(float(samples[low]), value * below), max(float(samples[high]), value * above))


def distributions() -> Any:
    """scipy.stats, which only those need who read figures: a measuring process may run in another environment."""
    try:
        from scipy import stats
    except ImportError as error:
        raise UnavailableError("scipy, which tells confidence,", "pip install 'headway[bench]'") from error
    return stats


def student(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The factor of a standard error that makes the interval."""
    return float(distributions().t.ppf(1 - (1 - confidence) / 2, degrees))


def _order_statistics(samples: int, share: float) -> tuple[int, int]:
    """Places of the sorted samples between which the percentile lies: how many are below it is binomial."""
    low, high = distributions().binom.interval(CONFIDENCE, samples, share)
    return max(int(low) - 1, 0), min(int(high), samples - 1)


class Figure(msgspec.Struct, frozen=True):
    """Median over the rounds, with the smallest and the largest."""

    median: float
    least: float
    most: float


def figure(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values))
