"""Questions: windows, spans, thresholds; a model that knows all is read as knowing all."""

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headway.core.tasks import (
    Output,
    Row,
    Spec,
    question_answering,
)
from tests.task_examples import (
    CLOSE,
    KINDS,
    few,
    plain_words,
    read,
    seeds,
    spec_of,
    spread,
    whole,
)


def squad(
    context: str, *answers: tuple[str, int], question: str = "which one ?"
) -> question_answering.Example:
    given = {"text": [t for t, _ in answers], "answer_start": [s for _, s in answers]}
    example: question_answering.Example = read(
        "question-answering", question=question, context=context, answers=given
    )
    return example


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(
    words=st.lists(plain_words, min_size=1, max_size=40),
    spaces=st.sampled_from([" ", "  ", "\n", " \t "]),
    data=st.data(),
    max_length=st.integers(24, 40),
    seed=seeds,
)
def test_right_spans_give_the_gold_answer(
    tokenizers: dict[str, Tokenizer],
    kind: str,
    words: list[str],
    spaces: str,
    data: st.DataObject,
    max_length: int,
    seed: int,
) -> None:
    task, tokenizer = question_answering, tokenizers[kind]
    spec = spec_of(task, [], max_length, stride=5)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    context = spaces.join(words)
    start = sum(len(w) + len(spaces) for w in words[:first])
    answer = context[start : start + len(spaces.join(words[first : last + 1]))]
    example = squad(context, (answer, start))
    tokens = sum(start < b and a < start + len(answer) for a, b in whole(tokenizer, context).offsets)
    shared = min(5, max_length // 8)
    assume(tokens <= shared + 1)  # so that some window holds them all
    rows = task.rows([example], tokenizer, spec)
    targets = [task.target(example, row) for row in rows]
    assert any(t != (0, 0) for t in targets)
    outputs = spread(rows, 2, seed)
    for output, (begin, end) in zip(outputs, targets, strict=True):
        assert 0 <= begin <= end < len(output.row.ids)
        output.logits[begin, 0] = output.logits[end, 1] = 50
    (result,) = task.decode([example], outputs, spec)
    assert (result.answer, result.start, result.end) == (answer, start, start + len(answer))
    assert result.candidates[0].answer == answer
    assert result.score == pytest.approx(1)
    assert task.metrics([example], [result]) == {"exact_match": 1.0, "f1": 1.0}


@pytest.mark.parametrize("kind", KINDS)
@few
@given(words=st.lists(plain_words, min_size=1, max_size=40), max_length=st.integers(24, 40))
def test_windows_hold_the_question_and_cover_the_context(
    tokenizers: dict[str, Tokenizer], kind: str, words: list[str], max_length: int
) -> None:
    task, tokenizer = question_answering, tokenizers[kind]
    example = squad(" ".join(words))
    rows = task.rows([example, example], tokenizer, spec_of(task, [], max_length))
    assert [row.example for row in rows] == [0] * (len(rows) // 2) + [1] * (len(rows) // 2)
    seen = set()
    question = whole(tokenizer, example.question).ids
    for row in rows:
        assert len(row.ids) <= max_length
        assert row.ids[1 : 1 + len(question)] == question
        assert (row.marks[: 2 + len(question)] == -1).all()
        assert (row.marks[-1] == -1).all()
        assert not row.truncated
        seen |= {(int(a), int(b)) for a, b in row.marks if a >= 0}
    assert seen == set(whole(tokenizer, example.context).offsets)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_outside_a_window_is_no_target_there(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task = question_answering
    context = " ".join(f"a{i}" for i in range(40))
    example = squad(context, ("a39", context.index("a39")))
    rows = task.rows([example], tokenizers[kind], spec_of(task, [], 32))
    assert len(rows) > 2
    assert task.target(example, rows[0]) == (0, 0)
    assert task.target(example, rows[-1]) != (0, 0)
    assert all(task.target(squad(context), row) == (0, 0) for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_the_answer_alone(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    """Not its neighbours, though they touch it."""
    task = question_answering
    example = squad("a-b-c d", ("b", 2))
    (row,) = task.rows([example], tokenizers[kind], spec_of(task, [], 24))
    begin, end = task.target(example, row)
    assert begin == end
    assert row.marks[begin].tolist() == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_cut_by_a_window_is_no_target_there(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task = question_answering
    context = " ".join("abcdefghij" * 4)
    example = squad(context, (context, 0))
    rows = task.rows([example], tokenizers[kind], spec_of(task, [], 24))
    assert len(rows) > 2
    assert [task.target(example, row) for row in rows] == [(0, 0)] * len(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_very_long_question_is_cut_and_told(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task, tokenizer = question_answering, tokenizers[kind]
    long = squad("a b c d e f g h", ("c", 4), question="why " * 60)
    short = squad("a b c d e f g h", ("c", 4), question="why")
    spec = spec_of(task, [], 32)
    rows = task.rows([long, short], tokenizer, spec)
    assert {row.example: row.truncated for row in rows} == {0: True, 1: False}
    question = whole(tokenizer, long.question).ids
    for row in rows:
        assert len(row.ids) <= 32
        if row.example == 0:
            assert row.ids[1:17] == question[:16]
            assert row.marks[17].tolist() == [-1, -1]
    results = task.decode([long, short], spread(rows, 2, 0), spec)
    assert [r.truncated for r in results] == [True, False]
    assert any(task.target(long, row) != (0, 0) for row in rows)


def test_a_question_of_half_the_model_is_not_cut(tokenizers: dict[str, Tokenizer]) -> None:
    task = question_answering
    exact = squad("a b c", question=" ".join("a" * 16))
    over = squad("a b c", question=" ".join("a" * 17))
    rows = task.rows([exact, over], tokenizers["wordpiece"], spec_of(task, [], 32))
    assert [row.truncated for row in rows] == [False, True]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(
    words=st.lists(plain_words, min_size=1, max_size=15),
    seed=seeds,
    most=st.integers(1, 8),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    unanswerable=st.booleans(),
)
def test_the_best_span_is_that_of_a_search_over_all(
    tokenizers: dict[str, Tokenizer],
    kind: str,
    words: list[str],
    seed: int,
    most: int,
    temperature: float,
    unanswerable: bool,
) -> None:
    task = question_answering
    spec = spec_of(
        task,
        [],
        24,
        max_answer_tokens=most,
        temperature=temperature,
        unanswerable=unanswerable,
        threshold=1e9,
    )
    example = squad(" ".join(words))
    outputs = spread(task.rows([example], tokenizers[kind], spec), 2, seed)
    legal: dict[tuple[int, int], float] = {}
    for output in outputs:
        pieces = [example.context[slice(*place)] for place in output.row.marks]
        inside = [i for i, (begin, _) in enumerate(output.row.marks) if begin >= 0]
        assert len(inside) <= task.BEST
        blank = [i for i in inside if pieces[i].isspace()]
        output.logits[blank] = -1000  # what is only space between words is nobody's answer
        for i in (i for i in inside if i not in blank):
            for j in (j for j in inside if i <= j < i + most and j not in blank):
                begin, end = int(output.row.marks[i][0]), int(output.row.marks[j][1])
                begin = end - len(example.context[begin:end].lstrip())
                score = float(output.logits[i, 0]) + float(output.logits[j, 1])
                legal[begin, end] = max(score, legal.get((begin, end), -np.inf))
    best = max(legal, key=lambda place: legal[place])
    (result,) = task.decode([example], outputs, spec)
    assert (result.start, result.end) == best
    assert result.answer == example.context[slice(*best)]
    top = sorted(legal.values(), reverse=True)[: task.BEST]
    none = min(float(o.logits[0].sum()) for o in outputs)
    chances = scipy.special.softmax(np.array(top + [none] * unanswerable) / temperature)
    found = [c.score for c in result.candidates[: len(top)]]
    assert found == pytest.approx(chances[: len(top)].tolist(), *CLOSE)


@few
@given(seed=seeds)
def test_no_answer_is_given_above_the_threshold(tokenizers: dict[str, Tokenizer], seed: int) -> None:
    task = question_answering
    example = squad(" ".join("abcdefghij" * 3))
    spec = spec_of(task, [], 24, unanswerable=True)
    outputs = spread(task.rows([example], tokenizers["wordpiece"], spec), 2, seed)
    assert len(outputs) > 1
    always = Spec([], 24, msgspec.structs.replace(spec.settings, unanswerable=False))
    (spoken,) = task.decode([example], outputs, always)
    best = max(
        float(o.logits[i, 0] + o.logits[j, 1])
        for o in outputs
        for i, (a, _) in enumerate(o.row.marks)
        for j, (b, _) in enumerate(o.row.marks)
        if a >= 0 <= b and i <= j
    )
    margin = min(float(o.logits[0].sum()) for o in outputs) - best
    for threshold, answer in ((margin - 1e-3, ""), (margin + 1e-3, spoken.answer)):
        settings = msgspec.structs.replace(spec.settings, threshold=threshold)
        (result,) = task.decode([example], outputs, Spec([], 24, settings))
        assert result.answer == answer
        everything = sum(c.score for c in result.candidates)
        if answer:
            assert result.score == result.candidates[0].score
            assert everything < 1
        else:
            assert (result.start, result.end) == (0, 0)
            assert len(result.candidates) < task.BEST or everything + result.score == pytest.approx(1)


@settings(max_examples=30)
@given(seed=seeds, answerable=st.lists(st.booleans(), min_size=1, max_size=8))
def test_no_threshold_is_better_than_the_fitted_one(
    tokenizers: dict[str, Tokenizer], seed: int, answerable: list[bool]
) -> None:
    task = question_answering
    context = "a b c d e f"
    spec = spec_of(task, [], 24, unanswerable=True)
    examples = [squad(context, *[("c d", 4)] * yes) for yes in answerable]
    outputs = spread(task.rows(examples, tokenizers["wordpiece"], spec), 2, seed)
    for output in outputs:
        output.logits[0] *= 3  # many margins on both sides of 0
        begin, end = task.target(examples[output.row.example], output.row)
        output.logits[begin, 0] += 1
        output.logits[end, 1] += 1

    def f1(threshold: float) -> float:
        settings = msgspec.structs.replace(spec.settings, threshold=threshold)
        return task.metrics(examples, task.decode(examples, outputs, Spec([], 24, settings)))["f1"]

    fitted = task.calibrate(examples, outputs, spec)
    found = f1(fitted.threshold)
    for other in np.linspace(-20, 20, 161):
        assert found >= f1(float(other)) - CLOSE[1]
    assert msgspec.structs.replace(fitted, threshold=0.0, temperature=1.0) == spec.settings


def test_a_model_that_always_answers_has_no_threshold_fitted(tokenizers: dict[str, Tokenizer]) -> None:
    task = question_answering
    examples = [squad("a b c", ("b", 2)), squad("a b c")]
    spec = spec_of(task, [], 24)
    outputs = spread(task.rows(examples, tokenizers["wordpiece"], spec), 2, 0)
    assert task.calibrate(examples, outputs, spec).threshold == 0.0
    assert all(r.answer for r in task.decode(examples, outputs, spec))


def test_the_temperature_of_starts_and_ends(tokenizers: dict[str, Tokenizer]) -> None:
    """Of windows of different lengths; only the tokens that a window has take part."""
    task = question_answering
    examples = [squad("a b c", ("b", 2)), squad("a b c d e f g h", ("c d", 4))] * 20
    spec = spec_of(task, [], 24)
    outputs = spread(task.rows(examples, tokenizers["wordpiece"], spec), 2, 5)
    for output in outputs:
        begin, end = task.target(examples[output.row.example], output.row)
        output.logits[begin, 0] += 2
        output.logits[end, 1] += 2

    def loss(temperature: float) -> float:
        total = 0.0
        for output in outputs:
            logs = scipy.special.log_softmax(output.logits / temperature, axis=0)
            begin, end = task.target(examples[output.row.example], output.row)
            total -= float(logs[begin, 0] + logs[end, 1])
        return total / (2 * len(outputs))

    found = loss(task.calibrate(examples, outputs, spec).temperature)
    assert all(found <= loss(t) + CLOSE[1] for t in np.geomspace(0.1, 10, 50))
    assert found < loss(1.0) or found == pytest.approx(loss(1.0))


def test_a_context_without_any_token_has_no_answer(tokenizers: dict[str, Tokenizer]) -> None:
    task = question_answering
    example = squad("\x01")
    for unanswerable in (True, False):
        spec = spec_of(task, [], 24, unanswerable=unanswerable)
        outputs = spread(task.rows([example], tokenizers["wordpiece"], spec), 2, 0)
        (result,) = task.decode([example], outputs, spec)
        assert (result.answer, result.candidates) == ("", [])


def test_equal_margins_are_not_parted() -> None:
    task, spec = question_answering, spec_of(question_answering, unanswerable=True)
    golds: list[dict[str, Any]] = [
        {"text": ["x"], "answer_start": [0]},
        *[{"text": [], "answer_start": []}] * 2,
    ]
    examples = [read("question-answering", question="q", context="x y", answers=g) for g in golds]
    marks = np.array([[-1, -1], [0, 1], [2, 3]])
    logits = np.array([[0, 0], [1, 1], [0, 0]], np.float32)
    outputs = [Output(Row(i, [1, 2, 3], [0, 0, 0], marks), logits) for i in range(3)]
    fitted = dataclasses.replace(spec, settings=task.calibrate(examples, outputs, spec))
    assert task.metrics(examples, task.decode(examples, outputs, fitted))["f1"] == pytest.approx(2 / 3)


def test_an_answer_is_found_within_its_white_space(tokenizers: dict[str, Tokenizer]) -> None:
    answers = {"text": ["  b"], "answer_start": [1]}
    for tokenizer in tokenizers.values():
        example = read("question-answering", question="q", context="a  b", answers=answers)
        spec = spec_of(question_answering, max_length=32)
        (row,) = question_answering.rows([example], tokenizer, spec)
        first, last = question_answering.target(example, row)
        assert first > 0
        assert example.context[row.marks[first][0] : row.marks[last][1]].strip() == "b"


def test_white_space_is_no_answer(tokenizers: dict[str, Tokenizer]) -> None:
    example = read(
        "question-answering", question="q", context="1 .", answers={"text": [], "answer_start": []}
    )
    spec = spec_of(question_answering, max_length=32)
    (row,) = question_answering.rows([example], tokenizers["byte-level"], spec)
    logits = np.zeros((len(row.ids), 2), np.float32)
    (result,) = question_answering.decode([example], [Output(row, logits)], spec)
    assert all(c.answer.strip() == c.answer != "" for c in result.candidates)


@given(st.text(alphabet="x😀é ", min_size=1, max_size=80).filter(str.strip))
@few
def test_any_question_leaves_room_for_the_context(tokenizers: dict[str, Tokenizer], question: str) -> None:
    for tokenizer in tokenizers.values():
        example = read(
            "question-answering",
            question=question,
            context="a b c d e f g h",
            answers={"text": [], "answer_start": []},
        )
        rows = question_answering.rows([example], tokenizer, spec_of(question_answering, max_length=32))
        assert all(len(r.ids) <= 32 and (np.array(r.marks) >= 0).any() for r in rows)
