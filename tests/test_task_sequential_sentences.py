"""Sentences of documents: windows that hold whole ones, and what becomes of long ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headway.core import windows
from headway.core.tasks import (
    sequential_sentence_classification,
)
from tests.task_examples import KINDS, compact, few, plain_words, read, seeds, spec_of, spread, whole


@pytest.mark.parametrize("kind", KINDS)
@few
@given(
    documents=st.lists(
        st.lists(
            st.lists(plain_words, min_size=1, max_size=6).map(" ".join) | compact, min_size=1, max_size=12
        ),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
    max_length=st.integers(6, 30),
    opened=st.booleans(),
    pooling=st.sampled_from(["separator", "mean"]),
    seed=seeds,
)
def test_right_sentences_give_the_gold_labels(
    tokenizers: dict[str, Tokenizer],
    kind: str,
    documents: list[list[str]],
    data: st.DataObject,
    max_length: int,
    opened: bool,
    pooling: str,
    seed: int,
) -> None:
    task, tokenizer = sequential_sentence_classification, tokenizers[kind]
    first, after = ("[CLS]", "[SEP]") if kind == "wordpiece" else ("<s>", "</s>")
    labels = ["a", "b", "c"]
    opening = first if opened else None
    spec = spec_of(task, labels, max_length, separator=after, opening=opening, pooling=pooling)
    examples = [
        read(
            "sequential-sentence-classification",
            sentences=d,
            labels=[data.draw(st.sampled_from(labels)) for _ in d],
        )
        for d in documents
    ]
    outputs = spread(task.rows(examples, tokenizer, spec), 3, seed)
    separator = tokenizer.token_to_id(after)
    for output in outputs:
        assert len(output.row.ids) <= max_length
        assert not opened or output.row.ids[0] == tokenizer.token_to_id(first)
        for sentence, begin, place in output.row.marks:
            assert output.row.ids[place] == separator
            assert separator not in output.row.ids[begin:place]
            gold = examples[output.row.example].labels[sentence]
            said = 20 * np.eye(3)[labels.index(gold)]
            if pooling == "mean":  # the first token says it for all
                output.logits[begin : place + 1] = 0
                output.logits[begin] = said * (place + 1 - begin)
            else:
                output.logits[place] = said
    results = task.decode(examples, outputs, spec)
    for number, (example, result) in enumerate(zip(examples, results, strict=True)):
        assert result.labels == list(example.labels)
        assert result.scores == pytest.approx([1.0] * len(example.labels))
        own = [o.row for o in outputs if o.row.example == number]
        owned = windows.owners([[s for s, _, _ in row.marks] for row in own])
        assert sorted(s for mine in owned for s in mine) == list(range(len(example.sentences)))
        sizes = [len(whole(tokenizer, s).ids) for s in example.sentences]
        assert result.truncated == any(opened + size + 1 > max_length for size in sizes)
        for row in own:
            long = any(opened + sizes[s] + 1 > max_length for s, _, _ in row.marks)
            assert row.truncated == long
    assert task.metrics(examples, results) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_windows_hold_whole_sentences_and_share_some(tokenizers: dict[str, Tokenizer]) -> None:
    task, tokenizer = sequential_sentence_classification, tokenizers["wordpiece"]
    example = read("sequential-sentence-classification", sentences=["a b"] * 9, labels=["x"] * 9)
    rows = task.rows([example], tokenizer, spec_of(task, ["x"], 13))
    cls, sep, *_ = tokenizer.encode("").ids
    a, b = whole(tokenizer, "a b").ids
    assert [row.ids for row in rows] == [
        [cls, *([a, b, sep] * 4)],
        [cls, *([a, b, sep] * 4)],
        [cls, *[a, b, sep] * 3],
    ]
    assert [row.marks for row in rows] == [
        [(0, 1, 3), (1, 4, 6), (2, 7, 9), (3, 10, 12)],
        [(3, 1, 3), (4, 4, 6), (5, 7, 9), (6, 10, 12)],
        [(6, 1, 3), (7, 4, 6), (8, 7, 9)],
    ]


def test_an_over_long_sentence_is_cut_and_told(tokenizers: dict[str, Tokenizer]) -> None:
    task, tokenizer = sequential_sentence_classification, tokenizers["wordpiece"]
    example = read("sequential-sentence-classification", sentences=["a", "b " * 50, "a"], labels=["x"] * 3)
    rows = task.rows([example], tokenizer, spec_of(task, ["x"], 10))
    assert [row.truncated for row in rows] == [False, True, False]
    assert len(rows[1].ids) == 10
    (result,) = task.decode([example], spread(rows, 1, 0), spec_of(task, ["x"], 10))
    assert result.truncated
    assert result.labels == ["x"] * 3
