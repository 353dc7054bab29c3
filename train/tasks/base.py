"""What training must know of a task, beyond `headway.core.tasks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from transformers import PreTrainedTokenizerBase

from headway.core import siblings
from headway.core.progress import Progress
from headway.core.tasks import Example, Spec
from headway.train.options import TrainOptions

FAMILY = "headway.train.tasks"

Objective = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]
"""mean loss of a model on a batch"""


@dataclass(frozen=True)
class Prepared:
    """Training data as the collator takes it."""

    rows: list[dict[str, Any]]
    counts: dict[str, int] = field(default_factory=dict)
    """what was cut or left out by rule, by reason"""


class TrainTask(Protocol):
    """What each module of this family defines."""

    OPTIONS: frozenset[str]
    """the options of `options.SPECIAL` that mean something to the task"""

    def describe(
        self,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        options: TrainOptions,
    ) -> Spec:
        """Labels and settings, from the data and the options. Raises DataError, UsageError."""
        ...

    def open(self, name: str, spec: Spec, options: TrainOptions | None) -> torch.nn.Module:
        """A model with the task's head: a new head on a pretrained body, or (no options) a checkpoint's own.

        Raises OSError or ValueError as transformers does.
        """
        ...

    def prepare(
        self,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        model: Any,
        spec: Spec,
        options: TrainOptions,
    ) -> Prepared:
        """Token ids and targets."""
        ...

    def collate(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """What pads a list of rows into a batch of tensors."""
        ...

    def objective(self, examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
        """The loss."""
        ...

    def infer(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        spec: Spec,
        progress: Progress,
    ) -> Any:
        """What the task's `decode` reads."""
        ...

    def save(self, model: Any, tokenizer: PreTrainedTokenizerBase, spec: Spec, folder: Path) -> None:
        """Write weights, configuration and tokenizer."""
        ...


class EncoderTrainTask(TrainTask, Protocol):
    """The training side of a task whose answers come from one pass through an encoder."""

    def outputs(self, said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
        """The exported graph's outputs (the task's `GRAPH`), from what the model said to a batch."""
        ...


def load(name: str) -> TrainTask:
    """The training side of a task. Raises UsageError."""
    return cast(TrainTask, siblings.load(FAMILY, name, "TASK"))
