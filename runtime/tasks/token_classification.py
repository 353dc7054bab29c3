"""token-classification: tags by the C++ kernels; how words are made of tokens is a setting of the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core.tasks import Output, Spec
from headway.core.tasks import token_classification as task
from headway.core.tasks.token_classification import Aggregation, Boundaries, Example, Grammar, Result, Words
from headway.cpp_ext import stretch_chances, tags
from headway.runtime.tasks.base import unchanged


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    aggregation: Aggregation = "first"
    """how a word's tokens become one"""
    constrained: bool = True
    """only sequences of tags that the scheme allows; False: each word's best tag, as the Transformers pipelines do"""
    boundaries: Boundaries | None = None
    """where entities of texts without tokens of their own may begin and end; None: as the bundle has it"""
    score: Literal["mean", "entity"] = "mean"
    """of an entity. mean: of the probabilities of its words' tags, as the Transformers pipelines have it; entity: the
    probability, among all sequences of tags that the scheme allows, that it is there with just these words"""


prepare = unchanged


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Call) -> list[Result]:
    examples, outputs = task.with_boundaries(examples, outputs, call.boundaries or spec.settings.boundaries)
    words = task.words_in(examples, outputs, spec, call.aggregation)
    rules = task.grammar(tuple(spec.labels), spec.settings.scheme)
    if call.constrained and spec.settings.scheme != "plain":
        chosen = tags(words.scores, words.offsets, rules.follows, rules.begins, rules.ends)
    else:
        chosen = words.scores.argmax(-1).astype(np.int32)

    def rate(stretches: list[tuple[int, int]]) -> list[float]:
        return _chances(words, rules, chosen, stretches)

    return task.results_of(examples, words, chosen, spec, rate if call.score == "entity" else None)


def _chances(
    words: Words, rules: Grammar, chosen: NDArray[np.int32], stretches: list[tuple[int, int]]
) -> list[float]:
    if not stretches:
        return []
    found = stretch_chances(
        words.scores,
        words.offsets,
        rules.follows,
        rules.begins,
        rules.ends,
        rules.continues,
        chosen,
        np.array(stretches, np.int64),
    )
    return list(map(float, found))
