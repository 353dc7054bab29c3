"""text-classification: probabilities to the best label."""

from __future__ import annotations

from collections.abc import Sequence

from numpy import bool_
from numpy.typing import NDArray

from headway.core.tasks.text_classification import Result
from headway.cpp_ext import argmax
from headway.runtime.backends.base import Outputs


def decode(outputs: Outputs, truncated: NDArray[bool_], labels: Sequence[str]) -> list[Result]:
    probabilities = outputs["probabilities"]  # (B, C)
    best = argmax(probabilities).tolist()  # (B)
    rows = zip(best, probabilities.tolist(), truncated.tolist(), strict=True)
    return [Result(labels[i], row[i], dict(zip(labels, row, strict=True)), cut) for i, row, cut in rows]
