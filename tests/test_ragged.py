"""Ragged batches against plain Python lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headway.runtime.ragged import Ragged

token_rows = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=9), max_size=9)


def ragged_of(rows: list[list[int]]) -> Ragged:
    flat = [token for row in rows for token in row]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Ragged(np.array(flat, np.int32), np.array(flat, np.int32) % 2, offsets)


def rows_of(ragged: Ragged) -> list[list[int]]:
    return [ragged.ids[a:b].tolist() for a, b in zip(ragged.offsets, ragged.offsets[1:], strict=False)]


@given(token_rows)
def test_lengths(rows: list[list[int]]) -> None:
    ragged = ragged_of(rows)
    assert len(ragged) == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]


@given(token_rows, st.data())
def test_take(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20) if rows else st.just([]))
    taken = ragged_of(rows).take(np.array(chosen, np.int64))
    assert rows_of(taken) == [rows[i] for i in chosen]
    assert taken.types.tolist() == (taken.ids % 2).tolist()
    assert (taken.ids.dtype, taken.types.dtype, taken.offsets.dtype) == (np.int32, np.int32, np.int64)
