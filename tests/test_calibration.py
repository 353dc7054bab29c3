"""Temperature and thresholds against known answers and brute force; calibration error against its definition."""

import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

from headway.core import calibration
from tests.tolerance import TOLERANCE

CLOSE = TOLERANCE["float32"]
logits = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 20), st.integers(2, 5)), elements=st.floats(-30, 30, width=32)
)
extreme = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e4, 1e4)
)
seeds = st.integers(0, 2**32 - 1)


@given(extreme)
def test_softmax_equals_scipy(x: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(calibration.softmax(x), scipy.special.softmax(x, axis=-1), *CLOSE)


@given(extreme)
def test_sigmoid_equals_scipy(x: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(calibration.sigmoid(x), scipy.special.expit(x), *CLOSE)


def test_impossible_classes_have_no_probability() -> None:
    assert calibration.softmax(np.array([0.0, -np.inf, 0.0])).tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    """Targets drawn from the softmax of logits that were then multiplied by the temperature."""
    random = np.random.default_rng(1)
    true = random.normal(size=(20_000, 4)) * 1.5
    targets = (true + random.gumbel(size=true.shape)).argmax(-1)
    assert calibration.fit_temperature(true * temperature, targets) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_of_yes_and_no_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    true = random.normal(size=(8_000, 3)) * 1.5
    targets = random.random(true.shape) < scipy.special.expit(true)
    found = calibration.fit_temperature_binary(true * temperature, targets)
    assert found == pytest.approx(temperature, rel=0.05)


def likelihood(x: NDArray[np.float64], targets: NDArray[np.int64], temperature: float) -> float:
    return float(-np.mean(scipy.special.log_softmax(x / temperature, -1)[np.arange(len(x)), targets]))


@given(logits, seeds)
def test_no_temperature_is_better(x: NDArray[np.float64], seed: int) -> None:
    targets = np.random.default_rng(seed).integers(0, x.shape[1], len(x))
    found = likelihood(x, targets, calibration.fit_temperature(x, targets))
    for other in (1.0, *np.geomspace(0.05, 20, 60)):
        assert found <= likelihood(x, targets, other) + CLOSE[1]


@given(logits, seeds)
def test_no_temperature_of_yes_and_no_is_better(x: NDArray[np.float64], seed: int) -> None:
    targets = np.random.default_rng(seed).integers(0, 2, x.shape)

    def loss(temperature: float) -> float:
        scaled = x / temperature
        return float(
            -np.mean(np.where(targets, scipy.special.log_expit(scaled), scipy.special.log_expit(-scaled)))
        )

    found = loss(calibration.fit_temperature_binary(x, targets))
    for other in (1.0, *np.geomspace(0.05, 20, 60)):
        assert found <= loss(other) + CLOSE[1]


def test_the_loss_is_that_of_scikit_learn() -> None:
    """The likelihood above, by which the tests judge, is the usual one."""
    random = np.random.default_rng(2)
    x, targets = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    expected = log_loss(targets, scipy.special.softmax(x / 2, -1), labels=[0, 1, 2])
    assert likelihood(x, targets, 2.0) == pytest.approx(expected)


def test_impossible_classes_do_not_disturb() -> None:
    random = np.random.default_rng(3)
    x, targets = random.normal(size=(200, 3)), random.integers(0, 3, 200)
    wider = np.concatenate([x, np.full((200, 2), -np.inf)], axis=1)
    assert calibration.fit_temperature(wider, targets) == calibration.fit_temperature(x, targets)


def test_nothing_to_fit_on() -> None:
    assert calibration.fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0
    assert calibration.fit_temperature_binary(np.zeros((0, 3)), np.zeros((0, 3))) == 1.0


@given(st.data(), st.integers(1, 25), st.integers(1, 4))
def test_thresholds_attain_the_best_f1(data: st.DataObject, n: int, classes: int) -> None:
    chance = st.integers(0, 20).map(lambda i: i / 20)  # equal ones occur
    chances = data.draw(hnp.arrays(np.float64, (n, classes), elements=chance))
    gold = data.draw(hnp.arrays(np.bool_, (n, classes)))
    thresholds = calibration.fit_thresholds(chances, gold)
    assert len(thresholds) == classes
    for c in np.flatnonzero(gold.any(0)):
        found = f1_score(gold[:, c], chances[:, c] >= thresholds[c], zero_division=0)
        cuts = [f1_score(gold[:, c], chances[:, c] >= cut, zero_division=0) for cut in chances[:, c]]
        assert found == pytest.approx(max(cuts))
    for c in np.flatnonzero(~gold.any(0)):
        assert thresholds[c] == 0.5


def test_a_threshold_is_half_way_between_two_probabilities() -> None:
    chances = np.array([[0.9, 0.2], [0.7, 0.6], [0.3, 0.1]])
    gold = np.array([[True, True], [True, True], [False, True]])
    assert calibration.fit_thresholds(chances, gold) == pytest.approx([0.5, 0.05])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 2, 10, 15]),
)
def test_calibration_error_equals_its_definition(pairs: list[tuple[float, bool]], bins: int) -> None:
    inner = [c * bins for c, _ in pairs]
    assume(
        all(abs(c - round(c)) > 1e-9 or c in (0, bins) for c in inner)
    )  # an edge is on either side of itself
    expected = 0.0
    for b in range(bins):
        inside = [(c, r) for c, r in pairs if b / bins <= c < (b + 1) / bins or (c == 1 and b == bins - 1)]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            expected += len(inside) / len(pairs) * abs(accuracy - confidence)
    confidences, rights = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
    found = calibration.expected_calibration_error(confidences, rights, bins)
    assert found == pytest.approx(expected, *CLOSE)


def test_calibration_error_by_hand() -> None:
    certain, right = np.array([1.0, 1.0, 1.0, 1.0]), np.array([True, True, True, False])
    assert calibration.expected_calibration_error(certain, right) == pytest.approx(0.25)
    assert calibration.expected_calibration_error(certain * 0.75, right) == pytest.approx(0.0)


def test_fitting_calibrates() -> None:
    """Overconfident answers lose most of their calibration error."""
    random = np.random.default_rng(4)
    true = random.normal(size=(20_000, 3))
    targets = (true + random.gumbel(size=true.shape)).argmax(-1)
    said = true * 4
    errors = []
    for temperature in (1.0, calibration.fit_temperature(said, targets)):
        chances = calibration.softmax(said / temperature)
        right = chances.argmax(-1) == targets
        errors.append(calibration.expected_calibration_error(chances.max(-1), right))
    before, after = errors
    assert before > 0.15
    assert after < 0.02
