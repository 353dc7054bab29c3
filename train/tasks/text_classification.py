"""text-classification: one label (cross-entropy), several (binary cross-entropy), or a score (squared error)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from headway.core import gold
from headway.core.errors import DataError, UsageError
from headway.core.tasks import Spec
from headway.core.tasks import text_classification as task
from headway.core.tasks.text_classification import Example, Settings
from headway.train import encoder
from headway.train.batches import forward
from headway.train.heads import Pooled
from headway.train.options import TrainOptions, numbers
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset(
    {"class_weights", "few_shot", "label_smoothing", "pooling", "problem_type", "score_range"}
)
PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
"""what transformers calls each kind"""


def wanted_gold(options: TrainOptions, training: Sequence[Example]) -> tuple[str, ...]:
    """The kind that --problem-type asks for; of held-out records that of the training examples."""
    if training:
        return (training[0].kind,)
    return tuple(kind for kind, name in PROBLEMS.items() if name == options.problem_type)


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    task.uniform(examples)
    kind, declared = examples[0].kind, numbers("--score-range", options.score_range)
    if options.problem_type not in ("auto", PROBLEMS[kind]):
        raise UsageError(
            "--problem-type", f"'{options.problem_type}' is not for this data, which has '{task.GOLD[kind]}'"
        )
    if kind != "single" and (options.class_weights != "none" or options.label_smoothing):
        raise UsageError("--class-weights", "and --label-smoothing are for data with one label each")
    if declared and (kind != "regression" or len(declared) != 2 or declared[0] >= declared[1]):
        raise UsageError("--score-range", "wants the lowest and the highest score, for data with scores")
    if kind != "single" and options.few_shot:
        raise UsageError("--few-shot", "is for data with one label each")
    for example in examples:
        if kind == "regression":
            task.check_score(example, declared)
    labels = sorted({label for e in examples for label in _labels(e)})
    if kind != "regression" and len(labels) < 2:
        raise DataError(f"has {len(labels)} label; training needs two or more", file=str(options.train))
    settings = Settings(
        kind=kind,  # type: ignore[arg-type]
        pair=examples[0].pair is not None,
        pooling=_pooling(options),
        score_range=declared,
    )
    return Spec(labels, options.max_length, settings)


def _pooling(options: TrainOptions) -> Any:
    """The mean is what sentence encoders are trained with."""
    automatic = "mean" if options.few_shot else "model"
    return automatic if options.pooling == "auto" else options.pooling


def _labels(example: Example) -> Sequence[str]:
    answer = example.gold
    return [answer] if isinstance(answer, str) else answer if isinstance(answer, tuple) else []


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    settings: Settings = spec.settings
    fresh = options is not None
    if settings.pooling == "model":
        labels = spec.labels or ["score"]
        problem = {} if settings.kind == "single" else {"problem_type": PROBLEMS[settings.kind]}
        return encoder.pretrained(AutoModelForSequenceClassification, name, labels, fresh, **problem)
    body = encoder.pretrained(AutoModel, name, None, fresh)
    model = Pooled(body, settings.pooling, classes=max(1, len(spec.labels)))
    if not fresh:
        model.load_head(Path(name))
    return model


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
    for row, example in zip(prepared, examples, strict=True):
        answer = example.gold
        if isinstance(answer, str):
            row["labels"] = place[answer]
        elif isinstance(answer, tuple):
            row["labels"] = [float(label in answer) for label in spec.labels]
        else:
            row["labels"] = float(answer or 0)
    if spec.settings.kind == "regression":
        _begin_at_mean(model, [row["labels"] for row in prepared])
    unread = {}
    if options.problem_type == "auto":
        unread = gold.unread(task, examples, examples[0].kind, "--problem-type decides")
    return Prepared(prepared, encoder.count_cut(rows) | unread)


def _begin_at_mean(model: Any, scores: Sequence[float]) -> None:
    """Set the head's bias to the mean score, so that no step is spent on finding it."""
    heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1]
    if heads and heads[-1].bias is not None:
        with torch.no_grad():
            heads[-1].bias.fill_(sum(scores) / len(scores))


collate = encoder.Collator


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    kind = spec.settings.kind
    weights = None
    if options.class_weights == "balanced":
        weights = encoder.balanced([str(e.gold) for e in examples], spec.labels)

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = inputs.pop("labels")
        logits = forward(model, inputs).float()
        if kind == "single":
            return encoder.cross_entropy(logits, targets, weights, options.label_smoothing)
        if kind == "multi":
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
        return torch.nn.functional.mse_loss(logits[:, 0], targets.float())

    return loss


infer = encoder.inference(task)

save = encoder.save


def outputs(said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
    """A score has no probability: it stands in both outputs."""
    logits = said.logits.float()
    kind: str = spec.settings.kind
    if kind == "regression":
        sigmoid = spec.settings.activation_fn == "sigmoid"
        return {"logits": logits, "probabilities": torch.sigmoid(logits) if sigmoid else logits.clone()}
    chances = torch.sigmoid if kind == "multi" else partial(torch.softmax, dim=-1)
    return {"logits": logits, "probabilities": chances(logits / temperature)}
