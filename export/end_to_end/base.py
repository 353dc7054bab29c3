"""What every reference has: inputs, its library's answers to them, and its answers with one setting changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig

from headway.core.tolerance import END_TO_END
from headway.train.checkpoint import Opened


@dataclass(frozen=True)
class Case:
    """One input of a call, with the settings of the call."""

    input: Any
    """a text, a tuple of texts, or an object with the task's fields"""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a user gets for one input."""

    values: NDArray[np.float64]
    """(N): a vector, scores by label, or the scores of words"""
    labels: tuple[str, ...] = ()
    """of the values, where each has one"""
    group: str = ""
    """what kind of values they are: differences are shares of the spread within a group"""


class Reference(Protocol):
    """The library that a user would otherwise call, on the folder that was exported."""

    name: str
    """as a user calls it: `SentenceTransformer.encode`"""

    @property
    def computed_by(self) -> str:
        """The library with its version; or the folder's configuration files, where it is not installed."""
        ...

    def cases(self, texts: Sequence[str]) -> list[Case]:
        """Inputs made of raw strings, some longer than the model."""
        ...

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        """The library's, its settings at their defaults."""
        ...

    def read(self, case: Case, result: Any) -> Answer:
        """A bundle's result in the same form."""
        ...

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        """Names of settings, with the answers of a model that does not have the setting: they tell what is ignored."""
        ...


CONFIGURATION_FILES = "the folder's configuration files"
IN_FP32 = {"dtype": torch.float32}
"""`model_kwargs` of sentence-transformers: it computes 16-bit weights in 16 bits, a bundle in fp32"""


def installed(package: str) -> str:
    """A package with its version."""
    return f"{package} {version(package)}"


def with_config_of_files(opened: Opened) -> Any:
    """The opened model, which shares its weights, with the configuration that its folder has."""
    model = copy(opened.model)
    model.config = AutoConfig.from_pretrained(opened.folder, trust_remote_code=False)
    return model


def with_effect(
    changes: Iterable[tuple[str, list[Answer]]], unchanged: Sequence[Answer]
) -> Iterator[tuple[str, list[Answer]]]:
    """Names of settings with the answers without them, as far as these are not the answers `unchanged`, with all settings."""
    for setting, answers in changes:
        if difference(answers, unchanged) > END_TO_END:
            yield setting, answers


def difference(found: Sequence[Answer], expected: Sequence[Answer]) -> float:
    """The largest difference of values, as a share of the expected values' standard deviation in their group.

    Infinite where answers have other sizes, values that are no numbers, or where more than a tenth of the labels are
    others (a few may be ties).
    """
    both = list(zip(found, expected, strict=True))
    if any(f.values.shape != e.values.shape for f, e in both):
        return float("inf")
    labels = [pair for f, e in both for pair in zip(f.labels, e.labels, strict=True)]
    if sum(a != b for a, b in labels) > len(labels) / 10:
        return float("inf")
    worst = 0.0
    for group in {answer.group for answer in expected}:
        ours = np.concatenate([f.values for f, e in both if e.group == group])
        theirs = np.concatenate([e.values for _, e in both if e.group == group])
        if not np.isfinite(ours).all():
            return float("inf")
        worst = max(worst, float(np.abs(ours - theirs).max(initial=0.0)) / (float(theirs.std()) or 1.0))
    return worst
