"""Padding at every level against plain NumPy, and its errors."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.cpp_ext import level, levels, mask, pad, set_level, unpad

row_lengths = st.lists(st.integers(0, 70), max_size=6)
index_types = st.sampled_from([np.int32, np.int64])


@pytest.fixture(autouse=True, params=levels())
def at_every_level(request: pytest.FixtureRequest) -> Iterator[None]:
    before = level()
    set_level(request.param)
    yield
    set_level(before)


def offsets_of(lengths: list[int], index: type = np.int64) -> NDArray[Any]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(index)  # (B + 1)


def columns_of(tokens: int, length: int, left: bool) -> slice:
    """Where a row's tokens stand."""
    return slice(length - tokens, length) if left else slice(0, tokens)


@given(row_lengths, st.integers(0, 20), st.integers(-(2**63), 2**63 - 1), st.booleans(), index_types)
def test_pad_and_mask(lengths: list[int], extra: int, value: int, left: bool, index: type) -> None:
    length = max(lengths, default=0) + extra
    offsets = offsets_of(lengths, index)
    ids = np.random.default_rng(0).integers(-(2**31), 2**31, sum(lengths), dtype=np.int32)  # (N)
    padded = np.full((len(lengths), length), value)  # (B, T)
    ones = np.zeros((len(lengths), length), np.int64)
    for b, tokens in enumerate(lengths):
        padded[b, columns_of(tokens, length, left)] = ids[offsets[b] : offsets[b + 1]]
        ones[b, columns_of(tokens, length, left)] = 1
    np.testing.assert_array_equal(pad(ids, offsets, length, value, left), padded, strict=True)
    np.testing.assert_array_equal(mask(offsets, length, left), ones, strict=True)


@given(row_lengths, st.integers(0, 20), st.integers(0, 40), st.booleans(), index_types)
def test_unpad(lengths: list[int], extra: int, width: int, left: bool, index: type) -> None:
    length = max(lengths, default=0) + extra
    rng = np.random.default_rng(0)
    padded = rng.standard_normal((len(lengths), length, width), np.float32)  # (B, T, D)
    rows = [padded[b, columns_of(tokens, length, left)] for b, tokens in enumerate(lengths)]
    flat = np.concatenate([np.zeros((0, width), np.float32), *rows])  # (N, D)
    np.testing.assert_array_equal(unpad(padded, offsets_of(lengths, index), left), flat, strict=True)


def test_right_padding_is_the_default() -> None:
    ids, offsets = np.array([7, 8, 9], np.int32), np.array([0, 1, 3])
    assert pad(ids, offsets, 3, -1).tolist() == [[7, -1, -1], [8, 9, -1]]
    assert mask(offsets, 3).tolist() == [[1, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("offsets", "length", "message"),
    [
        ([], 3, "offsets is empty"),
        ([1, 3], 3, "offsets must start at 0, not at 1"),
        ([0, 2, 1, 3], 3, "row 1 starts at 2 and ends before it, at 1"),
        ([0, 2], 3, "offsets end at 2, but there are 3 tokens"),
        ([0, 0, 3], 2, "row 1 has 3 tokens, more than length 2"),
        ([0, 3], -1, "length is -1: it must not be negative"),
    ],
)
def test_wrong_values(offsets: list[int], length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad(np.zeros(3, np.int32), np.array(offsets, np.int64), length, 0)


def test_unpad_wants_one_offset_more_than_rows() -> None:
    with pytest.raises(ValueError, match="offsets describe 1 rows, but padded has 2"):
        unpad(np.zeros((2, 3, 4), np.float32), np.array([0, 3]))


def test_too_large_for_memory() -> None:
    with pytest.raises(MemoryError):
        mask(np.array([0, 1, 2]), 2**62)


ids: Any = np.zeros(3, np.int32)  # (N)
offsets: Any = np.array([0, 3])  # (B + 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pad(ids.astype(np.int64), offsets, 3, 0),
        lambda: pad(np.zeros(6, np.int32)[::2], offsets, 3, 0),
        lambda: mask(offsets.astype(np.float64), 3),
        lambda: unpad(np.zeros((3, 3, 1), np.float32).T, offsets),
    ],
)
def test_wrong_types(call: Callable[[], object]) -> None:
    """Never a silent copy: neither of another type nor of another layout."""
    with pytest.raises(TypeError):
        call()
