"""Answers in one form for headway and its peers: compared with each other, and with gold answers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.core import generation, tag_schemes
from headway.core.errors import UnavailableError
from headway.core.figures import f1_micro
from headway.core.tasks import (
    question_answering,
    sequential_sentence_classification,
    text_classification,
    text_ranking,
)

NEAR = 0.01
"""of the range of the first subject's numbers: scores nearer than that are equal"""

Answers = list[Any] | NDArray[np.float32]
"""vectors (N, D); or for each input a label, labels, a score, the tags of its sentences, [begin, end, label] of its
entities, an answer or a text"""


class Agreement(NamedTuple):
    """With the first subject's answers."""

    figure: float
    """share of equal answers, or mean cosine"""
    least: float | None = None
    """least cosine"""


def given(task: str, example: Any) -> Any:
    """An example as `Pipeline` takes it and JSON carries it: a text, a list of texts that belong together, or fields."""
    match task:
        case "text-classification":
            return example.text if example.pair is None else [example.text, example.pair]
        case "sequential-sentence-classification":
            return {"sentences": list(example.sentences)}
        case "token-classification":
            return example.text
        case "question-answering":
            return [example.question, example.context]
        case "sentence-embedding":
            return example.texts[0]
        case "text-ranking":
            return [example.query, example.passages[0]]
        case _:
            return example.source


def plain(task: str, result: Any) -> Any:
    """The answer in a result of headway, as it is compared."""
    match task:
        case "text-classification":
            if hasattr(result, "label"):
                return result.label
            return sorted(result.labels) if hasattr(result, "labels") else result.score
        case "sequential-sentence-classification":
            return result.labels
        case "token-classification":
            return [[e.start, e.end, e.label] for e in result.entities]
        case "question-answering":
            return result.answer
        case "text-ranking":
            return result.score
        case _:
            return result.text


def agreement(answers: Answers, expected: Answers) -> Agreement:
    """Of one subject's answers with another's, to the same inputs."""
    if isinstance(answers, list) or isinstance(expected, list):
        near = _tolerance(expected)
        equal = [_equal(a, b, near) for a, b in zip(answers, expected, strict=True)]
        return Agreement(statistics.fmean(equal))
    if answers.shape != expected.shape:
        return Agreement(0.0, 0.0)
    a, b = answers.astype(np.float64), expected.astype(np.float64)
    cosines = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    cosines = np.nan_to_num(cosines, nan=0.0)  # what is no number agrees with nothing
    return Agreement(float(cosines.mean()), float(cosines.min()))


def quality(task: str, examples: Sequence[Any], answers: Answers) -> dict[str, float]:
    """The task's metrics of the answers to labelled examples; none for vectors and tasks judged in another way.

    Texts are compared only where the libraries for it are installed.
    """
    judge = QUALITY.get(task)
    if judge is None or isinstance(answers, np.ndarray):
        return {}
    try:
        return judge(examples, answers)
    except UnavailableError:
        return {}


def _equal(a: Any, b: Any, near: float) -> bool:
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= near)


def _tolerance(expected: Answers) -> float:
    numbers = [answer for answer in expected if isinstance(answer, float) and math.isfinite(answer)]
    return NEAR * (max(numbers) - min(numbers)) if numbers else 0.0


def _labels(examples: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
    own = text_classification
    kinds: dict[str, Callable[[Any], Any]] = {
        "single": lambda a: own.Result(a, 0.0, {}),
        "multi": lambda a: own.Labels(a, {}),
        "regression": lambda a: own.Score(a),
    }
    return own.metrics(examples, [kinds[examples[0].kind](a) for a in answers])


def _entities(examples: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
    """Exact spans in characters. Plain tags are of words, and a subject's words need not be those of the data."""
    labels = sorted({tag for e in examples for tag in e.tags})
    scheme = tag_schemes.scheme_of(labels)
    if scheme == "plain":
        return {}
    gold = [
        [
            (e.words[first][0], e.words[after - 1][1], label)
            for label, first, after in tag_schemes.spans(e.tags, scheme, labels)
        ]
        for e in examples
    ]
    return {"entity_f1": f1_micro(gold, [[tuple(a) for a in said] for said in answers])}


def _texts(examples: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
    return generation.compare(list(answers), [e.references or () for e in examples])


QUALITY: dict[str, Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]] = {
    "text-classification": _labels,
    "sequential-sentence-classification": lambda examples, answers: (
        sequential_sentence_classification.metrics(
            examples, [sequential_sentence_classification.Result(a, []) for a in answers]
        )
    ),
    "token-classification": _entities,
    "question-answering": lambda examples, answers: question_answering.metrics(
        examples, [question_answering.Result(a, 0, 0, 0.0, []) for a in answers]
    ),
    "text2text-generation": _texts,
    "text-ranking": lambda examples, answers: text_ranking.metrics(
        examples, [text_ranking.Result(a) for a in answers]
    ),
}
