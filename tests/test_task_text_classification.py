"""Labels of texts: probabilities, thresholds, what is fitted, pairs."""

from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headway.core.tasks import (
    text_classification,
)
from tests.task_examples import CLOSE, KINDS, outputs_of, read, record, spec_of

eighths = st.integers(-160, 160).map(lambda i: i / 8)  # far enough apart for softmax to tell
table = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(eighths, min_size=3, max_size=3), min_size=n, max_size=n)
)
texts_only = [text_classification.Example("t", None, None, None, record())]


@given(table, st.sampled_from([0.5, 1.0, 3.0]))
def test_one_label_is_the_most_probable(logits: list[list[float]], temperature: float) -> None:
    task = text_classification
    spec = spec_of(task, ["a", "b", "c"], temperature=temperature)
    cut = [i % 2 == 0 for i in range(len(logits))]
    results = task.decode(texts_only * len(logits), outputs_of(logits, cut), spec)
    for row, result, c in zip(logits, results, cut, strict=True):
        expected = scipy.special.softmax(np.array(row) / temperature)
        assert list(result.scores) == ["a", "b", "c"]
        assert list(result.scores.values()) == pytest.approx(expected.tolist(), *CLOSE)
        assert result.label == "abc"[int(np.argmax(row))]
        assert result.score == result.scores[result.label] == max(result.scores.values())
        assert result.truncated == c


@given(table, st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([[], [0.2, 0.5, 0.9]]))
def test_many_labels_are_those_above_their_thresholds(
    logits: list[list[float]], temperature: float, thresholds: list[float]
) -> None:
    task = text_classification
    spec = spec_of(task, ["a", "b", "c"], kind="multi", temperature=temperature, thresholds=thresholds)
    results = task.decode(texts_only * len(logits), outputs_of(logits), spec)
    for row, result in zip(logits, results, strict=True):
        expected = scipy.special.expit(np.array(row) / temperature).tolist()
        assert list(result.scores.values()) == pytest.approx(expected, *CLOSE)
        wanted = thresholds or [0.5] * 3
        assume(all(abs(e - w) > CLOSE[1] or e == w for e, w in zip(expected, wanted, strict=True)))
        assert result.labels == [c for c, e, w in zip("abc", expected, wanted, strict=True) if e >= w]


def test_a_score_is_the_logit() -> None:
    task = text_classification
    spec = spec_of(task, ["score"], kind="regression", temperature=2.0)
    assert task.decode(texts_only * 2, outputs_of([[1.5], [-7]], [True, False]), spec) == [
        task.Score(1.5, True),
        task.Score(-7.0, False),
    ]


@pytest.mark.parametrize(
    ("kind", "gold", "changed"),
    [
        ("single", ["a", "b"], {"temperature"}),
        ("multi", [("a",), ("a", "b")], {"temperature", "thresholds"}),
        ("regression", [1.0, 2.0], set()),
    ],
)
def test_what_is_fitted(kind: str, gold: list[Any], changed: set[str]) -> None:
    task = text_classification
    labels = ["score"] if kind == "regression" else ["a", "b", "c"]
    spec = spec_of(task, labels, kind=kind)
    logits = np.random.default_rng(0).normal(size=(20, len(labels))).tolist()
    examples = [task.Example("t", None, gold[i % 2], None, record()) for i in range(20)]
    fitted = task.calibrate(examples, outputs_of(logits), spec)
    before, after = msgspec.structs.asdict(spec.settings), msgspec.structs.asdict(fitted)
    assert {name for name in before if before[name] != after[name]} == changed
    if kind == "multi":
        assert len(fitted.thresholds) == 3
        assert fitted.thresholds[2] == 0.5  # no text has it


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_tokenized_as_pairs(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task, tokenizer = text_classification, tokenizers[kind]
    one = read("text-classification", text1="a b", text2="c", label="x")
    long = read("text-classification", text1="a b " * 20, text2="c", label="x")
    rows = task.rows([one, long], tokenizer, spec_of(task, ["x"], pair=True))
    tokenizer.no_truncation()
    expected = tokenizer.encode("a b", "c")
    assert (rows[0].ids, rows[0].types) == (expected.ids, expected.type_ids)
    assert [(row.example, row.truncated, len(row.ids)) for row in rows] == [
        (0, False, len(expected.ids)),
        (1, True, 16),
    ]


@pytest.mark.parametrize("size", [14, 15])
def test_truncation_is_told(tokenizers: dict[str, Tokenizer], size: int) -> None:
    task = text_classification
    example = read("text-classification", text=" ".join("a" * size), label="x")
    (row,) = task.rows([example], tokenizers["wordpiece"], spec_of(task, ["x"], 16))
    assert len(row.ids) == 16
    assert row.truncated == (size == 15)


def test_labels_are_a_set() -> None:
    assert read("text-classification", text="t", labels=["b", "a", "b"]).gold == ("a", "b")
