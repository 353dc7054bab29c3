"""text-ranking: a cross-encoder with one score, binary or listwise loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from headway.core import gold
from headway.core.errors import UsageError
from headway.core.tasks import Spec
from headway.core.tasks import text_ranking as task
from headway.core.tasks.text_ranking import Example, Settings
from headway.train import encoder, losses
from headway.train.batches import forward
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"loss"})
FORMS = {"listwise": ("positive",), "binary": ("passage",)}
"""which form each loss reads of records that carry both"""


def wanted_gold(options: TrainOptions, training: Sequence[Example]) -> tuple[str, ...]:
    """The form that --loss reads; of held-out records that of the training examples."""
    if training:
        return ("positive",) if len(training[0].passages) > 1 else ("passage",)
    return FORMS.get(options.loss, ())


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    task.uniform(examples)
    task.uniform(held_out)
    if options.loss not in ("auto", "binary", "listwise"):
        raise UsageError("--loss", f"'{options.loss}' is not one of ranking: binary, listwise")
    if options.loss == "listwise" and all(len(e.passages) == 1 for e in examples):
        raise UsageError(
            "--loss", "listwise wants lists: records with positive and negatives, or a collection"
        )
    return Spec([], options.max_length, Settings())


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    return encoder.pretrained(AutoModelForSequenceClassification, name, ["score"], options is not None)


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    """A list is one row of several inputs, so that its passages are in one batch."""
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    prepared: list[dict[str, Any]] = [{"list": []} for _ in examples]
    for row, features in zip(rows, encoder.inputs(rows), strict=True):
        features["labels"] = (examples[row.example].gold or ())[len(prepared[row.example]["list"])]
        prepared[row.example]["list"].append(features)
    alone = sum(len(e.passages) == 1 and e.form != "passage" for e in examples)
    counts = {"without a passage that is not relevant": alone} if alone else {}
    if options.loss == "auto" and "positive" in task.gold_kinds(examples[0].record):
        counts |= gold.unread(task, examples, "positive", "--loss decides")
    return Prepared(prepared, encoder.count_cut(rows) | counts)


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    pad = encoder.Collator(tokenizer)

    def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = pad(list(chain.from_iterable(row["list"] for row in rows)))
        sizes = torch.tensor([len(row["list"]) for row in rows])
        return batch | {"lists": torch.repeat_interleave(torch.arange(len(rows)), sizes)}

    return together


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        relevance, lists = inputs.pop("labels").float(), inputs.pop("lists")
        scores = forward(model, inputs)[:, 0].float()
        if options.loss == "listwise":
            return losses.listwise(scores, relevance, lists)
        return losses.binary(scores, relevance)

    return loss


infer = encoder.inference(task)

save = encoder.save


def outputs(said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
    """A score without an activation is no probability: it stands in both outputs."""
    logits = said.logits.float()
    if spec.settings.activation_fn == "identity":
        return {"logits": logits, "probabilities": logits.clone()}
    return {"logits": logits, "probabilities": torch.sigmoid(logits / temperature)}
