"""text-generation: a decoder alone; cross-entropy of the next token, in packed blocks or on continuations only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from headway.core import gold
from headway.core.progress import Progress
from headway.core.tasks import Spec
from headway.core.tasks import text_generation as task
from headway.core.tasks.text_generation import Example, Result, Settings
from headway.train import encoder, scratch
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"label_smoothing", "max_target_length", "from_scratch"})


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    task.uniform(examples)
    task.uniform(held_out)
    return Spec([], options.max_length, Settings(max_new_tokens=options.max_target_length))


def new_tokenizer(examples: Sequence[Example], options: TrainOptions) -> PreTrainedTokenizerBase:
    return scratch.tokenizer((e.source + e.target for e in examples), options.max_length, closed=False)


def new_model(tokenizer: Any, options: TrainOptions) -> Any:
    return scratch.decoder(tokenizer, options.max_length)


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    return encoder.pretrained(AutoModelForCausalLM, name, None, options is not None)


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    """Plain texts are joined, each closed by the end token, and cut into blocks; nothing is left out.

    A continuation is a row of its own, its source not judged; what is too long loses the source's beginning.
    """
    raw, end = tokenizer.backend_tokenizer, tokenizer.eos_token_id
    if examples[0].source:
        rows, cut = task.rows(examples, raw, spec, end)
        counts = {"cut at the model's longest input": sum(cut)} if any(cut) else {}
        unread = gold.unread(task, examples, "continuation", "rename one by --columns to read the other")
        return Prepared([_row(row.ids, row.marks) for row in rows], counts | unread)
    raw.no_truncation()
    raw.no_padding()
    closed = [] if end is None else [end]
    stream = list(
        chain.from_iterable([*raw.encode(e.target, add_special_tokens=False).ids, *closed] for e in examples)
    )
    blocks = [stream[i : i + spec.max_length] for i in range(0, len(stream), spec.max_length)]
    return Prepared([_row(block, len(block)) for block in blocks if len(block) > 1])


def _row(ids: list[int], judged: int) -> dict[str, Any]:
    labels = [encoder.IGNORED] * (len(ids) - judged) + ids[len(ids) - judged :]
    return {"input_ids": ids, "labels": labels}


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    pad_id = tokenizer.pad_token_id or 0

    def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "input_ids": encoder.padded([row["input_ids"] for row in rows], pad_id),
            "attention_mask": encoder.padded([[1] * len(row["input_ids"]) for row in rows], 0),
            "labels": encoder.padded([row["labels"] for row in rows], encoder.IGNORED),
        }

    return together


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = inputs.pop("labels")[:, 1:].contiguous()
        return encoder.cross_entropy(model(**inputs).logits[:, :-1], targets, None, options.label_smoothing)

    return loss


def infer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    spec: Spec,
    progress: Progress,
) -> list[Result]:
    """Loss of each text, in blocks that do not overlap; of continuations, without their source."""
    rows, cut = task.rows(examples, tokenizer.backend_tokenizer, spec, tokenizer.eos_token_id)
    prepared = [_row(row.ids, row.marks) for row in rows]
    return task.results(examples, rows, _losses(model, tokenizer, prepared, progress), cut)


def _losses(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]], progress: Progress
) -> list[float]:
    """Sum of the losses of each row."""
    pad = collate(tokenizer)
    losses = np.zeros(len(rows))
    was_training = model.training
    model.train(False)
    batches = encoder.batched([len(row["input_ids"]) for row in rows])
    with torch.inference_mode():
        for batch in progress(batches, "evaluating", len(batches)):
            padded = {k: v.to(model.device) for k, v in pad([rows[i] for i in batch]).items()}
            targets = padded.pop("labels")[:, 1:]
            logits = model(**padded).logits[:, :-1].float()
            each = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), targets, ignore_index=encoder.IGNORED, reduction="none"
            )
            losses[batch] = each.double().sum(-1).cpu().numpy()
    model.train(was_training)
    return losses.tolist()


save = encoder.save
