"""The search for spans against all spans, sorted, and its errors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.data import Record
from headway.core.tasks import Output, Row
from headway.core.tasks import question_answering as task
from headway.cpp_ext import spans
from headway.runtime.tasks import question_answering as decoder

Arrays = dict[str, Any]


@st.composite
def windows_of_questions(draw: st.DrawFn) -> Arrays:
    """Windows of tokens of 0 to 2 characters, which overlap in characters; few different scores, so many ties."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = draw(st.lists(st.integers(0, 3), max_size=3))
    lengths = [draw(st.integers(0, 10)) for _ in range(sum(counts))]
    total = sum(lengths)
    first, after = np.zeros(total, np.int64), np.zeros(total, np.int64)
    ends = np.cumsum([0, *lengths])
    for begin, end in pairwise(ends.tolist()):
        sizes = random.integers(0, 3, end - begin)
        after[begin:end] = np.cumsum(sizes)
        first[begin:end] = after[begin:end] - sizes
    first[random.random(total) < 0.2] = -1
    start, end = random.integers(-3, 4, (2, total)).astype(np.float32)
    return {
        "start": start,
        "end": end,
        "first": first,
        "after": after,
        "windows": ends.astype(np.int64),
        "questions": np.cumsum([0, *counts]).astype(np.int64),
    }


def every_span(given: Arrays, question: int, longest: int) -> list[tuple[float, int, int]]:
    best: dict[tuple[int, int], float] = {}
    begin, end = given["questions"][question : question + 2]
    for r in range(begin, end):
        for a in range(given["windows"][r], given["windows"][r + 1]):
            for b in range(a, min(a + longest, given["windows"][r + 1])):
                place = (int(given["first"][a]), int(given["after"][b]))
                if given["first"][a] < 0 or given["first"][b] < 0 or place[1] <= place[0]:
                    continue
                best[place] = max(best.get(place, -np.inf), float(given["start"][a] + given["end"][b]))
    return sorted(((s, a, b) for (a, b), s in best.items()), key=lambda span: (-span[0], *span[1:]))


@given(windows_of_questions(), st.integers(1, 6), st.integers(1, 12), st.booleans())
def test_spans_are_the_best_of_all(given: Arrays, k: int, longest: int, overlap: bool) -> None:
    scores, places = spans(**given, k=k, longest=longest, overlap=overlap)
    assert scores.shape == (len(given["questions"]) - 1, k)
    for question, (own, around) in enumerate(zip(scores, places, strict=True)):
        wanted: list[tuple[float, int, int]] = []
        for span in every_span(given, question, longest):
            if overlap or all(span[1] >= b or a >= span[2] for _, a, b in wanted):
                wanted.append(span)
        wanted = [*wanted, *[(-np.inf, 0, 0)] * k][:k]
        assert [(s, a, b) for s, (a, b) in zip(own.tolist(), around.tolist(), strict=True)] == wanted


WORDS = ["a", " ", "  b", "cd ", "e\u0301", "\u200f", "😀", "\u2003", "xyz"]


@given(
    pieces=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 8),
    longest=st.integers(1, 9),
    overlap=st.booleans(),
    ties=st.booleans(),
)
def test_the_fast_search_finds_what_the_plain_one_does(
    pieces: list[list[str]], seed: int, count: int, longest: int, overlap: bool, ties: bool
) -> None:
    """Whatever white space is in the tokens, and however many windows a context has."""
    random = np.random.default_rng(seed)
    examples, outputs = [], []
    for number, own in enumerate(pieces):
        context = "".join(own)
        examples.append(task.Example("q", context, None, None, Record({}, "input", number)))
        ends = np.cumsum([0, *map(len, own)])
        tokens = np.stack([ends[:-1], ends[1:]], 1)  # (T, 2)
        for begin in range(0, len(own), 5):
            marks = np.concatenate([[[-1, -1]], tokens[begin : begin + 8], [[-1, -1]]])
            logits = random.normal(size=(len(marks), 2))
            logits = (np.rint(logits) if ties else logits).astype(np.float32)
            outputs.append(Output(Row(number, [0] * len(marks), [0] * len(marks), marks), logits))
    plain = task.best_spans(examples, outputs, count, longest, overlap)
    assert decoder.best_spans(examples, outputs, count, longest, overlap) == plain
    for example, own_spans in zip(examples, plain, strict=True):
        for _, begin, end in own_spans:
            answer = example.context[begin:end]
            assert answer
            assert answer == answer.strip()


def test_errors() -> None:
    def call(**changes: Any) -> Any:
        given: Arrays = {
            "start": np.zeros(3, np.float32),
            "end": np.zeros(3, np.float32),
            "first": np.arange(3),
            "after": np.arange(1, 4),
            "windows": np.array([0, 3]),
            "questions": np.array([0, 1]),
            "k": 1,
            "longest": 1,
        }
        return spans(**given | changes)

    scores, places = call()
    assert (scores.tolist(), places.tolist()) == ([[0.0]], [[[0, 1]]])
    with pytest.raises(ValueError, match="k is 0: it must be at least 1"):
        call(k=0)
    with pytest.raises(ValueError, match="longest is -1"):
        call(longest=-1)
    with pytest.raises(ValueError, match="offsets end at 2, but there are 3"):
        call(windows=np.array([0, 2]))
    with pytest.raises(ValueError, match="offsets end at 3"):
        call(questions=np.array([0, 3]))
    with pytest.raises(ValueError, match="there are 3 starts, 2 ends"):
        call(end=np.zeros(2, np.float32))
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="token 1 of 3 has an infinite score or NaN"):
            call(start=np.array([0, value, 0], np.float32))
    with pytest.raises(TypeError):
        call(start=np.zeros(3))
