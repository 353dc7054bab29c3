"""Softmax, argmax and top-k at every level against NumPy, and their errors."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from headway.cpp_ext import argmax, level, levels, set_level, softmax, top_k
from tests.tolerance import TOLERANCE

Floats = NDArray[np.float32]

RTOL, ATOL = TOLERANCE["float32"]
shapes = array_shapes(min_dims=2, max_dims=2, max_side=70)  # (B, C)
entries = st.floats(allow_nan=False, allow_infinity=False, width=32)
with_ties = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0, math.inf])


@pytest.fixture(autouse=True, params=levels())
def at_every_level(request: pytest.FixtureRequest) -> Iterator[None]:
    before = level()
    set_level(request.param)
    yield
    set_level(before)


def reference(logits: Floats) -> NDArray[np.float64]:
    x = logits.astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


@given(arrays(np.float32, shapes, elements=entries | st.just(-math.inf)))
def test_softmax_of_anything(logits: Floats) -> None:
    logits[:, 0] = np.maximum(logits[:, 0], np.float32(-1e38))
    np.testing.assert_allclose(softmax(logits), reference(logits), RTOL, ATOL)


@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 16, 17, 1000, 32128])
def test_softmax_of_logits(columns: int) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (3, columns)).astype(np.float32)
    got = softmax(logits)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference(logits), RTOL, ATOL)
    np.testing.assert_allclose(got.sum(1, dtype=np.float64), 1.0, RTOL, ATOL)
    np.testing.assert_array_equal(softmax(logits[1:2]), got[1:2])  # alone as in a batch


@given(arrays(np.float32, shapes, elements=entries | with_ties))
def test_argmax(values: Floats) -> None:
    np.testing.assert_array_equal(argmax(values), values.argmax(1).astype(np.int32), strict=True)


@given(arrays(np.float32, shapes, elements=entries | with_ties), st.data())
def test_top_k(values: Floats, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, values.shape[1]))
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]  # (B, k)
    got, indices = top_k(values, k)
    np.testing.assert_array_equal(indices, order.astype(np.int32), strict=True)
    np.testing.assert_array_equal(got, np.take_along_axis(values, order, 1), strict=True)


@pytest.mark.parametrize("call", [softmax, argmax, lambda x: top_k(x, 1)])
@pytest.mark.parametrize("columns", [1, 16, 37])
def test_nan(call: Callable[[Floats], Any], columns: int) -> None:
    logits = np.zeros((3, columns), np.float32)
    logits[2, -1] = np.nan
    with pytest.raises(ValueError, match="row 2 of 3 holds NaN"):
        call(logits)


def test_infinite_logits() -> None:
    logits = np.zeros((3, 20), np.float32)
    logits[1] = -np.inf
    with pytest.raises(ValueError, match="row 1 of 3 holds nothing but -inf"):
        softmax(logits)
    logits[1, 19] = np.inf
    with pytest.raises(ValueError, match=r"row 1 of 3 holds \+inf"):
        softmax(logits)


@pytest.mark.parametrize("call", [softmax, argmax, lambda x: top_k(x, 1)])
def test_rows(call: Callable[[Floats], Any]) -> None:
    call(np.zeros((0, 5), np.float32))  # B = 0
    with pytest.raises(ValueError, match="rows have 0 entries"):
        call(np.zeros((2, 0), np.float32))


@pytest.mark.parametrize("k", [-1, 0, 6])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}: it must be 1 to the row's 5 entries"):
        top_k(np.zeros((2, 5), np.float32), k)


x: Any = np.zeros((4, 6), np.float32)


@pytest.mark.parametrize("wrong", [x.astype(np.float64), x.astype(np.float16), x[:, ::2], x.T, x[0]])
@pytest.mark.parametrize("call", [softmax, argmax, lambda x: top_k(x, 1)])
def test_wrong_types(call: Callable[[Any], Any], wrong: Any) -> None:
    with pytest.raises(TypeError):
        call(wrong)
