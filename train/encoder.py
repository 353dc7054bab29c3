"""What all encoder tasks share: pretrained bodies with a head, padding, and the forward pass over rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from headway.core.errors import CheckpointError
from headway.core.progress import Progress
from headway.core.tasks import Output, Row, Spec

BATCH_TOKENS = 4096
"""padded tokens that go through the model together in evaluation, at most"""
TYPES = "token_type_ids"
IGNORED = -100
"""target of a token that is not judged"""


def pretrained(auto: Any, name: str, labels: Sequence[str] | None, fresh: bool, **settings: Any) -> Any:
    """A transformers model from a folder or hub name, fp32, from safetensors, running no code that comes with it.

    `fresh`: what the files lack begins at random; else that raises ValueError.
    """
    if labels is not None:
        settings["id2label"] = dict(enumerate(labels))
        settings["label2id"] = {label: i for i, label in enumerate(labels)}
    model, loaded = auto.from_pretrained(
        name,
        ignore_mismatched_sizes=fresh,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
        **settings,
    )
    absent = [key for key in loaded["missing_keys"] if labels is not None or "pooler" not in key]
    if absent and not fresh:
        raise ValueError(f"its files have no weights for {', '.join(sorted(absent)[:3])}")
    return model


def match_token_types(
    model: Any, tokenizer: PreTrainedTokenizerBase, name: str, task: str, spec: Spec
) -> None:
    """Let a tokenizer make `token_type_ids` only for a model that tells segments apart.

    RoBERTa's kind has one row of them: its own tokenizer makes none, and the model then takes zeros. A tokenizer with
    BERT's post-processor says 1 in second texts, which such a model has no row for. What is changed is saved with the
    tokenizer. Raises CheckpointError if the model has fewer rows than the tokenizer has types.
    """
    if TYPES not in tokenizer.model_input_names:
        return
    body = getattr(model, "body", model)
    rows = getattr(model.config, "type_vocab_size", None)
    if TYPES not in inspect.signature(body.forward).parameters or rows in (0, 1):
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != TYPES]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # which are saved
        return
    raw = tokenizer.backend_tokenizer
    texts = [("a",), ("a", "a")] if _reads_pairs(task, spec) else [("a",)]
    most = max(max(raw.encode(*text).type_ids, default=0) for text in texts)
    if rows is not None and most >= rows:
        raise CheckpointError(
            name, f"its tokenizer has token types up to {most}, but the model has {rows} (type_vocab_size)"
        )


def _reads_pairs(task: str, spec: Spec) -> bool:
    return (
        task in ("question-answering", "text-ranking") or getattr(spec.settings, "pair", False) is not False
    )


def inputs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as the collator takes them, without targets yet."""
    return [{"input_ids": row.ids, TYPES: row.types} for row in rows]


def count_cut(rows: Sequence[Row]) -> dict[str, int]:
    cut = len({row.example for row in rows if row.truncated})
    return {"cut at the model's longest input": cut} if cut else {}


class Collator:
    """Pads rows to the longest of the batch; targets are numbers, lists of numbers, or one number a token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pad_id = tokenizer.pad_token_id or 0
        self.has_types = TYPES in tokenizer.model_input_names

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = {
            "input_ids": padded([row["input_ids"] for row in rows], self.pad_id),
            "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        }
        if self.has_types:
            batch[TYPES] = padded([row[TYPES] for row in rows], 0)
        if "token_labels" in rows[0]:
            batch["labels"] = padded([row["token_labels"] for row in rows], IGNORED)
        elif "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(B, T) integers, as long as the longest row."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def run(
    model: Any,
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
    read: Callable[[Any], torch.Tensor] = lambda outputs: outputs.logits,
) -> list[Output]:
    """The model's answers in the order of the rows; rows of similar length go together."""
    collate = Collator(tokenizer)
    lengths = [len(row.ids) for row in rows]
    answers: list[NDArray[np.float32] | None] = [None] * len(rows)
    device = next(model.parameters()).device
    was_training = model.training
    model.train(False)
    with torch.inference_mode():
        batches = batched(lengths)
        for batch in progress(batches, "evaluating", len(batches)):
            tensors = collate(inputs([rows[i] for i in batch]))
            logits = read(model(**{k: v.to(device) for k, v in tensors.items()})).float().cpu().numpy()
            for i, answer in zip(batch, logits, strict=True):
                answers[i] = answer[: lengths[i]] if answer.ndim == 2 else answer
    model.train(was_training)
    return [Output(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]


def inference(
    task: Any, read: Callable[[Any], torch.Tensor] = lambda outputs: outputs.logits
) -> Callable[..., list[Output]]:
    """The member `infer` of an encoder task: the answers to all rows of the examples."""

    def infer(
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Any],
        spec: Spec,
        progress: Progress,
    ) -> list[Output]:
        return run(model, task.rows(examples, tokenizer.backend_tokenizer, spec), tokenizer, progress, read)

    return infer


def batched(lengths: Sequence[int], tokens: int = BATCH_TOKENS) -> list[NDArray[np.int64]]:
    """Places of the rows of each batch, shortest first, at most `tokens` padded tokens in each."""
    order = np.argsort(lengths, kind="stable")
    batches, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - begin) * lengths[order[end]] > tokens:
            batches.append(order[begin:end])
            begin = end
    return batches


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Mean over the judged targets; logits (…, C), targets (…)."""
    return functional.cross_entropy(
        logits.float().flatten(0, -2),
        targets.flatten(),
        weight=None if weights is None else weights.to(logits.device),
        label_smoothing=smoothing,
        ignore_index=IGNORED,
    )


def balanced(gold: Sequence[str], labels: Sequence[str]) -> torch.Tensor:
    """One weight a label: N / (labels * count), so that the average over the data is 1 (as in scikit-learn)."""
    counts = dict.fromkeys(labels, 0)
    for label in gold:
        counts[label] += 1
    return torch.tensor([len(gold) / (len(labels) * counts[label]) for label in labels])


def save(model: Any, tokenizer: PreTrainedTokenizerBase, spec: Spec, folder: Path) -> None:
    """Write an ordinary transformers folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
