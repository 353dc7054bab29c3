"""The planner: every row once, within the budget, and never dearer than other ways to group."""

from itertools import pairwise, product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.runtime.plan import BATCH_OVERHEAD, BATCH_TOKENS, plan

row_lengths = st.lists(st.integers(1, 128), min_size=1, max_size=80)
budgets = st.integers(1, 600)


def cost(batches: list[NDArray[np.int64]], lengths: list[int]) -> int:
    """Padded tokens, and what starting each batch costs."""
    return sum(len(b) * max(lengths[i] for i in b) + BATCH_OVERHEAD for b in batches)


def by_number(lengths: list[int], budget: int) -> list[NDArray[np.int64]]:
    """The naive way: sorted, always as many texts as fit if all were the longest."""
    order, rows = np.argsort(lengths, kind="stable"), max(1, budget // max(lengths))
    return [order[i : i + rows] for i in range(0, len(order), rows)]


def cheapest(lengths: list[int], budget: int) -> int:
    """The least cost over all ways to cut the sorted texts into batches that keep the budget."""
    ordered = sorted(lengths)
    best = []
    for cuts in product([False, True], repeat=len(ordered) - 1):
        ends = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(ordered)]
        sizes = [(end - begin, ordered[end - 1]) for begin, end in pairwise(ends)]
        if all(texts == 1 or texts * longest <= budget for texts, longest in sizes):
            best.append(sum(texts * longest + BATCH_OVERHEAD for texts, longest in sizes))
    return min(best)


@given(row_lengths, budgets)
def test_every_row_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan(np.array(lengths), budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(row_lengths, budgets)
def test_never_dearer_than_batches_of_one_size(lengths: list[int], budget: int) -> None:
    assert cost(plan(np.array(lengths), budget), lengths) <= cost(by_number(lengths, budget), lengths)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 200))
def test_as_cheap_as_the_best_of_all_ways(lengths: list[int], budget: int) -> None:
    assert cost(plan(np.array(lengths), budget), lengths) == cheapest(lengths, budget)


@given(row_lengths, budgets)
def test_longest_first(lengths: list[int], budget: int) -> None:
    longest = [max(lengths[i] for i in batch) for batch in plan(np.array(lengths), budget)]
    assert longest == sorted(longest, reverse=True)


def test_texts_of_one_length_share_batches() -> None:
    assert [len(b) for b in plan(np.full(8, 128), 512)] == [4, 4]


def test_a_text_above_the_budget_is_alone() -> None:
    assert [b.tolist() for b in plan(np.array([3, 900, 3]), BATCH_TOKENS)] == [[1], [0, 2]]


@given(row_lengths, budgets)
def test_without_padding_batches_are_filled(lengths: list[int], budget: int) -> None:
    """In order of length, the longest first; no batch could take the next one's first text."""
    batches = plan(np.array(lengths), budget, pads=False)
    ordered = [lengths[i] for batch in batches for i in batch]
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert ordered == sorted(lengths, reverse=True)
    sums = [sum(lengths[i] for i in batch) for batch in batches]
    assert all(total <= budget or len(batch) == 1 for batch, total in zip(batches, sums, strict=True))
    assert all(total + lengths[after[0]] > budget for total, after in zip(sums, batches[1:], strict=False))
