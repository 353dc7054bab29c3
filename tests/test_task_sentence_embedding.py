"""Vectors of texts: similarities, cut texts, labels of pairs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headway.core.tasks import (
    Output,
    Row,
    sentence_embedding,
)
from tests.task_examples import CLOSE, few, read, record, seeds, spec_of


@few
@given(seed=seeds, sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_similarities_are_cosines(tokenizers: dict[str, Tokenizer], seed: int, sizes: list[int]) -> None:
    task = sentence_embedding
    forms = {1: ["text1"], 2: ["anchor", "positive"], 3: ["anchor", "positive", "negative"]}
    examples = [
        task.Example(tuple(forms[n]), "text", None, None, record())
        if n == 1
        else read("sentence-embedding", **{name: f"{name} {i}" for name in forms[n]})
        for i, n in enumerate(sizes)
    ]
    spec = spec_of(task)
    rows = task.rows(examples, tokenizers["wordpiece"], spec)
    assert [row.example for row in rows] == [i for i, n in enumerate(sizes) for _ in range(n)]
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(len(rows), 5)).astype(np.float32)
    results = task.decode(examples, [Output(r, v) for r, v in zip(rows, vectors, strict=True)], spec)
    ends = np.cumsum(sizes)
    for n, end, result in zip(sizes, ends, results, strict=True):
        own = vectors[end - n : end]
        if n == 1:
            assert result.embedding == own[0].tolist()
            continue
        assert result.embeddings == own.tolist()
        expected = [float(v @ own[0] / np.linalg.norm(v) / np.linalg.norm(own[0])) for v in own[1:]]
        assert result.similarities == pytest.approx(expected, *CLOSE)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    task = sentence_embedding
    outputs = [Output(Row(0, [1], [0]), np.array(v, np.float32)) for v in ([0, 0], [1, 0])]
    (result,) = task.decode([read("sentence-embedding", anchor="a", positive="b")], outputs, spec_of(task))
    assert result.similarities == [0.0]


def test_one_cut_text_of_several_is_told(tokenizers: dict[str, Tokenizer]) -> None:
    task = sentence_embedding
    examples = [
        read("sentence-embedding", anchor="a", positive="b " * 50),
        read("sentence-embedding", anchor="a", positive="b"),
    ]
    spec = spec_of(task)
    rows = task.rows(examples, tokenizers["wordpiece"], spec)
    outputs = [Output(row, np.ones(2, np.float32)) for row in rows]
    assert [r.truncated for r in task.decode(examples, outputs, spec)] == [True, False]


@pytest.mark.parametrize(("label", "gold"), [(1, "1"), (0, "0"), ("1", "1"), ("x", "x")])
def test_labels_of_pairs_may_be_whole_numbers(label: Any, gold: str) -> None:
    example = read("sentence-embedding", text1="a", text2="b", label=label)
    assert (example.form, example.gold) == ("label", gold)
