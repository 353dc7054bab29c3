"""fp16 and bf16: few Casts, and 32 bits just where 16 would overflow, vanish or be too coarse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from headway.export.precision import base, bf16, fp16
from tests import precisions
from tests.tolerance import TOLERANCE

NAMES = ("fp16", "bf16")
KINDS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
FEEDS = precisions.feeds(24)


def graph(nodes: str, **constants: Any) -> ir.Model:
    """A graph from x (N, 4) to y, written as ONNX text."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 11, opset_import: ["": 24]>
        g (float[N, 4] x) => (float[N, M] y) {{ {nodes} }}"""
    )
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True))


def types(model: ir.Model) -> dict[str, ir.DataType | None]:
    """The type that each op but Cast computes in."""
    return {node.op_type: node.outputs[0].dtype for node in model.graph if node.op_type != "Cast"}


def casts(model: ir.Model) -> int:
    """Casts from one float type to another."""
    floats = (ir.DataType.FLOAT, *KINDS.values())
    sources = [node.inputs[0] for node in model.graph if node.op_type == "Cast"]
    return sum(value is not None and value.dtype in floats for value in sources)


def feed(*rows: Sequence[float]) -> dict[str, NDArray[np.float32]]:
    return {"x": np.array(rows, np.float32)}


def evaluated(model: ir.Model, given: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return np.asarray(ReferenceEvaluator(proto).run(None, given)[0])  # type: ignore[index]


@pytest.mark.parametrize("name", NAMES)
def test_all_is_16_bit_but_the_outputs(name: str) -> None:
    model = base.load(name).convert(precisions.fp32(), (), FEEDS)
    assert casts(model) == 1  # of the logits, from which softmax makes the probabilities in fp32
    kinds = {v.dtype for v in model.graph.initializers.values()} - {ir.DataType.INT64}
    assert kinds == {KINDS[name]}
    assert {n: k for n, k in types(model).items() if k == ir.DataType.FLOAT} == {"Softmax": ir.DataType.FLOAT}
    assert model.graph.initializers.keys() == precisions.fp32().graph.initializers.keys()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_nearest_16_bit_numbers(name: str) -> None:
    model = base.load(name).convert(precisions.fp32(), (), FEEDS)
    for key, value in precisions.fp32().graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
            found = model.graph.initializers[key].const_value
            assert found is not None
            np.testing.assert_array_equal(
                found.numpy(), value.const_value.numpy().astype(KINDS[name].numpy())
            )


def test_an_op_beyond_the_range_stays_fp32_alone() -> None:
    """x -> Mul -> Mul (up to 90,000) -> Div -> Sub -> Exp: Mul and Div are wide, with a Cast on either side."""
    nodes = "a = Mul(x, two) b = Mul(a, large) c = Div(b, small) d = Sub(c, two) y = Exp(d)"
    constants = {"two": np.float32(2), "large": np.float32(1000), "small": np.float32(3000)}
    model = fp16.convert(graph(nodes, **constants), (), [feed([45, 1, 2, 3])])
    assert types(model)["Mul"] == ir.DataType.FLOAT  # the second
    assert types(model)["Div"] == ir.DataType.FLOAT
    assert types(model)["Sub"] == ir.DataType.FLOAT16
    assert casts(model) == 4  # x, a, c and y
    expected = evaluated(graph(nodes, **constants), feed([45, 1, 2, 3]))
    np.testing.assert_allclose(evaluated(model, feed([45, 1, 2, 3])), expected, *TOLERANCE["float16"])
    assert ir.DataType.FLOAT not in set(
        types(fp16.convert(graph(nodes, **constants), (), [feed([1, 1, 2, 3])])).values()
    )


def test_a_large_factor_is_no_fill_of_a_mask() -> None:
    nodes = "a = Mul(x, large) b = Div(a, large) c = Sub(b, x) y = Exp(c)"
    model = fp16.convert(graph(nodes, large=np.float32(1e5)), (), [feed([1, 2, 3, 4])])
    assert types(model)["Mul"] == types(model)["Div"] == ir.DataType.FLOAT
    assert types(model)["Sub"] == ir.DataType.FLOAT16
    np.testing.assert_array_equal(evaluated(model, feed([1, 2, 3, 4])), np.ones((1, 4)))


def test_bf16_has_no_islands_for_range() -> None:
    nodes = "a = Mul(x, large) y = Div(a, large)"
    model = bf16.convert(graph(nodes, large=np.float32(1e30)), (), [feed([45, 1, 2, 3])])
    assert set(types(model).values()) == {ir.DataType.BFLOAT16}
    assert casts(model) == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [-1e9, float(np.finfo(np.float32).min)])
def test_fills_of_masks_stay_finite(name: str, fill: float) -> None:
    """Scores plus fills: no infinity and no NaN, also in a row that is masked throughout, and no island."""
    nodes = "m = Less(x, zero) f = Where(m, fill, zero) s = Add(x, f) y = Softmax <axis = -1> (s)"
    constants = {"zero": np.float32(0), "fill": np.float32(fill)}
    given = feed([1, 2, -300, 3], [-1, -2, -300, -4])
    model = base.load(name).convert(graph(nodes, **constants), (), [given])
    assert types(model)["Add"] == types(model)["Where"] == KINDS[name]
    found = evaluated(model, given)
    np.testing.assert_allclose(found[0], [0.09, 0.2447, 0, 0.6652], *TOLERANCE["bfloat16"])
    assert np.all(np.isfinite(found))
    assert found[1].sum() == pytest.approx(1, rel=TOLERANCE["bfloat16"][0])


def test_infinite_fills_stay_infinite() -> None:
    nodes = "m = Less(x, zero) y = Where(m, fill, x)"
    constants = {"zero": np.float32(0), "fill": np.float32(-np.inf)}
    model = fp16.convert(graph(nodes, **constants), (), [feed([1, 2, -3, 3])])
    assert evaluated(model, feed([1, -1, -3, 3])).tolist() == [[1, -np.inf, -np.inf, 3]]


def test_an_epsilon_that_would_vanish_is_added_in_fp32() -> None:
    nodes = "v = Mul(x, x) e = Add(v, epsilon) y = Reciprocal(e)"
    model = fp16.convert(graph(nodes, epsilon=np.float32(1e-12)), (), [feed([1, 1, 1, 1])])
    assert types(model)["Add"] == ir.DataType.FLOAT
    assert types(model)["Mul"] == ir.DataType.FLOAT16
    held = fp16.convert(graph(nodes, epsilon=np.float32(1e-6)), (), [feed([1, 1, 1, 1])])
    assert types(held)["Add"] == ir.DataType.FLOAT16


def test_the_epsilon_of_a_normalization_is_an_attribute_and_stays() -> None:
    model = fp16.convert(precisions.fp32(), (), FEEDS)
    epsilons = [n.attributes["epsilon"].as_float() for n in model.graph if n.op_type == "LayerNormalization"]
    assert epsilons == [pytest.approx(1e-12)] * 5


def test_a_weight_beyond_the_range_keeps_its_layer_in_fp32() -> None:
    weight = np.eye(4, dtype=np.float32)
    weight[0, 0] = 1e6
    model = fp16.convert(graph("a = Mul(x, x) y = MatMul(a, w)", w=weight), (), [feed([0, 1, 2, 3])])
    assert types(model) == {"Mul": ir.DataType.FLOAT16, "MatMul": ir.DataType.FLOAT}
    np.testing.assert_array_equal(evaluated(model, feed([2, 1, 1, 1])), [[4e6, 1, 1, 1]])


@pytest.mark.parametrize("name", NAMES)
def test_angles_and_integers_are_computed_in_fp32(name: str) -> None:
    """Positions times frequencies need more than 11 bits, and so do distances that become buckets."""
    nodes = "p = Mul(x, frequency) c = Cos(p) b = Floor(x) i = Cast <to = 7> (b) k = Cast <to = 1> (i) y = Mul(c, k)"
    model = base.load(name).convert(graph(nodes, frequency=np.float32(0.777)), (), [feed([4001, 1, 2, 3])])
    found = types(model)
    assert found["Cos"] == found["Floor"] == ir.DataType.FLOAT
    assert found["Mul"] == KINDS[name]  # the last
    given = feed([4001.9, 1.9, 2, 3])
    expected = evaluated(graph(nodes, frequency=np.float32(0.777)), given)
    rtol = TOLERANCE[KINDS[name].name.lower()][0]
    np.testing.assert_allclose(evaluated(model, given), expected, rtol=2 * rtol, atol=rtol)


@pytest.mark.parametrize("name", NAMES)
def test_an_op_without_a_16_bit_form_stays_fp32(name: str) -> None:
    """A window is made in the type that its attribute says; a range is defined for wider types only."""
    nodes = "a = Mul(x, x) w = HannWindow(n) r = Range(start, stop, step) s = Sub(w, r) y = Mul(a, s)"
    numbers = {"start": np.float32(0), "stop": np.float32(4), "step": np.float32(1)}
    given = feed([1, 2, 3, 4])
    model = base.load(name).convert(graph(nodes, n=np.int64(4), **numbers), (), [given])
    assert types(model)["HannWindow"] == types(model)["Range"] == ir.DataType.FLOAT
    assert types(model)["Sub"] == types(model)["Mul"] == KINDS[name]
    expected = evaluated(graph(nodes, n=np.int64(4), **numbers), given)
    np.testing.assert_allclose(evaluated(model, given), expected, *TOLERANCE["bfloat16"])


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_held_numbers_are_in_range_and_nearest(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    for kind in KINDS.values():
        found = fp16._held(array, kind).astype(np.float64)
        highest = float(ml_dtypes.finfo(kind.numpy()).max)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(array))
        np.testing.assert_array_equal(np.sign(found) * np.sign(array) >= 0, True)
        inside = np.abs(array) <= highest
        assert np.all(np.abs(found[~inside & np.isfinite(array)]) == highest / 2)


def test_quantized_graphs_become_16_bit_around_their_products() -> None:
    """What TensorRT needs, which builds no Attention in fp32."""
    texts = precisions.feeds(6, seed=1)
    for name in ("int8-static", "fp8", "int8-weights", "int4-weights"):
        quantized = base.load(name).convert(precisions.fp32(), (), FEEDS)
        expected = np.concatenate([o[0] for o in precisions.evaluate(quantized, texts)])
        model = fp16.convert(quantized, (), FEEDS)
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        assert casts(model) == 1
        assert types(model)["Attention"] == ir.DataType.FLOAT16
        found = np.concatenate([o[0] for o in precisions.evaluate(model, texts)])
        assert np.abs(found - expected).mean() / expected.std() < 0.1
