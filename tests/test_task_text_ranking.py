"""Ranking: relevance, lists of a query, certainty."""

import dataclasses

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headway.core.tasks import (
    Output,
    text_ranking,
)
from tests.task_examples import (
    CLOSE,
    few,
    read,
    record,
    seeds,
    spec_of,
)


def ranking_example(query: str, *gold: float) -> text_ranking.Example:
    passages = tuple(f"p{i}" for i in range(len(gold)))
    return text_ranking.Example(query, passages, gold, tuple(g for g in gold if g), None, record())


@few
@given(
    seed=seeds,
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    temperature=st.sampled_from([0.5, 2.0]),
)
def test_relevance_is_a_probability(
    tokenizers: dict[str, Tokenizer], seed: int, sizes: list[int], temperature: float
) -> None:
    task = text_ranking
    examples = [
        read("text-ranking", query="q", passage="p", label=1)
        if n == 1
        else read("text-ranking", query="q", positive="p", negatives=["n"] * (n - 1))
        for n in sizes
    ]
    spec = spec_of(task, temperature=temperature)
    rows = task.rows(examples, tokenizers["wordpiece"], spec)
    assert [row.example for row in rows] == [i for i, n in enumerate(sizes) for _ in range(n)]
    logits = np.random.default_rng(seed).normal(size=len(rows)).astype(np.float32)
    results = task.decode(examples, [Output(r, x[None]) for r, x in zip(rows, logits, strict=True)], spec)
    expected = scipy.special.expit(logits.astype(np.float64) / temperature).tolist()
    found = [s for r in results for s in ([r.score] if isinstance(r, task.Result) else r.scores)]
    assert [isinstance(r, task.Ranked) for r in results] == [n > 1 for n in sizes]
    assert found == pytest.approx(expected, *CLOSE)


def test_ranking_of_lists() -> None:
    """The relevant passage is first, third and last but within the first ten."""
    task = text_ranking
    examples = [ranking_example(q, 1.0, 0.0, 0.0) for q in ("one", "two")]
    results = [task.Ranked([0.9, 0.1, 0.2]), task.Ranked([0.1, 0.9, 0.2])]
    expected = {"recall_at_10": 1.0, "mrr_at_10": (1 + 1 / 3) / 2, "ndcg_at_10": (1 + 1 / 2) / 2}
    assert task.metrics(examples, results) == pytest.approx(expected)


def test_records_of_the_same_query_are_one_list() -> None:
    task = text_ranking
    examples = [
        ranking_example("one", 0.0),
        ranking_example("two", 1.0),
        ranking_example("one", 1.0),
        ranking_example("one", 0.0),
        ranking_example("none", 0.0),
    ]
    results = [task.Result(s) for s in (0.9, 0.1, 0.5, 0.2, 0.9)]
    found = task.metrics(examples, results)
    expected = {"recall_at_10": 1.0, "mrr_at_10": (1 / 2 + 1) / 2, "ndcg_at_10": (1 / np.log2(3) + 1) / 2}
    assert found == pytest.approx(expected)  # and "none" has nothing to be found


def test_what_is_relevant_but_no_candidate_counts_as_not_found() -> None:
    task = text_ranking
    example = dataclasses.replace(ranking_example("q", 1.0, 0.0), ideal=(1.0, 1.0))
    found = task.metrics([example], [task.Ranked([0.9, 0.1])])
    assert found["recall_at_10"] == 0.5
    assert found["ndcg_at_10"] == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_certainty_of_relevance() -> None:
    task = text_ranking
    confidence, right = task.certainty(
        [ranking_example("q", 1.0, 0.0), ranking_example("q", 0.0)],
        [task.Ranked([0.9, 0.6]), task.Result(0.2)],
    )
    assert confidence == pytest.approx([0.9, 0.6, 0.8])
    assert right.tolist() == [True, False, True]


def test_equal_scores_do_not_favour_the_right_passage() -> None:
    example = read("text-ranking", query="q", positive="p", negatives=[f"n{i}" for i in range(20)])
    figures = text_ranking.metrics([example], [text_ranking.Ranked([0.5] * 21)])
    assert figures == {"recall_at_10": 0.0, "mrr_at_10": 0.0, "ndcg_at_10": 0.0}
