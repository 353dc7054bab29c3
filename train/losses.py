"""Losses of embeddings and of ranking, each on the vectors or scores of one batch."""

from __future__ import annotations

import torch
from torch.nn import functional


def cosines(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(B, D) and (B, D) to (B)."""
    return functional.cosine_similarity(u, v, dim=-1)


def triplet(
    anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: float
) -> torch.Tensor:
    """max(0, d(a, p) - d(a, n) + margin) with d = 1 - cosine (Schroff et al. 2015)."""
    return functional.relu(cosines(anchor, negative) - cosines(anchor, positive) + margin).mean()


def contrastive(u: torch.Tensor, v: torch.Tensor, same: torch.Tensor, margin: float) -> torch.Tensor:
    """d² / 2 for what is the same, max(0, margin - d)² / 2 for what is not (Hadsell et al. 2006)."""
    distance = 1 - cosines(u, v)
    apart = functional.relu(margin - distance)
    return 0.5 * (same * distance**2 + (1 - same) * apart**2).mean()


def cosine(u: torch.Tensor, v: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """Mean square of cosine - score, scores from 0 to 1 (Reimers & Gurevych 2019)."""
    return functional.mse_loss(cosines(u, v), score)


def multiple_negatives(
    anchor: torch.Tensor, others: torch.Tensor, same: torch.Tensor, scale: float
) -> torch.Tensor:
    """Cross-entropy of the own positive among all others of the batch (Henderson et al. 2017).

    Args:
        anchor: (B, D).
        others: (M, D), of which the first B are the anchors' own positives in order; the rest are negatives.
        same: (B, M) True where another's text is right for the anchor as well, and is no negative then.
        scale: factor of the cosines.
    """
    similar = functional.normalize(anchor, dim=-1) @ functional.normalize(others, dim=-1).T * scale
    own = torch.arange(len(anchor), device=anchor.device)
    keep = functional.one_hot(own, len(others)).bool()
    similar = similar.masked_fill(same & ~keep, float("-inf"))
    return functional.cross_entropy(similar, own)


def pair_softmax(
    u: torch.Tensor, v: torch.Tensor, target: torch.Tensor, classifier: torch.nn.Module
) -> torch.Tensor:
    """Cross-entropy of a classifier over (u, v, |u - v|) (Reimers & Gurevych 2019)."""
    return functional.cross_entropy(classifier(torch.cat([u, v, (u - v).abs()], dim=-1)), target)


def binary(scores: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy; scores are logits, relevance is from 0 to 1."""
    return functional.binary_cross_entropy_with_logits(scores, relevance)


def listwise(scores: torch.Tensor, relevance: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between relevance and softmax of the scores within each list (ListNet, Cao et al. 2007).

    Args:
        scores, relevance: (N) over all lists of the batch.
        lists: (N) number of the list that each belongs to.
    """
    losses = []
    for one in torch.unique(lists):
        own = lists == one
        wanted = relevance[own] / relevance[own].sum().clamp(min=1e-9)
        losses.append(-(wanted * scores[own].log_softmax(0)).sum())
    return torch.stack(losses).mean()
