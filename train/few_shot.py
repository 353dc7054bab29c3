"""The first phase of training from few examples (SetFit, Tunstall et al. 2022): a contrastive loss teaches the body that
texts with the same label are alike; then the classification head is fitted by logistic regression."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainingArguments

from headway.core.errors import UsageError
from headway.core.progress import Progress
from headway.train import adapt
from headway.train.batches import forward
from headway.train.options import TrainOptions

Row = dict[str, Any]
Collate = Callable[[list[Row]], dict[str, Any]]

# The values below were tried on one draw of 8 examples a class of banking77, by half of its test texts, a handful of runs.
TEMPERATURE = 0.07
"""divides the cosines in the loss"""
PASSES = 5
"""over the examples, where that is between the two numbers of steps below"""
LEAST_STEPS, MOST_STEPS = 60, 600
PAIRS = 16
"""of texts with the same label in a step"""
LEARNING_RATE = 5e-5
"""peak, after a rise over `WARMUP` of the steps"""
WARMUP = 0.1
EMBEDDED = 64
"""texts in one pass when the head is fitted"""
ITERATIONS = 300
"""of L-BFGS, at most"""


def train(
    model: Any,
    rows: Sequence[Row],
    collate: Collate,
    labels: Sequence[str],
    args: TrainingArguments,
    options: TrainOptions,
    progress: Progress,
) -> None:
    """Train the body by the contrastive loss, then fit the head, in place.

    Args:
        model: with a linear classification head over one vector a text.
        rows: as the collator takes them; "labels" is the place of each one's label.
        collate: pads a list of rows.
        labels: names of the labels.
        args: device and precision.
        options: learning rates of layers, weight decay, seed.
        progress: wraps the steps.

    Raises UsageError where no label has two examples, or nothing of the body is trained.
    """
    targets = [int(row["labels"]) for row in rows]
    if len(set(targets)) == len(targets):
        raise UsageError("--few-shot", "compares examples of the same label, but each label has only one")
    encoder = Encoder(model, len(labels))
    model.to(args.device)
    model.train()
    _draw_together(encoder, rows, targets, collate, args, options, progress)
    vectors = encoder.encode(rows, collate)
    fit_head(encoder.head, vectors, torch.tensor(targets, device=vectors.device))


class Encoder:
    """A classification model as a sentence encoder: its vectors are what its head reads."""

    def __init__(self, model: Any, classes: int) -> None:
        """Raises UsageError where the model has no linear head for so many classes."""
        self.model = model
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == classes]
        if not linear:
            raise UsageError("--few-shot", "the model's own head is not linear; add --pooling mean")
        self.head = linear[-1]

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, D) of a padded batch."""
        seen: list[torch.Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
        try:
            vectors = forward(self.model, inputs, lambda _: seen.pop())
        finally:
            hook.remove()
        if vectors.ndim != 2:
            raise UsageError("--few-shot", "the model's own head reads every token; add --pooling mean")
        return vectors

    def encode(self, rows: Sequence[Row], collate: Collate) -> torch.Tensor:
        """(N, D) of all rows, without dropout."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        self.model.train(False)
        with torch.no_grad():
            for begin in range(0, len(order), EMBEDDED):
                part = order[begin : begin + EMBEDDED]
                for i, vector in zip(part, self(_inputs(rows, part, collate, self._device)), strict=True):
                    found[i] = vector
        self.model.train()
        return torch.stack(found)

    @property
    def _device(self) -> torch.device:
        return self.head.weight.device


def _inputs(
    rows: Sequence[Row], part: Sequence[int], collate: Collate, device: torch.device
) -> dict[str, torch.Tensor]:
    batch = collate([rows[i] for i in part])
    return {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}


def _draw_together(
    encoder: Encoder,
    rows: Sequence[Row],
    targets: Sequence[int],
    collate: Collate,
    args: TrainingArguments,
    options: TrainOptions,
    progress: Progress,
) -> None:
    """Train the body by the contrastive loss of batches that are made of pairs."""
    similar = centroid_cosines(encoder.encode(rows, collate), targets, encoder.head.out_features)
    batches = schedule(targets, similar, options.seed)
    head = {id(p) for p in encoder.head.parameters()}
    decaying = {name for name, p in encoder.model.named_parameters() if p.ndim > 1}
    groups = adapt.parameter_groups(
        encoder.model, decaying, options.weight_decay, LEARNING_RATE, options.layer_decay
    )
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in head]
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups)
    rise = max(1, round(WARMUP * len(batches)))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (len(batches) - step) / (len(batches) - rise + 1))
    )
    kind = torch.float16 if args.fp16 else torch.bfloat16
    scaler = torch.amp.GradScaler(args.device.type, enabled=args.fp16)
    for part in progress(batches, "contrastive training", len(batches)):
        with torch.autocast(args.device.type, kind, enabled=args.bf16 or args.fp16):
            vectors = encoder(_inputs(rows, part, collate, args.device))
        if not vectors.requires_grad:  # what is not frozen, as BERT's pooler, may not be read
            raise UsageError(
                "--few-shot", f"trains the body, of which --freeze {options.freeze} leaves nothing"
            )
        loss = supervised_contrastive(vectors, torch.tensor([targets[i] for i in part], device=args.device))
        optimizer.zero_grad()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        rates.step()
    optimizer.zero_grad()


def centroid_cosines(vectors: torch.Tensor, targets: Sequence[int], classes: int) -> torch.Tensor:
    """(N, D) vectors and their labels to (C, C): cosines of the labels' mean unit vectors."""
    given = functional.one_hot(torch.tensor(targets, device=vectors.device), classes).float()  # (N, C)
    means = functional.normalize(given.T @ functional.normalize(vectors, dim=-1), dim=-1)
    return (means @ means.T).cpu()


def schedule(targets: Sequence[int], similar: torch.Tensor, seed: int) -> list[list[int]]:
    """Places of the examples of each step.

    In each pass over the data every example comes once. Examples with the same label are paired at random. A step has the
    pairs of a random label and of those most like it, one of each label in turn: a pretrained body tells the others
    apart already.

    Args:
        targets: the label of each example.
        similar: (C, C) how alike two labels are.
        seed: of all that is random.
    """
    chance = random.Random(seed)
    wanted = min(max(math.ceil(PASSES * len(targets) / (2 * PAIRS)), LEAST_STEPS), MOST_STEPS)
    nearest = [row.argsort(descending=True).tolist() for row in similar]
    steps: list[list[int]] = []
    while len(steps) < wanted:
        waiting = _pairs(targets, len(nearest), chance)
        one_pass = []
        while any(waiting):
            first = chance.choice([label for label, pairs in enumerate(waiting) for _ in pairs])
            one_pass.append([i for pair in _chosen(waiting, nearest[first]) for i in pair])
        chance.shuffle(one_pass)
        steps += one_pass
    return steps[:wanted]


def _pairs(targets: Sequence[int], classes: int, chance: random.Random) -> list[list[list[int]]]:
    """Of each label its examples in pairs, and where their number is odd one alone."""
    by_label: list[list[int]] = [[] for _ in range(classes)]
    for i, target in enumerate(targets):
        by_label[target].append(i)
    for own in by_label:
        chance.shuffle(own)
    return [[own[i : i + 2] for i in range(0, len(own), 2)] for own in by_label]


def _chosen(waiting: list[list[list[int]]], order: Sequence[int]) -> list[list[int]]:
    """Take the pairs of one step out of those that wait: one of each label in turn."""
    chosen: list[list[int]] = []
    while len(chosen) < PAIRS and any(waiting):
        for label in order:
            if waiting[label] and len(chosen) < PAIRS:
                chosen.append(waiting[label].pop())
    return chosen


def supervised_contrastive(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss L_out of Khosla et al. 2020 over (B, D) vectors and (B) labels.

    For each text the mean, over the others with its label, of the cross-entropy of that other among all others of the
    batch, by cosine / `TEMPERATURE`. Texts whose label no other has are only others. 0 where all are so.
    """
    unit = functional.normalize(vectors, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    chances = (unit @ unit.T / TEMPERATURE).masked_fill(itself, float("-inf")).log_softmax(-1)  # (B, B)
    alike = (labels[:, None] == labels[None, :]) & ~itself
    counts = alike.sum(-1)
    each = chances.masked_fill(~alike, 0).sum(-1) / counts.clamp(min=1)
    return -each.sum() / (counts > 0).sum().clamp(min=1)


def fit_head(head: torch.nn.Linear, vectors: torch.Tensor, targets: torch.Tensor) -> None:
    """Give a linear head the weights of a logistic regression, as scikit-learn's with C = 1 (L2 on the weights alone).

    Args:
        head: of D inputs and C outputs.
        vectors: (N, D).
        targets: (N) from 0 to C - 1.
    """
    x = vectors.detach().double()
    weight = torch.zeros(head.weight.shape, dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros(len(weight), dtype=torch.float64, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        solver.zero_grad()
        misfit = functional.cross_entropy(x @ weight.T + bias, targets, reduction="sum")
        loss: torch.Tensor = (misfit + 0.5 * weight.square().sum()) / len(x)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.weight.copy_(weight)
        if head.bias is not None:
            head.bias.copy_(bias)
