"""text-classification: the model's own pooled head, cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from headway.core.tasks.text_classification import Example
from headway.train.tasks.base import Features


def head(model: str, labels: Sequence[str]) -> PreTrainedModel:
    opened: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        model,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
    )
    return opened


def features(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    max_length: int,
) -> list[Features]:
    encoded = tokenizer([e.text for e in examples], truncation=True, max_length=max_length)
    rows: list[Features] = [{k: encoded[k][i] for k in encoded} for i in range(len(examples))]
    place = {label: i for i, label in enumerate(labels)}
    for row, example in zip(rows, examples, strict=True):
        if example.label is not None:
            row["labels"] = place[example.label]
    return rows


def collator(tokenizer: PreTrainedTokenizerBase) -> Any:
    return DataCollatorWithPadding(tokenizer)


def loss(outputs: Any, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs.logits.float(), targets, weight=weights)


def outputs(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"logits": logits, "probabilities": torch.softmax(logits.float(), dim=-1)}
