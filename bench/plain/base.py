"""What the plain scripts share: the setting, the Trainer around a model, prediction in fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from headway.core import siblings

FAMILY = "headway.bench.plain"
BATCH = 32
"""rows of a batch at prediction"""

Features = list[dict[str, Any]]
Collator = Callable[[Features], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One training run. Each module of this family has `run(setting) -> dict[str, float]`, of fractions."""

    model: str
    """folder"""
    train: list[dict[str, Any]]
    """records, as in the .jsonl files"""
    test: list[dict[str, Any]]
    epochs: int
    batch_size: int
    learning_rate: float
    """at its peak; linear decay to 0"""
    warmup: float
    """share of the steps"""
    weight_decay: float
    max_length: int
    """tokens"""
    seed: int
    bf16: bool
    """autocast during training; weights and prediction are fp32 in any case"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """what is special to the task; its module says"""


def load(name: str) -> ModuleType:
    """The plain script of a task. Raises UsageError."""
    return siblings.load(FAMILY, name, "--task")


def start(setting: Setting) -> Any:
    """Seed every generator, silence the libraries, open the tokenizer."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_seed(setting.seed)
    return AutoTokenizer.from_pretrained(setting.model)


def fit(
    setting: Setting,
    model: torch.nn.Module,
    trainer_type: type[Trainer] = Trainer,
    arguments_type: type[TrainingArguments] = TrainingArguments,
    arguments: Mapping[str, Any] | None = None,
    **parts: Any,
) -> None:
    """Train `model` in place for all epochs; it is left in evaluation mode, without autocast."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_type(
            model=model,
            args=arguments_type(output_dir=folder, **_arguments(setting), **(arguments or {})),
            **parts,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # takes autocast off `forward`
    model.eval()


def _arguments(setting: Setting) -> dict[str, Any]:
    """Keyword arguments of TrainingArguments; what is not named keeps the Trainer's default."""
    return {
        "num_train_epochs": setting.epochs,
        "per_device_train_batch_size": setting.batch_size,
        "learning_rate": setting.learning_rate,
        "warmup_steps": setting.warmup,  # below 1 it is a share
        "weight_decay": setting.weight_decay,
        "lr_scheduler_type": "linear",
        "bf16": setting.bf16,
        "seed": setting.seed,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def by_length(lengths: Sequence[int], size: int = BATCH) -> Iterator[list[int]]:
    """Positions in batches of like lengths, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]


def predict(
    model: torch.nn.Module,
    features: Features,
    collator: Collator,
    read: Callable[[Any], torch.Tensor] = lambda output: output.logits,
) -> list[NDArray[np.float32]]:
    """What `read` takes of the model's output, one row a feature; rows of tokens keep their batch's padding."""
    rows: dict[int, NDArray[np.float32]] = {}
    for batch in by_length([len(f["input_ids"]) for f in features]):
        with torch.inference_mode():
            output = read(model(**collator([features[i] for i in batch])))
        rows |= zip(batch, output.numpy(), strict=True)
    return [rows[i] for i in range(len(features))]
