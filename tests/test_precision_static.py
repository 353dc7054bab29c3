"""int8-static and fp8: calibration methods, migration, sums that do not saturate, the form that engines fuse."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from headway.core.errors import UsageError
from headway.export import calibration
from headway.export.calibration import Observed
from headway.export.precision import base, fp8, int8_static
from headway.export.precision.int8 import LARGEST_WEIGHT
from tests import precisions
from tests.tolerance import TOLERANCE

FEEDS = precisions.feeds(32)
matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 9)),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


def observed(rows: NDArray[np.float32]) -> Observed:
    return Observed(rows, np.abs(rows).max(axis=0))


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def error(x: Observed, weight: NDArray[np.float32], method: str, migrated: bool) -> float:
    found = calibration.candidates(x, weight, LARGEST_WEIGHT)
    return min(c.error for c in found if c.method == method and (c.migration is not None) == migrated)


@pytest.mark.parametrize("name", ["int8-static", "fp8"])
def test_without_texts_there_is_nothing_to_calibrate_on(name: str) -> None:
    with pytest.raises(UsageError, match="^--calibration: static quantization needs texts"):
        base.load(name).convert(precisions.fp32(), (), [])


def test_observed_is_what_the_graph_computes() -> None:
    model = precisions.fp32()
    value = model.graph.outputs[0]
    found = calibration.observe(model, [value], FEEDS)[value]
    every = np.concatenate([out[0] for out in precisions.run(model, FEEDS)])  # (N, D)
    rtol, atol = TOLERANCE["float32"]
    np.testing.assert_allclose(found.most, np.abs(every).max(axis=0), rtol, atol)
    distance = np.abs(found.rows[:, None] - every).max(axis=2).min(axis=1)  # from each row to the nearest
    assert distance.max() <= 10 * atol
    assert len(model.graph.outputs) == 2
    assert all(
        not v.is_graph_output() for node in model.graph for v in node.outputs if v not in model.graph.outputs
    )


def test_an_outlier_channel_is_migrated() -> None:
    """One channel x1000 takes all levels for itself; SmoothQuant's migration gives them back."""
    rows = normal(500, 64)
    rows[:, 7] *= 1000
    weight = normal(64, 32, seed=1)
    weight[7] /= 1000  # as trained weights do
    x = observed(rows)
    plain = error(x, weight, "min-max", migrated=False)
    assert plain > 0.3
    assert error(x, weight, "min-max", migrated=True) < 0.01
    choice = calibration.choose(x, weight, LARGEST_WEIGHT, gain=int8_static.GAIN)
    assert choice.migration is not None
    assert choice.error < 0.01
    assert calibration.choose(x, weight, LARGEST_WEIGHT, gain=0).migration is None


def test_rare_outlier_elements_are_clipped() -> None:
    """A few elements x1000 in as many tokens cost the others their levels, unless they are clipped."""
    rows = normal(1000, 256)
    rows[[3, 500, 900], [7, 11, 200]] *= 1000
    weight = normal(256, 32, seed=1)
    x = observed(rows)
    plain = error(x, weight, "min-max", migrated=False)
    for method in ("percentile", "entropy"):
        assert error(x, weight, method, migrated=False) < plain / 5
    choice = calibration.choose(x, weight, LARGEST_WEIGHT, gain=0)
    assert choice.method in ("percentile", "entropy")
    assert choice.limit < x.most.max() / 100


def test_massive_tokens_do_not_decide_alone() -> None:
    """Ranges are chosen for tokens, not for their sum: one token x300 in all channels may be clipped."""
    rows = normal(500, 64)
    rows[0] *= 300
    choice = calibration.choose(observed(rows), normal(64, 16, seed=1), LARGEST_WEIGHT, gain=0)
    assert choice.method != "min-max"


@given(matrices, matrices)
def test_migration_changes_no_product(x: NDArray[np.float32], w: NDArray[np.float32]) -> None:
    width = min(x.shape[1], len(w))
    rows, weight = x[:, :width].astype(np.float64), w[:width].astype(np.float64)
    by = calibration.migrate(np.abs(x[:, :width]).max(axis=0), np.abs(w[:width]).max(axis=1), 0.5)
    assert np.all(np.isfinite(by) & (by > 0))
    bound = np.abs(rows) @ np.abs(weight)
    assert np.all(np.abs((rows / by) @ (weight * by[:, None]) - rows @ weight) <= 1e-9 * bound)


@given(matrices)
def test_rounding_is_to_the_nearest_level(weight: NDArray[np.float32]) -> None:
    levels, scale = calibration.rounded(weight, LARGEST_WEIGHT)
    assert levels.dtype == np.int8
    assert np.abs(levels.astype(int)).max() <= LARGEST_WEIGHT
    assert np.all(np.abs(levels * scale - weight) <= scale * 0.5001 + 1e-20)
    np.testing.assert_array_equal(levels * (weight < 0) <= 0, levels * (weight > 0) >= 0)


