"""Pooling at every level against NumPy in double precision; every row alone equals itself in a batch."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.cpp_ext import level, levels, pool, pool_ragged, set_level
from tests.tolerance import TOLERANCE

Floats = NDArray[np.float32]

RTOL, ATOL = TOLERANCE["float32"]
kinds = st.sampled_from(["mean", "max", "cls"])
row_lengths = st.lists(st.integers(1, 40), max_size=5)
widths = st.integers(0, 300)
index_types = st.sampled_from([np.int32, np.int64])


@pytest.fixture(autouse=True, params=levels())
def at_every_level(request: pytest.FixtureRequest) -> Iterator[None]:
    before = level()
    set_level(request.param)
    yield
    set_level(before)


def random_hidden(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def reference(x: Floats, kind: str, normalize: bool) -> NDArray[np.float64]:
    """One text's tokens (n, D) to one vector (D)."""
    tokens = x.astype(np.float64)
    out: NDArray[np.float64] = {"mean": tokens.mean(0), "max": tokens.max(0), "cls": tokens[0]}[kind]
    return out / max(float(np.linalg.norm(out)), 1e-12) if normalize else out


@given(row_lengths, st.integers(0, 9), widths, kinds, st.booleans(), index_types)
def test_pool(lengths: list[int], extra: int, width: int, kind: str, normalize: bool, index: type) -> None:
    hidden = random_hidden(len(lengths), max(lengths, default=0) + extra, width)  # (B, T, D)
    got = pool(hidden, np.array(lengths, index), kind, normalize)
    assert got.shape == (len(lengths), width)
    assert got.dtype == np.float32
    for b, tokens in enumerate(lengths):
        row = hidden[b, :tokens]
        np.testing.assert_allclose(got[b], reference(row, kind, normalize), RTOL, ATOL)
        alone = pool(row[None].copy(), np.array([tokens]), kind, normalize)
        np.testing.assert_array_equal(got[b], alone[0])


@given(row_lengths, widths, kinds, st.booleans(), index_types)
def test_ragged_equals_padded(
    lengths: list[int], width: int, kind: str, normalize: bool, index: type
) -> None:
    hidden = random_hidden(len(lengths), max(lengths, default=0), width)  # (B, T, D)
    rows: list[Any] = [hidden[b, :tokens] for b, tokens in enumerate(lengths)]
    flat = np.concatenate([np.zeros((0, width), np.float32), *rows])  # (N, D)
    offsets: NDArray[Any] = np.concatenate([[0], np.cumsum(lengths)]).astype(index)  # (B + 1)
    padded = pool(hidden, np.array(lengths, index), kind, normalize)
    np.testing.assert_array_equal(pool_ragged(flat, offsets, kind, normalize), padded, strict=True)


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_nan_is_not_lost(kind: str) -> None:
    hidden = random_hidden(1, 5, 100)
    hidden[0, [0, 2, 4], [3, 50, 99]] = np.nan
    got = pool(hidden, np.array([5]), kind, False)
    assert np.flatnonzero(np.isnan(got)).tolist() == [3, 50, 99]


def test_normalised_zero_is_zero() -> None:
    assert not pool(np.zeros((1, 2, 20), np.float32), np.array([2]), "mean", True).any()


@pytest.mark.parametrize(
    ("lengths", "kind", "message"),
    [
        ([1], "mean", "there are 1 lengths, but hidden has 2 rows"),
        ([3, 0], "mean", "row 1 has length 0: it must be 1 to 3"),
        ([4, 1], "mean", "row 0 has length 4: it must be 1 to 3"),
        ([1, 1], "median", 'kind is "median": it must be mean, max or cls'),
    ],
)
def test_wrong_values(lengths: list[int], kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(random_hidden(2, 3, 4), np.array(lengths), kind, False)


def test_ragged_wrong_values() -> None:
    with pytest.raises(ValueError, match="row 1 has no tokens: offsets 3 to 3"):
        pool_ragged(random_hidden(6, 4), np.array([0, 3, 3, 6]), "mean", False)
    with pytest.raises(ValueError, match="offsets end at 5, but there are 6 tokens"):
        pool_ragged(random_hidden(6, 4), np.array([0, 5]), "mean", False)


hidden: Any = random_hidden(2, 3, 4)  # (B, T, D)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pool(hidden.astype(np.float64), np.array([1, 1]), "mean", False),
        lambda: pool(hidden[:, ::2], np.array([1, 1]), "mean", False),
        lambda: pool(hidden, np.array([1.0, 1.0]), "mean", False),
        lambda: pool_ragged(hidden, np.array([0, 2]), "mean", False),
    ],
)
def test_wrong_types(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()
