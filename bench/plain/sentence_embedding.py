"""Plain sentence embeddings (sentence-transformers): mean pooling, unit length.

Options: scale (5.0) of the scores; loss "mnr" or "triplet", margin (0.2), for anchors and positives;
corpus, queries, qrels (records as in squad_retrieval) to test retrieval.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)
from sentence_transformers.sentence_transformer.losses import (
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from headway.bench.plain import base


def run(setting: base.Setting) -> dict[str, float]:
    """spearman, pearson | triplet_accuracy; recall_at_10, mrr_at_10, ndcg_at_10; all also before_ training."""
    base.start(setting)
    transformer = Transformer(setting.model, max_seq_length=setting.max_length)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    before = _metrics(model, setting)
    loss, unique = _loss(model, setting)
    base.fit(
        setting,
        model,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        {"batch_sampler": "no_duplicates" if unique else "batch_sampler"},
        train_dataset=Dataset.from_list(_rows(setting)),
        loss=loss,
    )
    return _metrics(model, setting) | {f"before_{name}": value for name, value in before.items()}


def _loss(model: SentenceTransformer, setting: base.Setting) -> tuple[Any, bool]:
    """The loss, and whether a batch must not hold a text twice: it would be its own negative."""
    if "score" in setting.train[0]:
        return CosineSimilarityLoss(model), False
    if setting.options.get("loss", "mnr") == "mnr":
        return MultipleNegativesRankingLoss(model), True
    margin = setting.options.get("margin", 0.2)
    return TripletLoss(model, TripletDistanceMetric.COSINE, margin), False


def _rows(setting: base.Setting) -> list[dict[str, Any]]:
    """Columns in the order that the losses want."""
    if "score" in setting.train[0]:
        scale = setting.options.get("scale", 5.0)
        return [
            {"text1": r["text1"], "text2": r["text2"], "score": r["score"] / scale} for r in setting.train
        ]
    names = [n for n in ("anchor", "positive", "negative") if n in setting.train[0]]
    return [{name: r[name] for name in names} for r in setting.train]


def _metrics(model: SentenceTransformer, setting: base.Setting) -> dict[str, float]:
    model.eval()
    metrics = _pair_metrics(model, setting.test) if setting.test else {}
    if "corpus" in setting.options:
        metrics |= _retrieval_metrics(model, setting)
    return metrics


def _pair_metrics(model: SentenceTransformer, test: list[dict[str, Any]]) -> dict[str, float]:
    how: dict[str, Any] = {"similarity_fn_names": ["cosine"], "batch_size": base.BATCH, "write_csv": False}
    if "score" in test[0]:
        text1, text2, scores = ([r[name] for r in test] for name in ("text1", "text2", "score"))
        found = EmbeddingSimilarityEvaluator(text1, text2, scores, **how)(model)
        return {name: float(found[f"{name}_cosine"]) for name in ("pearson", "spearman")}
    if "negative" not in test[0]:
        return {}
    anchors, positives, negatives = ([r[name] for r in test] for name in ("anchor", "positive", "negative"))
    found = TripletEvaluator(anchors, positives, negatives, **how)(model)
    return {"triplet_accuracy": float(found["cosine_accuracy"])}


def _retrieval_metrics(model: SentenceTransformer, setting: base.Setting) -> dict[str, float]:
    """Over the queries that have a relevant document."""
    relevant: dict[str, set[str]] = {}
    for row in setting.options["qrels"]:
        if row["relevance"] > 0:
            relevant.setdefault(row["query_id"], set()).add(row["doc_id"])
    found = InformationRetrievalEvaluator(
        {r["id"]: r["text"] for r in setting.options["queries"]},
        {r["id"]: r["text"] for r in setting.options["corpus"]},
        relevant,
        batch_size=base.BATCH,
        write_csv=False,
    )(model)
    return {f"{name}_at_10": float(found[f"cosine_{name}@10"]) for name in ("recall", "mrr", "ndcg")}