@given(matrices)
def test_fp8_rounding_keeps_three_bits_and_never_overflows(weight: NDArray[np.float32]) -> None:
    levels, scale = fp8.rounded(weight)
    found = levels.astype(np.float32) * scale
    assert np.all(np.isfinite(found))
    smallest = float(ml_dtypes.finfo(fp8.E4M3).smallest_subnormal)  # type: ignore[no-untyped-call]
    assert np.all(np.abs(found - weight) <= np.maximum(np.abs(weight) / 16, scale * smallest) * 1.001 + 1e-20)


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 60), st.just(3)), elements=st.floats(-99, 99, width=32)
    )
)
def test_no_method_goes_beyond_what_was_seen(rows: NDArray[np.float32]) -> None:
    x = observed(rows)
    for limit_of in calibration.METHODS.values():
        assert 0 <= limit_of(x) <= max(float(x.most.max()) * 1.0001, calibration.LEAST)


def test_sums_do_not_saturate(tmp_path: Path) -> None:
    """All activations and weights at their largest: pairs of products must fit 16 bits where VNNI is missing."""
    x = ir.Value(name="x", shape=ir.Shape([1, 4, 64]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(
        name="w", shape=ir.Shape([64, 8]), type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(np.ones((64, 8), np.float32), name="w"),
    )  # fmt: skip
    node = ir.node("MatMul", [x, weight], name="product")
    out = node.outputs[0]
    out.name, out.type, out.shape = precisions.LOGITS, x.type, ir.Shape([1, 4, 8])
    graph = ir.Graph([x], [out], nodes=[node], initializers=[weight], opset_imports={"": 24}, name="one")
    feed = {"x": np.ones((1, 4, 64), np.float32)}
    model = int8_static.convert(ir.Model(graph, ir_version=11), (), [feed])
    assert "MatMulIntegerToFloat" in precisions.optimized_ops(model, tmp_path)
    rtol, atol = TOLERANCE["float32"]
    np.testing.assert_allclose(precisions.run(model, [feed])[0], np.full((1, 4, 8), 64), rtol, atol)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_every_product_is_fused(pre_norm: bool, tmp_path: Path) -> None:
    model = int8_static.convert(precisions.fp32(pre_norm), (), FEEDS)
    made = precisions.optimized_ops(model, tmp_path)
    assert made.count("MatMulIntegerToFloat") == 2 * 4 + 1  # query, key and value are one
    assert "MatMul" not in made
    assert "DequantizeLinear" not in made
    fused, plain = precisions.run(model, FEEDS), precisions.run(model, FEEDS, optimized=False)
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_allclose(one, other, *TOLERANCE["float16"])


def test_symmetric_and_per_channel_as_tensorrt_takes_it() -> None:
    model = int8_static.convert(precisions.fp32(), (), FEEDS)
    constants = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value
    }
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[str(value.name)] for value in node.inputs[1:] if value is not None)
            assert zero.dtype == np.int8
            assert not zero.any()
            assert scale.ndim == int(str(node.inputs[0].name) in constants)  # type: ignore[union-attr]
    assert {a.dtype.name for n, a in constants.items() if n.endswith(".int8")} == {"int8"}


def test_migration_costs_nothing_after_a_normalization_of_its_own() -> None:
    """Layers that normalize before: scale and bias of the LayerNormalization take the migration over."""
    before, after = (
        precisions.fp32(pre_norm=True, outlier=1000.0),
        precisions.fp32(pre_norm=True, outlier=1000.0),
    )
    model = int8_static.convert(after, (), FEEDS)
    migrated = [name for name in model.graph.initializers if ".absorbed." in name]
    assert len(migrated) >= 2 * 4  # weight and bias of four
    texts = precisions.feeds(8, seed=1)
    expected = np.concatenate([o[0] for o in precisions.run(before, texts)])
    found = np.concatenate([o[0] for o in precisions.run(model, texts)])
    assert np.abs(found - expected).mean() / expected.std() < 0.15


def test_migration_is_a_product_where_the_normalization_has_other_readers() -> None:
    model = int8_static.convert(precisions.fp32(outlier=1000.0), (), FEEDS)
    absorbed = {name.split(".")[0] for name in model.graph.initializers if ".absorbed." in name}
    assert precisions.ops(model).count("Mul") >= 2
    assert absorbed == {"layer_norm_4"}  # the last, which the head alone reads


def test_a_planted_outlier_channel_is_withstood(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel of the embeddings' normalization x1000: plain min-max loses the text, the choice does not."""
    texts = precisions.feeds(8, seed=1)
    expected = np.concatenate([o[0] for o in precisions.run(precisions.fp32(True, 1000.0), texts)])

    def mean() -> float:
        model = int8_static.convert(precisions.fp32(True, 1000.0), (), FEEDS)
        found = np.concatenate([o[0] for o in precisions.run(model, texts)])
        return float(np.abs(found - expected).mean() / expected.std())

    chosen = mean()
    monkeypatch.setattr(calibration, "METHODS", {"min-max": calibration.min_max})
    monkeypatch.setattr(calibration, "MIGRATIONS", ())
    plain = mean()
    assert chosen < plain / 3
