"""What needs no training: the source as the output, and a trigram language model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from headway.bench.plain.text2text_generation import scores

Gram = tuple[int, ...]
ORDER = 3


def copying(test: list[dict[str, Any]]) -> dict[str, float]:
    """rouge1, rouge2, rougeL, bleu, chrf of the sources as outputs."""
    references = [r.get("references") or [r["target"]] for r in test]
    return scores([r["source"] for r in test], references)


def trigram(train_ids: list[int], test_ids: list[int], vocabulary: int) -> float:
    """Perplexity of a token under interpolated modified Kneser-Ney (Chen & Goodman 1999).

    Every test token but the first is predicted, the second from one token of context.
    """
    levels = _levels(train_ids)
    total = sum(
        math.log(_probability(levels, tuple(test_ids[max(0, i - ORDER + 1) : i + 1]), vocabulary))
        for i in range(1, len(test_ids))
    )
    return math.exp(-total / (len(test_ids) - 1))


@dataclass(frozen=True)
class _Level:
    """The n-grams of one length."""

    discounted: dict[Gram, float]
    """count less discount"""
    totals: dict[Gram, int]
    """context → sum of the counts"""
    left: dict[Gram, float]
    """context → sum of the discounts, which the shorter context spreads"""


def _levels(ids: list[int]) -> list[_Level]:
    """Unigrams, bigrams, trigrams. Below the longest, a count is of the different tokens that come before."""
    counts = Counter(zip(*(ids[i:] for i in range(ORDER)), strict=False))
    levels = [_level(counts)]
    for _ in range(ORDER - 1):
        counts = Counter(gram[1:] for gram in counts)
        levels.insert(0, _level(counts))
    return levels


def _level(counts: Counter[Gram]) -> _Level:
    discounts = _discounts(counts)
    discounted: dict[Gram, float] = {}
    totals: defaultdict[Gram, int] = defaultdict(int)
    left: defaultdict[Gram, float] = defaultdict(float)
    for gram, count in counts.items():
        discount = discounts[min(count, 3) - 1]
        discounted[gram] = count - discount
        totals[gram[:-1]] += count
        left[gram[:-1]] += discount
    return _Level(discounted, totals, left)


def _discounts(counts: Counter[Gram]) -> list[float]:
    """Of the counts 1, 2, and 3 or more; 0.75 where too few n-grams were seen to estimate one."""
    n = Counter(counts.values())
    share = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
    estimates = [k - (k + 1) * share * n[k + 1] / n[k] if n[k] else 0.0 for k in (1, 2, 3)]
    return [e if 0 < e < k else 0.75 for k, e in enumerate(estimates, start=1)]


def _probability(levels: list[_Level], gram: Gram, vocabulary: int) -> float:
    """Of the last token after the others."""
    if not gram:
        return 1 / vocabulary
    level, context = levels[len(gram) - 1], gram[:-1]
    shorter = _probability(levels, gram[1:], vocabulary)
    total = level.totals.get(context, 0)
    if not total:
        return shorter
    return (level.discounted.get(gram, 0.0) + level.left[context] * shorter) / total
