"""question-answering: a start and end head, cross-entropy over the tokens of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerBase

from headway.core.errors import UsageError
from headway.core.tasks import Spec
from headway.core.tasks import question_answering as task
from headway.core.tasks.question_answering import Example, Settings
from headway.train import encoder
from headway.train.batches import forward
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"stride"})
SHORTEST = 32
"""tokens that a question and a part of its context need"""


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    if options.max_length < SHORTEST:
        raise UsageError("--max-length", f"is {options.max_length}; question and context need {SHORTEST}")
    settings = Settings(unanswerable=not all(e.answers for e in examples))
    if options.stride is not None:
        settings = Settings(unanswerable=settings.unanswerable, stride=options.stride)
    return Spec([], options.max_length, settings)


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    return encoder.pretrained(AutoModelForQuestionAnswering, name, None, options is not None)


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    """Windows without the answer are trained towards their first token, which says that there is none."""
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    prepared = encoder.inputs(rows)
    found = set()
    for row, features in zip(rows, prepared, strict=True):
        features["labels"] = list(task.target(examples[row.example], row))
        if features["labels"] != [0, 0]:
            found.add(row.example)
    lost = sum(bool(e.answers) and i not in found for i, e in enumerate(examples))
    counts = {"answers longer than any window": lost} if lost else {}
    return Prepared(prepared, encoder.count_cut(rows) | counts)


collate = encoder.Collator


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = inputs.pop("labels")  # (B, 2)
        mask = inputs["attention_mask"][:, :, None].bool()
        logits = forward(model, inputs, _both).float().masked_fill(~mask, -1e30)  # (B, T, 2)
        return torch.nn.functional.cross_entropy(logits, targets)

    return loss


def _both(outputs: Any) -> torch.Tensor:
    return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)


infer = encoder.inference(task, _both)

save = encoder.save


def outputs(said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
    """Probabilities are of answers, which the graph does not know."""
    return {"start_logits": said.start_logits.float(), "end_logits": said.end_logits.float()}
