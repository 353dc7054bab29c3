"""sequential-sentence-classification: a token head read at the separators or over each sentence, cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from headway.core.errors import CheckpointError, DataError, UsageError
from headway.core.tasks import Spec
from headway.core.tasks import sequential_sentence_classification as task
from headway.core.tasks.sequential_sentence_classification import Example, Settings
from headway.train import encoder
from headway.train.batches import forward
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"class_weights", "label_smoothing", "pooling"})


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
    if options.pooling not in ("auto", "mean"):
        raise UsageError(
            "--pooling", "is auto (the separator's vector) or mean (of a sentence's tokens) here"
        )
    settings = Settings(
        separator=separator,
        opening=tokenizer.cls_token,
        pooling="mean" if options.pooling == "mean" else "separator",
    )
    return Spec(labels, options.max_length, settings)


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
    mean = spec.settings.pooling == "mean"
    for row, features in zip(rows, prepared, strict=True):
        gold = examples[row.example].labels or ()
        features["sentences"] = [(first if mean else last, last + 1) for _, first, last in row.marks]
        features["targets"] = [place[gold[sentence]] for sentence, _, _ in row.marks]
    return Prepared(prepared, encoder.count_cut(rows))


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    pad = encoder.Collator(tokenizer)

    def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """With `shares` (B, S, T): the weight of each token in each sentence; and targets (B, S)."""
        batch = pad(rows)
        most = max(len(row["targets"]) for row in rows)
        shares = torch.zeros(len(rows), most, batch["input_ids"].shape[1])
        for r, row in enumerate(rows):
            for s, (begin, end) in enumerate(row["sentences"]):
                shares[r, s, begin:end] = 1 / (end - begin)
        targets = encoder.padded([row["targets"] for row in rows], encoder.IGNORED)
        return batch | {"shares": shares, "targets": targets}

    return together


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    weights = None
    if options.class_weights == "balanced":
        weights = encoder.balanced([label for e in examples for label in e.labels or ()], spec.labels)

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets, shares = inputs.pop("targets"), inputs.pop("shares")
        logits = shares @ forward(model, inputs).float()  # (B, S, T) and (B, T, C) to (B, S, C)
        return encoder.cross_entropy(logits, targets, weights, options.label_smoothing)

    return loss


infer = encoder.inference(task)

save = encoder.save


def outputs(said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
    """Probabilities are of sentences, which the graph does not know."""
    return {"logits": said.logits.float()}
