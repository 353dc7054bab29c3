"""Losses against naive loops over the batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.train import losses
from tests.tolerance import TOLERANCE

SEED = st.integers(0, 2**31)


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def cos(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def close(found: torch.Tensor, wanted: float) -> None:
    assert float(found) == pytest.approx(wanted, rel=1e-4, abs=10 * TOLERANCE["float32"][1])


@given(SEED, st.integers(1, 6), st.floats(0.05, 1.5))
def test_triplet(seed: int, count: int, margin: float) -> None:
    a, p, n = vectors(seed, 3, count, 5)
    each = [max(0.0, cos(x, z) - cos(x, y) + margin) for x, y, z in zip(a, p, n, strict=True)]
    close(losses.triplet(a, p, n, margin), float(np.mean(each)))


@given(SEED, st.integers(1, 6), st.floats(0.05, 1.5))
def test_contrastive(seed: int, count: int, margin: float) -> None:
    u, v = vectors(seed, 2, count, 5)
    same = (vectors(seed + 1, count) > 0).float()
    each = []
    for x, y, s in zip(u, v, same.tolist(), strict=True):
        d = 1 - cos(x, y)
        each.append(0.5 * (d**2 if s else max(0.0, margin - d) ** 2))
    close(losses.contrastive(u, v, same, margin), float(np.mean(each)))


@given(SEED, st.integers(1, 6))
def test_cosine(seed: int, count: int) -> None:
    u, v = vectors(seed, 2, count, 5)
    score = vectors(seed + 1, count).sigmoid()
    each = [(cos(x, y) - s) ** 2 for x, y, s in zip(u, v, score.tolist(), strict=True)]
    close(losses.cosine(u, v, score), float(np.mean(each)))


@given(SEED, st.integers(1, 5), st.integers(0, 4), st.floats(1, 30))
def test_multiple_negatives(seed: int, count: int, more: int, scale: float) -> None:
    """Others' positives and all explicit negatives are wrong answers, but not texts equal to the own positive."""
    anchor, others = vectors(seed, count, 5), vectors(seed + 1, count + more, 5)
    names = np.random.default_rng(seed).integers(0, 3, count + more)
    same = torch.from_numpy(names[:count, None] == names[None, :])
    each = []
    for i in range(count):
        usable = [j for j in range(count + more) if j == i or not same[i, j]]
        logits = [scale * cos(anchor[i], others[j]) for j in usable]
        each.append(math.log(sum(map(math.exp, logits))) - scale * cos(anchor[i], others[i]))
    close(losses.multiple_negatives(anchor, others, same, scale), float(np.mean(each)))


@given(SEED, st.integers(1, 6))
def test_pair_softmax(seed: int, count: int) -> None:
    u, v = vectors(seed, 2, count, 5)
    classifier = torch.nn.Linear(15, 3)
    target = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, count))
    each = []
    for x, y, t in zip(u, v, target.tolist(), strict=True):
        logits = classifier(torch.cat([x, y, (x - y).abs()])).double()
        each.append(float(logits.logsumexp(0) - logits[t]))
    close(losses.pair_softmax(u, v, target, classifier), float(np.mean(each)))


@given(SEED, st.lists(st.integers(2, 4), min_size=1, max_size=4))
def test_listwise(seed: int, sizes: list[int]) -> None:
    scores = vectors(seed, sum(sizes))
    relevance = torch.cat([torch.eye(n)[0] for n in sizes])
    lists = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    each, start = [], 0
    for n in sizes:
        own = scores[start : start + n].double()
        each.append(float(own.logsumexp(0) - own[0]))  # the first of each list is the relevant one
        start += n
    close(losses.listwise(scores, relevance, lists), float(np.mean(each)))


def test_binary() -> None:
    scores, relevance = vectors(0, 7), (vectors(1, 7) > 0).float()
    chance = scores.double().sigmoid()
    each = -(relevance * chance.log() + (1 - relevance) * (1 - chance).log())
    close(losses.binary(scores, relevance), float(each.mean()))
