"""What is fitted on held-out data after training: temperature, thresholds; and how well calibrated answers are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def softmax(logits: Array) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    shifted = np.exp(np.asarray(logits, np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def sigmoid(logits: Array) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64))))


def fit_temperature(logits: Array, targets: NDArray[np.integer]) -> float:
    """Temperature T that minimises the negative log likelihood of softmax(logits / T) (Guo et al. 2017).

    Args:
        logits: (N, C); -inf where a class is impossible.
        targets: (N) indices of the gold classes.
    """
    rows = np.arange(len(targets))

    def loss(temperature: float) -> float:
        scaled = np.asarray(logits, np.float64) / temperature
        top = scaled.max(-1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(-1))
        return float(np.mean(total - scaled[rows, targets]))

    return _least(loss) if len(targets) else 1.0


def fit_temperature_binary(logits: Array, targets: Array) -> float:
    """Temperature T that minimises the binary cross-entropy of sigmoid(logits / T) with targets of 0 and 1."""

    def loss(temperature: float) -> float:
        scaled = np.asarray(logits, np.float64) / temperature
        return float(np.mean(np.logaddexp(0, scaled) - scaled * targets))

    return _least(loss) if logits.size else 1.0


def fit_thresholds(probabilities: Array, gold: NDArray[np.bool_]) -> list[float]:
    """For each label the threshold of best F1 on (N, C) held-out answers, between two seen probabilities.

    A label that the held-out data has not keeps 0.5.
    """
    return [
        _best_threshold(probabilities[:, c], gold[:, c]) if gold[:, c].any() else 0.5
        for c in range(gold.shape[1])
    ]


def expected_calibration_error(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15
) -> float:
    """Mean |accuracy - confidence| over bins of equal width, weighted by their size (Guo et al. 2017)."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for b in np.unique(place):
        inside = place == b
        error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def _best_threshold(probability: Array, gold: NDArray[np.bool_]) -> float:
    order = np.argsort(-probability, kind="stable")
    sure, hits = probability[order], np.cumsum(gold[order])
    f1 = 2 * hits / (np.arange(1, len(sure) + 1) + gold.sum())
    f1[:-1][sure[:-1] == sure[1:]] = -1  # equal probabilities cannot be parted
    best = int(f1.argmax())
    below = sure[best + 1] if best + 1 < len(sure) else 0.0
    middle = (sure[best] + below) / 2
    return float(middle if middle > below else sure[best])


def _least(loss: Callable[[float], float], low: float = -3.0, high: float = 3.0) -> float:
    """Golden-section search over the logarithm of a temperature."""
    ratio = (5**0.5 - 1) / 2
    a, b = low, high
    for _ in range(40):
        left, right = b - ratio * (b - a), a + ratio * (b - a)
        if loss(float(np.exp(left))) < loss(float(np.exp(right))):
            b = right
        else:
            a = left
    found = float(np.exp((a + b) / 2))
    return found if loss(found) < loss(1.0) - 1e-9 else 1.0
