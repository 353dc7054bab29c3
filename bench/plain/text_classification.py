"""Plain text classification (run_glue): single-label, multi-label, or regression, found from the fields.

No options.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from headway.bench.plain import base

KINDS = {
    "label": "single_label_classification",
    "labels": "multi_label_classification",
    "score": "regression",
}
"""field of the answer → the model's `problem_type`"""


def run(setting: base.Setting) -> dict[str, float]:
    """accuracy, macro_f1 | micro_f1, macro_f1 (threshold 0.5) | pearson, spearman."""
    tokenizer = base.start(setting)
    field = next(f for f in KINDS if f in setting.train[0])
    labels = _labels(setting.train, field)
    model = AutoModelForSequenceClassification.from_pretrained(
        setting.model, num_labels=max(1, len(labels)), problem_type=KINDS[field]
    )
    collator = DataCollatorWithPadding(tokenizer)
    train = _features(tokenizer, setting.train, setting.max_length)
    for feature, record in zip(train, setting.train, strict=True):
        feature["labels"] = _target(record[field], field, labels)
    base.fit(setting, model, train_dataset=train, data_collator=collator)
    rows = base.predict(model, _features(tokenizer, setting.test, setting.max_length), collator)
    return _metrics([r[field] for r in setting.test], np.stack(rows), field, labels)


def _labels(records: list[dict[str, Any]], field: str) -> list[str]:
    if field == "score":
        return []
    if field == "label":
        return sorted({str(r["label"]) for r in records})
    return sorted({str(label) for r in records for label in r["labels"]})


def _features(tokenizer: Any, records: list[dict[str, Any]], max_length: int) -> base.Features:
    fields = ["text"] if "text" in records[0] else ["text1", "text2"]
    texts = [[r[f] for r in records] for f in fields]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    return [{name: encoded[name][i] for name in encoded} for i in range(len(records))]


def _target(answer: Any, field: str, labels: list[str]) -> int | float | list[float]:
    if field == "score":
        return float(answer)
    if field == "label":
        return labels.index(str(answer))
    return [float(label in map(str, answer)) for label in labels]


def _metrics(answers: list[Any], logits: NDArray[Any], field: str, labels: list[str]) -> dict[str, float]:
    """Of logits (B, L). Labels that only the test set has count as missed."""
    if field == "score":
        scores = logits[:, 0]
        return {
            "pearson": float(pearsonr(answers, scores).statistic),
            "spearman": float(spearmanr(answers, scores).statistic),
        }
    if field == "label":
        truth, predicted = [str(a) for a in answers], [labels[i] for i in logits.argmax(-1)]
        return {
            "accuracy": float(accuracy_score(truth, predicted)),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
        }
    true_sets = [{str(label) for label in a} for a in answers]
    sets = [{labels[i] for i in np.flatnonzero(row > 0)} for row in logits]  # sigmoid(0) = 0.5
    binarizer = MultiLabelBinarizer(classes=sorted(set(labels).union(*true_sets)))
    truth, predicted = binarizer.fit_transform(true_sets), binarizer.transform(sets)
    return {
        f"{average}_f1": float(f1_score(truth, predicted, average=average, zero_division=0))
        for average in ("micro", "macro")
    }
