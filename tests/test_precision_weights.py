"""int8-weights and int4-weights: rounding by channel and by block, the form that ONNX Runtime fuses, packing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from headway.export.precision import base, int4_weights
from headway.export.precision.int4_weights import BLOCK
from tests import precisions

BITS = {"int8-weights": 8, "int4-weights": 4}
blocks = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3).map(lambda n: n * BLOCK), st.integers(1, 4)),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


def plain(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to nearest with the largest magnitude as range."""
    parts = weight.reshape(-1, BLOCK, weight.shape[1])
    step = np.maximum(np.abs(parts).max(axis=1, keepdims=True) / 7, 1e-20).astype(np.float32)
    levels = np.clip(np.rint(parts / step), -8, 7)
    return np.asarray((levels * step).reshape(weight.shape), np.float32)


def left(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    levels, scale = int4_weights.rounded(weight)
    assert scale.shape == (len(weight) // BLOCK, weight.shape[1])
    return np.multiply(levels, np.repeat(scale, BLOCK, axis=0), dtype=np.float32)


@given(blocks)
def test_int4_levels_fit_and_no_block_is_worse_than_plain_rounding(weight: NDArray[np.float32]) -> None:
    levels, scale = int4_weights.rounded(weight)
    assert levels.min() >= -8
    assert levels.max() <= 7
    assert np.all(scale > 0)
    parts = (len(weight) // BLOCK, BLOCK, weight.shape[1])
    error = np.square((left(weight) - weight).astype(np.float64)).reshape(parts).sum(axis=1)
    bound = np.square((plain(weight) - weight).astype(np.float64)).reshape(parts).sum(axis=1)
    assert np.all(error <= bound * (1 + 1e-4) + 1e-30)


def test_clipping_lowers_the_error_of_int4() -> None:
    weight = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    assert np.square(left(weight) - weight).mean() < 0.95 * np.square(plain(weight) - weight).mean()


@pytest.mark.parametrize("name", BITS)
def test_every_product_is_fused(name: str, tmp_path: Path) -> None:
    model = base.load(name).convert(precisions.fp32(), (), [])
    made = precisions.optimized_ops(model, tmp_path)
    assert made.count("MatMulNBits") == 2 * 6 + 1
    assert "MatMul" not in made
    assert "DequantizeLinear" not in made


@pytest.mark.parametrize("name", BITS)
def test_weights_are_stored_packed(name: str) -> None:
    before = {layer.name: layer.weight for layer in base.layers(precisions.fp32())}
    model = base.load(name).convert(precisions.fp32(), (), [])
    kind = {8: ir.DataType.INT8, 4: ir.DataType.INT4}[BITS[name]]
    for layer, weight in before.items():
        stored = model.graph.initializers[f"{layer}.int{BITS[name]}"]
        assert stored.dtype == kind
        assert stored.const_value is not None
        assert stored.const_value.nbytes == weight.size * BITS[name] // 8
        assert layer not in model.graph.initializers


def test_layers_that_are_no_whole_blocks_get_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int4_weights, "BLOCK", 64)  # only the layers with 64 inputs are whole blocks
    model = int4_weights.convert(precisions.fp32(), (), [])
    kinds = [v.dtype for v in model.graph.initializers.values() if v.shape is not None and len(v.shape) == 2]
    assert kinds.count(ir.DataType.INT4) == 2
    assert kinds.count(ir.DataType.INT8) == 2 * 5 + 1
    texts = precisions.feeds(4, seed=1)
    expected = np.concatenate([o[0] for o in precisions.evaluate(precisions.fp32(), texts)])
    found = np.concatenate([o[0] for o in precisions.run(model, texts)])
    assert np.abs(found - expected).mean() / expected.std() < 0.4
