"""text-classification: one text in, one of several labels out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.data import Record

METRIC = "accuracy"
OUTPUTS = ("logits", "probabilities")


@dataclass(frozen=True)
class Example:
    text: str
    label: str | None
    id: Any
    record: Record


@dataclass(frozen=True)
class Result:
    label: str
    """the most probable label"""
    score: float
    """its probability"""
    scores: dict[str, float]
    """every label's probability"""
    truncated: bool = False
    """True if the text was longer than the model and its end was cut off"""


def read(record: Record, labelled: bool) -> Example:
    label = record.text("label") if labelled else None
    return Example(record.text("text"), label, record.fields.get("id"), record)


def labels(examples: Iterable[Example]) -> list[str]:
    return sorted({e.label for e in examples if e.label is not None})


def check(example: Example, labels: Sequence[str]) -> None:
    if example.label not in labels:
        raise example.record.error(f"unknown label '{example.label}'; known: {', '.join(labels)}", "label")


def inputs(example: Example) -> str:
    return example.text


def decode(outputs: Mapping[str, NDArray[np.float32]], labels: Sequence[str]) -> list[Result]:
    probabilities = outputs["probabilities"]  # (B, C)
    best = probabilities.argmax(axis=-1)  # (B)
    return [
        Result(labels[i], float(row[i]), dict(zip(labels, row.tolist(), strict=True)))
        for i, row in zip(best, probabilities, strict=True)
    ]


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels that occur in gold or prediction, each counting the same."""
    gold = np.array([e.label for e in examples])
    said = np.array([r.label for r in results])
    f1 = [
        2 * np.sum((gold == c) & (said == c)) / (np.sum(gold == c) + np.sum(said == c))
        for c in np.union1d(gold, said)
    ]
    return {"accuracy": float(np.mean(gold == said)), "macro_f1": float(np.mean(f1))}
