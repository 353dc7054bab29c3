"""sequential-sentence-classification: a token head read at the separators, cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from headway.core.errors import CheckpointError, DataError
from headway.core.progress import Progress
from headway.core.tasks import Output, Spec
from headway.core.tasks import sequential_sentence_classification as task
from headway.core.tasks.sequential_sentence_classification import Example, Settings
from headway.train import encoder
from headway.train.batches import forward
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"class_weights", "label_smoothing"})


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    labels = sorted({label for e in examples for label in e.labels or ()})
    if len(labels) < 2:
        raise DataError(f"has {len(labels)} label; training needs two or more", file=str(options.train))
    separator = tokenizer.sep_token or tokenizer.eos_token
    if separator is None:
        raise CheckpointError(options.name, "its tokenizer has no token that could follow each sentence")
    return Spec(labels, options.max_length, Settings(separator=separator, opening=tokenizer.cls_token))


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    return encoder.pretrained(AutoModelForTokenClassification, name, spec.labels, options is not None)


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    prepared = encoder.inputs(rows)
    place = {label: i for i, label in enumerate(spec.labels)}
    for row, features in zip(rows, prepared, strict=True):
        targets = [encoder.IGNORED] * len(row.ids)
        for sentence, separator in row.marks:
            targets[separator] = place[(examples[row.example].labels or ())[sentence]]
        features["token_labels"] = targets
    return Prepared(prepared, encoder.count_cut(rows))


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    return encoder.Collator(tokenizer)


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    weights = None
    if options.class_weights == "balanced":
        weights = encoder.balanced([label for e in examples for label in e.labels or ()], spec.labels)

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = inputs.pop("labels")
        return encoder.cross_entropy(forward(model, inputs), targets, weights, options.label_smoothing)

    return loss


def infer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    spec: Spec,
    progress: Progress,
) -> list[Output]:
    return encoder.run(model, task.rows(examples, tokenizer.backend_tokenizer, spec), tokenizer, progress)


save = encoder.save
