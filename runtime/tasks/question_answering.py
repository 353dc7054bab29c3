"""question-answering: spans by the C++ kernel; and one question asked of many contexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from headway.core import tasks
from headway.core.errors import UsageError
from headway.core.tasks import Output, Spec
from headway.core.tasks import question_answering as task
from headway.core.tasks.question_answering import Candidate, Example, Result
from headway.cpp_ext import spans
from headway.runtime.tasks import base
from headway.runtime.tasks.base import unchanged

if TYPE_CHECKING:
    from headway.runtime.pipeline import EncoderPipeline


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    candidates: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """so many best spans that share no character; None: the best 20 of all, which may overlap"""
    longest_answer: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """in tokens; None: as the bundle says"""


prepare = unchanged


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Call) -> list[Result]:
    return task.decode(examples, outputs, spec, call.candidates, call.longest_answer, best_spans)


def best_spans(
    examples: Sequence[Example], outputs: Sequence[Output], count: int, longest: int, overlap: bool
) -> list[list[tuple[float, int, int]]]:
    """As the task's plain search, by the kernel."""
    logits = np.concatenate([o.logits for o in outputs]).astype(np.float32, copy=False)  # (N, 2)
    starts, ends = np.ascontiguousarray(logits.T)
    places = list(task.edges(examples, outputs))
    windows = np.array([0, *accumulate(len(o.logits) for o in outputs)], np.int64)
    counts = Counter(o.row.example for o in outputs)
    questions = np.array([0, *accumulate(counts[number] for number in range(len(examples)))], np.int64)
    first, after = (np.concatenate([p[side] for p in places]) for side in (0, 1))
    scores, found = spans(
        starts, ends, first, after, windows, questions, k=count, longest=longest, overlap=overlap
    )  # (Q, k), (Q, k, 2)
    return [
        [(s, a, b) for s, (a, b) in zip(own, around, strict=True) if b > 0]
        for own, around in zip(scores.tolist(), found.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Answer(Candidate):
    context: int
    """which of the contexts it stands in"""


def answer_over(
    pipe: EncoderPipeline, question: str, contexts: Sequence[str], **settings: Any
) -> list[Answer]:
    """One question's answers in all contexts together, the best first; none if none of them answers it.

    Logits of different contexts are compared as they are; by a model that may say "no answer", by how far they are
    above those of "no answer" in their own context, and a context that this says of gives none. `score` is the
    probability among all that the contexts offer. `settings` are those of a call. Raises InputError and UsageError.
    """
    if not isinstance(pipe.spec.settings, task.Settings):
        raise UsageError("answer_over", f"wants a question-answering bundle, not {pipe.manifest.task}")
    given = [{"question": question, "context": context} for context in contexts]
    examples: list[Any] = [tasks.read_input(pipe.task, one, i) for i, one in enumerate(given)]
    if not examples:
        return []
    call = base.settings(pipe.manifest.task, settings)
    spec: task.Settings = pipe.spec.settings
    longest = call.longest_answer or spec.max_answer_tokens
    found = task.find(examples, pipe.outputs(examples), longest, call.candidates, best_spans)
    zero = [own.none if spec.unanswerable else 0.0 for own in found]
    every = [score - none for own, none in zip(found, zero, strict=True) for score, _, _ in own.spans]
    logits = np.array(every + [0.0] * spec.unanswerable) / spec.temperature
    top = logits.max(initial=-np.inf)
    weight = float(np.exp(logits - top).sum())
    answers = [
        Answer(contexts[i][a:b], a, b, float(np.exp((score - none) / spec.temperature - top)) / weight, i)
        for i, (own, none) in enumerate(zip(found, zero, strict=True))
        if not (spec.unanswerable and task.margin(own) > spec.threshold)
        for score, a, b in own.shown
    ]
    return sorted(answers, key=lambda answer: (-answer.score, answer.context, answer.start, answer.end))
