"""Percentiles and intervals: they cover the truth as often as they say, and are not told where samples are too few."""

import msgspec
import numpy as np
import pytest

from headway.bench import arrivals
from headway.bench.estimates import mean, percentile, reach, supported


@pytest.mark.parametrize(("wanted", "least"), [(50, 6), (90, 36), (99, 368), (99.9, 3688)])
def test_a_percentile_needs_so_many_samples(wanted: float, least: int) -> None:
    assert supported(wanted, least)
    assert not supported(wanted, least - 1)
    samples = np.random.default_rng(0).random(least) + 1
    assert percentile([samples[:-1].tolist()], wanted) is None
    found = percentile([samples.tolist()], wanted)
    assert found is not None
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("wanted", "count"), [(50, 60), (90, 100), (99, 500)])
def test_order_statistics_cover_the_true_percentile(wanted: float, count: int) -> None:
    random = np.random.default_rng(1)
    truth = float(np.percentile(random.lognormal(size=1_000_000), wanted))
    intervals = [percentile([random.lognormal(size=count).tolist()], wanted) for _ in range(400)]
    inside = np.mean([e is not None and e.low <= truth <= e.high for e in intervals])
    assert inside >= 0.93


def test_rounds_that_differ_widen_the_interval() -> None:
    random = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        processes = np.exp(0.05 * random.standard_normal(5))  # each process is a little faster or slower
        rounds = [(p * random.lognormal(0, 0.02, 100)).tolist() for p in processes]
        found = percentile(rounds, 50)
        covered.append(found is not None and found.low <= 1 <= found.high)
    assert np.mean(covered) >= 0.92  # the order statistics alone would cover it in less than a half


def test_the_mean_of_rounds() -> None:
    random = np.random.default_rng(3)
    found = [mean(np.exp(0.1 * random.standard_normal(5)).tolist()) for _ in range(500)]
    assert 0.92 <= np.mean([e.low <= 1 <= e.high for e in found]) <= 0.98
    for rounds, expected in (([2.0, 8.0], (4.0, 2.0, 8.0)), ([3.0], (3.0, 3.0, 3.0))):
        assert msgspec.structs.astuple(mean(rounds)) == pytest.approx(expected)


def test_few_rounds_tell_least_and_most() -> None:
    assert reach([4.0]) == (1, 1)
    assert reach([1.0, 4.0]) == pytest.approx((0.5, 2))
    assert reach([1.0, 2.0, 4.0])[1] > 2


def test_arrivals_are_a_poisson_process() -> None:
    times = arrivals.schedule(50, 100)
    gaps = np.diff(times)
    assert (gaps > 0).all()
    assert times[-1] <= 100
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert gaps.mean() == pytest.approx(gaps.std(), rel=0.05)
    assert (times == arrivals.schedule(50, 100)).all()
    assert len(arrivals.schedule(0.001, 1)) == 1
