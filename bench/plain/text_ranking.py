"""Plain re-ranking (sentence-transformers' CrossEncoder with binary cross-entropy).

Options: candidates, a list of {"query", "passages", "relevant": [0 or 1, ...], "n_relevant" (their sum)}.
Test records are not used.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from headway.bench.plain import base

DEPTH = 10


def run(setting: base.Setting) -> dict[str, float]:
    """ndcg_at_10, mrr_at_10 over the candidate lists."""
    base.start(setting)
    model = CrossEncoder(setting.model, num_labels=1, max_length=setting.max_length, device="cpu")
    rows = [{"query": r["query"], "passage": r["passage"], "label": float(r["label"])} for r in setting.train]
    base.fit(
        setting,
        model,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        train_dataset=Dataset.from_list(rows),
        loss=BinaryCrossEntropyLoss(model),
    )
    ranked = [_ranked(model, entry) for entry in setting.options["candidates"]]
    totals = [e.get("n_relevant", sum(e["relevant"])) for e in setting.options["candidates"]]
    return {
        "ndcg_at_10": fmean(_ndcg(r, total) for r, total in zip(ranked, totals, strict=True)),
        "mrr_at_10": fmean(map(_reciprocal_rank, ranked)),
    }


def _ranked(model: CrossEncoder, entry: dict[str, Any]) -> NDArray[np.float64]:
    """Relevance of the candidates, best first."""
    pairs = [(entry["query"], passage) for passage in entry["passages"]]
    scores = model.predict(pairs, batch_size=base.BATCH, show_progress_bar=False)
    return np.asarray(entry["relevant"], float)[np.argsort(-scores, kind="stable")]


def _ndcg(ranked: NDArray[np.float64], total: int) -> float:
    """Gain over that of a list which begins with all `total` relevant passages; 0 if there are none."""
    discount = 1 / np.log2(np.arange(DEPTH) + 2)
    top = ranked[:DEPTH]
    return float(top @ discount[: len(top)] / discount[:total].sum()) if total else 0.0


def _reciprocal_rank(ranked: NDArray[np.float64]) -> float:
    hits = np.flatnonzero(ranked[:DEPTH])
    return 1 / (int(hits[0]) + 1) if len(hits) else 0.0
