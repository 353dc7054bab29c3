"""Open and use a checkpoint in PyTorch: the reference that every exported variant is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from headway.core import tasks
from headway.core.errors import CheckpointError, HeadwayError
from headway.core.manifest import Checkpoint
from headway.core.progress import Progress, silent
from headway.core.tasks import Example, Result
from headway.train.quiet import quiet
from headway.train.tasks import base

BATCH = 32


@dataclass(frozen=True)
class Opened:
    """A checkpoint in memory."""

    folder: Path
    manifest: Checkpoint
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def open_checkpoint(folder: Path) -> Opened:
    """Open what `headway train` wrote. Raises CheckpointError."""
    manifest = Checkpoint.read(folder)
    tokenizer = open_tokenizer(str(folder))
    model = open_model(str(folder), manifest.task, manifest.labels)
    model.train(False)
    return Opened(folder, manifest, model, tokenizer)


def open_model(name: str, task: str, labels: Sequence[str]) -> PreTrainedModel:
    """A model with the task's head, from a folder or a hub name. Raises CheckpointError."""
    try:
        with quiet():
            return base.load(task).head(name, labels)
    except HeadwayError:
        raise
    except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
        raise CheckpointError(name, f"the model cannot be opened: {_first_line(error)}") from error


def open_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer that lies beside a model; it must be a fast one. Raises CheckpointError."""
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise CheckpointError(name, "there is no such folder")  # and no such name on the hub
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(name, f"the tokenizer cannot be opened: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(name, "its tokenizer has no tokenizer.json form, which the runtime needs")
    return tokenizer


def outputs(opened: Opened, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The graph's outputs for a padded batch of texts, each (B, …), in fp32 on the processor."""
    encoded = opened.tokenizer(
        list(texts), truncation=True, max_length=opened.manifest.max_length, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = opened.model(**encoded).logits
    named = base.load(opened.manifest.task).outputs(logits)
    return {name: value.numpy() for name, value in named.items()}


def predict(opened: Opened, examples: Sequence[Example], progress: Progress = silent) -> list[Result]:
    """Results in the order of the examples."""
    task = tasks.load(opened.manifest.task)
    texts = [task.inputs(e) for e in examples]
    lengths = [len(row) for row in opened.tokenizer(texts)["input_ids"]]
    order = np.argsort(lengths, kind="stable")
    results: list[Result | None] = [None] * len(texts)
    for begin in progress(range(0, len(order), BATCH), "evaluating", -(-len(order) // BATCH)):
        rows = order[begin : begin + BATCH]
        decoded = task.decode(outputs(opened, [texts[i] for i in rows]), opened.manifest.labels)
        for row, result in zip(rows, decoded, strict=True):
            results[row] = replace(result, truncated=lengths[row] > opened.manifest.max_length)  # type: ignore[type-var]
    return [r for r in results if r is not None]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
