"""Figures of quality that several tasks share, by their usual definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def f1_macro(gold: Sequence[Iterable[Any]], said: Sequence[Iterable[Any]]) -> float:
    """F1 averaged over the labels that occur in gold or prediction, each counting the same."""
    true, found, both = _counts(gold, said)
    scores = [2 * both[c] / (true[c] + found[c]) for c in sorted(true | found, key=str)]
    return float(np.mean(scores)) if scores else 0.0


def f1_micro(gold: Sequence[Iterable[Any]], said: Sequence[Iterable[Any]]) -> float:
    """F1 over all pairs of an example and a label together."""
    true, found, both = _counts(gold, said)
    total = true.total() + found.total()
    return 2 * both.total() / total if total else 0.0


def precision_recall(gold: Sequence[Iterable[Any]], said: Sequence[Iterable[Any]]) -> tuple[float, float]:
    """Over all pairs of an example and a label together."""
    true, found, both = _counts(gold, said)
    return (
        both.total() / found.total() if found.total() else 0.0,
        both.total() / true.total() if true.total() else 0.0,
    )


def pearson(a: Sequence[float], b: Sequence[float]) -> float:
    """Linear correlation; 0 where one side does not vary, NaN where a value is no number."""
    if not np.isfinite([*a, *b]).all():
        return float("nan")
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = x - x.mean(), y - y.mean()
    if min(np.ptp(a), np.ptp(b)) <= 0:
        return 0.0
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Correlation of ranks, equal values sharing their mean rank; NaN where a value is no number."""
    if not np.isfinite([*a, *b]).all():  # it would have a rank
        return float("nan")
    return pearson(_ranks(a).tolist(), _ranks(b).tolist())


def ranking(relevance: Sequence[float], ideal: Sequence[float], k: int = 10) -> dict[str, float]:
    """Recall, reciprocal rank and nDCG at k of one query.

    Args:
        relevance: of the documents in the order found, best first; 0 for those that are not relevant.
        ideal: relevance of every relevant document.
    """
    top = np.asarray(relevance[:k], np.float64)
    best = np.sort(np.asarray(ideal, np.float64))[::-1][:k]
    first = np.flatnonzero(top > 0)
    return {
        f"recall_at_{k}": float((top > 0).sum() / max(1, len(ideal))),
        f"mrr_at_{k}": 1 / (1 + int(first[0])) if len(first) else 0.0,
        f"ndcg_at_{k}": _discounted(top) / max(1e-12, _discounted(best)),
    }


def _discounted(gains: NDArray[np.float64]) -> float:
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))


def mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Averages by name of figures that all have the same names."""
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}


def _counts(
    gold: Sequence[Iterable[Any]], said: Sequence[Iterable[Any]]
) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """How often each label is gold, is predicted, and is both for the same example."""
    true, found, both = Counter[Any](), Counter[Any](), Counter[Any]()
    for g, s in zip(gold, said, strict=True):
        g, s = set(g), set(s)
        true.update(g)
        found.update(s)
        both.update(g & s)
    return true, found, both


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place], np.float64)
