"""What training must know of a task, beyond `headway.core.tasks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headway.core import siblings
from headway.core.tasks import Example

FAMILY = "headway.train.tasks"

Features = dict[str, list[int] | int]
"""one example as the model takes it, not padded yet"""


class TrainTask(Protocol):
    """What each module of this family defines."""

    def head(self, model: str, labels: Sequence[str]) -> PreTrainedModel:
        """A pretrained body with this task's head. Raises OSError or ValueError as transformers does."""
        ...

    def features(
        self,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int,
    ) -> list[Features]:
        """Token ids and, where the examples are labelled, targets."""
        ...

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Pads a list of features into a batch of tensors."""
        ...

    def loss(self, outputs: Any, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Mean loss of a batch; `weights` has one entry a label."""
        ...

    def outputs(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """The graph's outputs (`Task.OUTPUTS`) from the model's logits: what the exported graph computes too."""
        ...


def load(name: str) -> TrainTask:
    """The training side of a task. Raises UsageError."""
    return cast(TrainTask, siblings.load(FAMILY, name, "TASK"))
