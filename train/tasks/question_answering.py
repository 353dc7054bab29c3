"""question-answering: a start and end head, cross-entropy over the tokens of each window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerBase

from headway.core import offsets
from headway.core.errors import DataError, UsageError
from headway.core.tasks import Row, Spec
from headway.core.tasks import question_answering as task
from headway.core.tasks.question_answering import Example, Settings
from headway.train import encoder
from headway.train.batches import forward
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"stride"})
SHORTEST = 32
"""tokens that a question and a part of its context need"""
DROPPED = "answers of which the tokenizer makes no token"
LONGER_THAN_WINDOW = "answers longer than a window (--max-length)"
LONGER_THAN_OVERLAP = (
    "answers longer than what neighbouring windows share: trained in windows of their own, but predictions may cut them "
    "(--stride)"
)
INSIDE_TOKEN = "answers that begin or end inside a token: trained as whole tokens"
LONGER_THAN_PREDICTED = "answers of more than {} tokens, which predictions have only with longest_answer"
LOST = frozenset({DROPPED, LONGER_THAN_WINDOW})
"""reasons for which an answer is not trained at all"""

Window = tuple[Row, int, int]
"""one of the windows of a context, and the first and last token of the answer in it, or 0 and 0"""


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    if options.max_length < SHORTEST:
        raise UsageError("--max-length", f"is {options.max_length}; question and context need {SHORTEST}")
    offsets.check("question-answering", options.name, tokenizer.backend_tokenizer, examples)
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
    """Windows without the answer are trained towards their first token, which says that there is none.

    An answer that is longer than what neighbouring windows share has a window of its own. Raises DataError if no
    answer can be learnt from.
    """
    backend = tokenizer.backend_tokenizer
    rows = task.rows(examples, backend, spec)
    targets = [task.target(examples[row.example], row) for row in rows]
    windows: list[list[int]] = [[] for _ in examples]
    for place, row in enumerate(rows):
        windows[row.example].append(place)
    counts = Counter[str]()
    answered = learnt = 0
    for number, example in enumerate(examples):
        if not example.answers:
            continue
        answered += 1
        own = [(rows[place], *targets[place]) for place in windows[number]]
        reasons, further = _judge(example, number, own, backend, spec)
        counts.update(reasons)
        learnt += not LOST.intersection(reasons)
        if further is not None and len(own) == 1:
            targets[windows[number][0]] = further[1:]  # the same window
        elif further is not None:
            rows.append(further[0])
            targets.append(further[1:])
    if answered and not learnt:
        reason = max(LOST, key=lambda lost: counts[lost])
        raise DataError(f"none of its {answered} answers can be learnt: {reason}", file=str(options.train))
    prepared = encoder.inputs(rows)
    for target, features in zip(targets, prepared, strict=True):
        features["labels"] = list(target)
    return Prepared(prepared, encoder.count_cut(rows) | dict(counts))


def _judge(
    example: Example, number: int, windows: Sequence[Window], tokenizer: Any, spec: Spec
) -> tuple[list[str], Window | None]:
    """What is to be told of an example's first answer, and a window of its own where no other has all of it."""
    found = next((window for window in windows if window[1:] != (0, 0)), None)
    reasons: list[str] = []
    further = None
    if found is None:
        if not any(task.has_token(example, row) for row, _, _ in windows):
            return [DROPPED], None
        found = further = task.answer_row(example, number, tokenizer, spec)
        if found is None:
            return [LONGER_THAN_WINDOW], None
        if len(windows) > 1:
            reasons.append(LONGER_THAN_OVERLAP)
    row, first, last = found
    if task.ends_inside_token(example, row, first, last):
        reasons.append(INSIDE_TOKEN)
    if last + 1 - first > spec.settings.max_answer_tokens:
        reasons.append(LONGER_THAN_PREDICTED.format(spec.settings.max_answer_tokens))
    return reasons, further


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
