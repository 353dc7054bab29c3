"""text-classification: the best labels alone, where a call asks for few of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from headway.core.errors import UsageError
from headway.core.tasks import Output, Spec
from headway.core.tasks import text_classification as task
from headway.core.tasks.text_classification import Example
from headway.cpp_ext import top_k
from headway.runtime.tasks.base import unchanged


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """`scores` are those of so many most probable labels, the best first; None: of all, in the order of `labels`"""


prepare = unchanged


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Call) -> list[Any]:
    results: list[Any] = task.decode(examples, outputs, spec)
    if call.top_k is None:
        return results
    if spec.settings.kind == "regression":
        raise UsageError("top_k", "the model gives one score, no labels")
    scores = np.array([list(r.scores.values()) for r in results], np.float32)  # (B, C)
    _, best = top_k(scores, min(call.top_k, len(spec.labels)))  # (B, k)
    names = [[spec.labels[i] for i in row] for row in best.tolist()]
    return [
        dataclasses.replace(r, scores={name: r.scores[name] for name in own})
        for r, own in zip(results, names, strict=True)
    ]
