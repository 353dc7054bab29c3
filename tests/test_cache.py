"""Equal inputs are run once: within a call, and with a cache between calls; the answers stay what they are."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import UsageError
from headway.core.tasks import Row
from headway.runtime import load
from headway.runtime.cache import OVERHEAD, Cache, answer_once, contents, distinct
from headway.runtime.ragged import Ragged
from tests.small import small_bundle, texts

rows_of_tokens = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=4), min_size=1, max_size=20
)


class Counting:
    """A backend that notes how many rows it runs."""

    pads = True

    def __init__(self, backend: Any) -> None:
        self.backend, self.rows = backend, 0

    def run(self, batches: Sequence[Ragged]) -> Any:
        self.rows += sum(map(len, batches))
        return self.backend.run(batches)


@pytest.fixture
def pipe(tmp_path: Path) -> Any:
    opened: Any = load(small_bundle(tmp_path / "bundle"), threads=2)
    opened._backend = Counting(opened._backend)
    return opened


def ragged(rows: Sequence[Sequence[tuple[int, int]]]) -> Ragged:
    return Ragged.of([Row(i, [t for t, _ in row], [s for _, s in row]) for i, row in enumerate(rows)])


def summed(asked: Ragged) -> list[Any]:
    """An engine: each row's weighted sum."""
    weights = 7 * asked.ids + asked.types
    return [
        np.array([weights[a:b] @ np.arange(1, b - a + 1)], np.float32)
        for a, b in zip(asked.offsets[:-1], asked.offsets[1:], strict=True)
    ]


def vector(value: float, size: int = 4) -> Any:
    return np.full(size, value, np.float32)


@given(rows_of_tokens)
def test_contents_are_equal_for_equal_rows_only(rows: list[Any]) -> None:
    found = contents(ragged(rows))
    assert [[a == b for b in found] for a in found] == [[a == b for b in rows] for a in rows]


@given(rows_of_tokens)
def test_each_row_has_its_equal_among_the_distinct(rows: list[Any]) -> None:
    found = contents(ragged(rows))
    first, of_row = distinct(found)
    assert [found[first[place]] for place in of_row] == found
    assert len({found[row] for row in first}) == len(first) == len(set(found))


@given(rows_of_tokens, st.integers(1, 5))
def test_the_answers_are_those_of_the_engine(rows: list[Any], entries: int) -> None:
    cache, asked = Cache(entries), ragged(rows)
    for kept in (None, cache, cache):
        np.testing.assert_array_equal(answer_once(asked, summed, kept), summed(asked))


def test_duplicates_in_a_call_are_run_once(pipe: Any) -> None:
    some = texts(20)
    expected = pipe(some)
    pipe._backend.rows = 0
    assert pipe(some * 5) == expected * 5
    assert pipe._backend.rows == len(set(some))


def test_ids_and_their_order_are_kept_with_duplicates(pipe: Any) -> None:
    results = pipe(["late parcel", "great", "late parcel", "great"])
    assert results[0] == results[2] != results[1] == results[3]


def test_a_known_input_is_not_run_again(pipe: Any) -> None:
    some = texts(20)
    expected = [pipe(text) for text in some]
    pipe.cache, pipe._backend.rows = Cache(100), 0
    assert pipe(some) == expected
    assert [pipe(text) for text in some] == expected
    assert pipe(some[::-1]) == expected[::-1]
    assert pipe._backend.rows == len(set(some)) == len(pipe.cache) == pipe.cache.misses


def test_to_change_a_result_does_not_change_the_next(pipe: Any) -> None:
    pipe.cache = Cache(100)
    first = pipe("late parcel")
    expected = dict(first.scores)
    first.scores.clear()
    assert pipe("late parcel").scores == expected


def test_the_arrays_are_read_only_and_copies() -> None:
    cache, batch = Cache(2), np.zeros((100, 4), np.float32)
    cache.put(b"a", batch[0])
    batch[0] = 1
    found: Any = cache.get(b"a")
    assert found.tolist() == [0, 0, 0, 0]
    assert found.base is None
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_those_used_longest_ago_go_first() -> None:
    cache = Cache(2)
    for name in (b"a", b"b"):
        cache.put(name, vector(1))
    assert cache.get(b"a") is not None
    cache.put(b"c", vector(1))
    assert [cache.get(name) is None for name in (b"a", b"b", b"c")] == [False, True, False]


def test_bounded_by_bytes() -> None:
    cache = Cache(100, most_bytes=2 * (OVERHEAD + 400))
    for i in range(5):
        cache.put(bytes([i]), vector(i, 100))
    assert (len(cache), cache.bytes) == (2, 2 * (OVERHEAD + 400))
    cache.put(b"huge", vector(0, 10_000))
    assert (len(cache), cache.bytes) == (0, 0)


def test_a_new_answer_replaces_the_old() -> None:
    cache = Cache(2)
    cache.put(b"a", vector(1, 8))
    cache.put(b"a", vector(2, 4))
    assert np.array_equal(cache.get(b"a"), vector(2, 4))  # type: ignore[arg-type]
    assert cache.bytes == OVERHEAD + 16
    cache.clear()
    assert (len(cache), cache.bytes, cache.get(b"a")) == (0, 0, None)


def test_many_threads_may_share_a_cache(pipe: Any) -> None:
    some = texts(60)
    expected = pipe(some)
    pipe.cache = Cache(10)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [pipe(text) for text in some], range(8)):
            assert found == expected
    assert len(pipe.cache) == 10
    assert pipe.cache.bytes == sum(OVERHEAD + a.nbytes for a in pipe.cache._answers.values())


@pytest.mark.parametrize(("options", "unit"), [({"entries": 0}, "answer"), ({"most_bytes": 0}, "byte")])
def test_a_cache_of_nothing(options: dict[str, int], unit: str) -> None:
    with pytest.raises(UsageError, match=f"^cache: must hold at least 1 {unit}, not 0$"):
        Cache(**options)
