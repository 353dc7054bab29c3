"""Simulated 16-bit and 8-bit floats on a processor: numpy's and torch's own rounding, op by op and in a model."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.core.tolerance import PRECISION
from headway.export.precision import base, fp16
from headway.export.simulated import simulate
from tests import precisions
from tests.tolerance import TOLERANCE

DTYPES: dict[str, tuple[str, Any, torch.dtype]] = {  # precision -> type in ONNX, in numpy, in torch
    "fp16": ("float16", np.float16, torch.float16),
    "bf16": ("bfloat16", ml_dtypes.bfloat16, torch.bfloat16),
}
E4M3 = ml_dtypes.float8_e4m3fn
HIGHEST = 448
TEXTS = precisions.feeds(12, seed=1)
LEVELS = (
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def written(
    nodes: str, dtype: str, inputs: str = "float[N, M] x, float[N, M] z", **constants: Any
) -> ir.Model:
    """A graph from x and z, as u and w in a 16-bit type, to y, written as ONNX text."""
    to = {"float16": 10, "bfloat16": 16, "float": 1}[dtype]
    ends = "" if dtype == "float" else f"u = Cast<to = {to}>(x) w = Cast<to = {to}>(z)"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 11, opset_import: ["": 24]>
        g ({inputs}) => (float y) {{ {ends} {nodes} y = Cast<to = 1>(r) }}"""
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return ir.from_proto(proto)


def run(model: ir.Model, level: Any = LEVELS[-1], **given: Any) -> NDArray[Any]:
    """The simulated graph's first output by ONNX Runtime on the processor."""
    proto = ir.to_proto(simulate(model))
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, given)[0])


def sample(seed: int, *shape: int) -> NDArray[np.float32]:
    """Numbers of many magnitudes."""
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=shape) * np.exp(generator.normal(size=shape))
    return numbers.astype(np.float32)


OPS: dict[str, tuple[str, Any]] = {
    "Add": ("r = Add(u, w)", torch.add),
    "Sub": ("r = Sub(u, w)", torch.sub),
    "Mul": ("r = Mul(u, w)", torch.mul),
    "Div": ("r = Div(u, w)", torch.div),
    "Max": ("r = Max(u, w)", torch.maximum),
    "chain": ("a = Mul(u, w) b = Add(a, u) r = Sub(b, a)", lambda u, w: u * w + u - u * w),
    "Where": ("m = Less(u, w) r = Where(m, u, w)", lambda u, w: torch.where(u < w, u, w)),
    "Concat": ("r = Concat<axis = 1>(u, w)", lambda u, w: torch.cat([u, w], 1)),
    "Transpose": ("t = Transpose(u) r = Identity(t)", lambda u, w: u.T),
    "Sqrt": ("a = Abs(u) r = Sqrt(a)", lambda u, w: u.abs().sqrt()),
    "Reciprocal": ("r = Reciprocal(w)", lambda u, w: w.reciprocal()),
    "ConstantOfShape": (
        "s = Shape(u) c = ConstantOfShape(s) d = CastLike(c, u) r = Add(u, d)",
        lambda u, w: u,
    ),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", DTYPES)
def test_ops_are_torchs(name: str, op: str, level: Any) -> None:
    """Rounded to the nearest after every op, whatever ONNX Runtime optimizes."""
    kind, _, dtype = DTYPES[name]
    nodes, expected = OPS[op]
    x, z = sample(0, 40, 9), sample(1, 40, 9)
    found = run(written(nodes, kind), level, x=x, z=z)
    wanted = expected(*(torch.from_numpy(array).to(dtype) for array in (x, z)))
    np.testing.assert_array_equal(found, wanted.float().numpy())


COMPOSED: dict[str, tuple[str, Any]] = {
    "Softmax": ("r = Softmax<axis = -1>(u)", lambda u: u.softmax(-1)),
    "Gelu": ("r = Gelu(u)", torch.nn.functional.gelu),
    "Tanh": ("r = Tanh(u)", torch.tanh),
    "Sigmoid": ("r = Sigmoid(u)", torch.sigmoid),
    "LayerNormalization": (
        "r = LayerNormalization<epsilon = 1e-5>(u, one)",
        lambda u: torch.nn.functional.layer_norm(u, (9,), eps=1e-5),
    ),
    "ReduceMean": ("r = ReduceMean<keepdims = 1>(u, last)", lambda u: u.mean(-1, keepdim=True)),
}


@pytest.mark.parametrize("op", COMPOSED)
@pytest.mark.parametrize("name", DTYPES)
def test_ops_of_several_steps_are_rounded_once(name: str, op: str) -> None:
    kind, numpy, dtype = DTYPES[name]
    nodes, expected = COMPOSED[op]
    constants = {"one": np.ones(9, numpy), "last": np.array([-1], np.int64)}
    used = {key: array for key, array in constants.items() if f" {key})" in nodes}
    x = sample(0, 40, 9)
    found = run(written(nodes, kind, **used), x=x, z=x)
    wanted = expected(torch.from_numpy(x).to(dtype)).float().numpy()
    np.testing.assert_allclose(found, wanted, *TOLERANCE[kind])
    np.testing.assert_array_equal(found, found.astype(numpy).astype(np.float32))
    assert (found == wanted).mean() > 0.97


def test_attributes_in_16_bits() -> None:
    model = written("s = Shape(u) c = ConstantOfShape(s) r = Add(u, c)", "float16")
    (node,) = (node for node in model.graph if node.op_type == "ConstantOfShape")
    node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array([0.1], np.float16)))
    x = sample(8, 5, 3)
    expected = (x.astype(np.float16) + np.float16(0.1)).astype(np.float32)
    np.testing.assert_array_equal(run(model, x=x, z=x), expected)


@pytest.mark.parametrize("name", DTYPES)
def test_products_are_summed_in_fp32(name: str) -> None:
    """4,096 ones: a 16-bit sum would stop at 2,048 or 256, where another one makes no difference."""
    kind, dtype, _ = DTYPES[name]
    weight = np.ones((4096, 1), dtype)
    x = np.ones((1, 4096), np.float32)
    found = run(written("r = MatMul(u, v)", kind, v=weight), x=x, z=x)
    assert found.tolist() == [[4096]]


@pytest.mark.parametrize("name", DTYPES)
def test_products_of_matrices(name: str) -> None:
    kind, dtype, _ = DTYPES[name]
    weight, x = sample(2, 30, 20).astype(dtype), sample(3, 50, 30)
    found = run(written("r = MatMul(u, v)", kind, v=weight), x=x, z=x)
    exact = x.astype(dtype).astype(np.float64) @ weight.astype(np.float64)
    assert (found == exact.astype(np.float32).astype(dtype).astype(np.float32)).mean() > 0.99
    np.testing.assert_allclose(found, exact, *TOLERANCE[kind])


def test_an_overflow_is_seen() -> None:
    """300 * 300 is beyond fp16, within bf16."""
    x = np.array([[300, -300, 200]], np.float32)
    factors = np.array([[300, 300, 200]], np.float32)
    found = run(written("a = Mul(u, w) r = Div(a, w)", "float16"), x=x, z=factors)
    assert found.tolist() == [[np.inf, -np.inf, 200]]
    assert np.all(np.isfinite(run(written("a = Mul(u, w) r = Div(a, w)", "bfloat16"), x=x, z=factors)))


def test_an_overflow_of_a_sum_of_products_is_seen() -> None:
    weight = np.full((64, 1), 100, np.float16)
    x = np.stack([np.full(64, 9, np.float32), np.full(64, 11, np.float32)])
    assert run(written("r = MatMul(u, v)", "float16", v=weight), x=x, z=x).tolist() == [[57600], [np.inf]]


def test_small_numbers_vanish_in_fp16() -> None:
    x = np.array([[1e-8, 6e-8, 1e-7]], np.float32)
    found = run(written("r = Mul(u, w)", "float16"), x=x, z=np.ones_like(x))
    np.testing.assert_array_equal(found, x.astype(np.float16).astype(np.float32))
    assert found[0, 0] == 0


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.sampled_from(sorted(DTYPES)))
def test_any_number_is_rounded_as_numpy_does(numbers: list[float], name: str) -> None:
    """Ties, subnormals, infinities and NaN."""
    kind, dtype, _ = DTYPES[name]
    x = np.array([numbers], np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(run(written("r = Identity(u)", kind), x=x, z=x), expected)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_e4m3_rounds_and_saturates(numbers: list[float]) -> None:
    x = np.array([numbers], np.float32)
    nodes = "a = QuantizeLinear(x, s, n) r = DequantizeLinear(a, s, n)"
    model = written(nodes, "float", s=np.float32(0.25), n=np.array(0, E4M3))
    with np.errstate(over="ignore"):
        levels = np.clip(x / np.float32(0.25), -HIGHEST, HIGHEST).astype(E4M3)
    expected = levels.astype(np.float32) * np.float32(0.25)
    np.testing.assert_array_equal(run(model, x=x, z=x), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_e4m3_with_a_scale_for_each_channel(axis: int, level: Any) -> None:
    scale = np.exp(sample(4, (30, 20)[axis])).astype(np.float32)
    weight = np.clip(sample(5, 30, 20) * 50, -HIGHEST, HIGHEST).astype(E4M3)
    nodes = f"v = DequantizeLinear<axis = {axis}>(q, s) r = MatMul(x, v)"
    x = sample(6, 8, 30)
    spread = scale[:, None] if axis != 1 else scale
    found = run(written(nodes, "float", q=weight, s=scale), level, x=x, z=x)
    np.testing.assert_allclose(found, x @ (weight.astype(np.float32) * spread), *TOLERANCE["float32"])


def test_e4m3_in_a_model_is_the_standards() -> None:
    wanted = precisions.evaluate(converted("fp8"), TEXTS)
    for ours, theirs in zip(precisions.run(simulate(converted("fp8")), TEXTS), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=PRECISION["fp32"].worst)


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8 in fp16"])
def test_16_bits_cost_a_model_what_the_standards_evaluator_says(name: str) -> None:
    """That one also rounds within ops, and so loses more."""
    expected = np.concatenate([o[0] for o in precisions.run(precisions.fp32(), TEXTS)])
    wanted = np.concatenate([o[0] for o in precisions.evaluate(converted(name), TEXTS)])
    found = np.concatenate([o[0] for o in precisions.run(simulate(converted(name)), TEXTS)])
    cost = np.abs(wanted - expected).mean()
    assert 0.5 * cost < np.abs(found - expected).mean() < 1.1 * cost


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8"])
def test_a_text_alone_is_as_among_others(name: str) -> None:
    model = simulate(converted(name))
    alone = precisions.run(model, TEXTS)
    together = precisions.run(model, [precisions.padded(TEXTS)])[0]
    spread = np.concatenate([out[0] for out in alone]).std()
    for index, out in enumerate(alone):
        assert np.abs(together[index, : out.shape[1]] - out[0]).max() / spread <= PRECISION[name].neighbours


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", "fp8", "fp8 in fp16", "int8-static"])
def test_inputs_and_outputs_stay_and_nothing_else_is_narrow(name: str) -> None:
    before = ir.to_proto(converted(name))
    model = simulate(ir.from_proto(before))
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    narrow = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT8E4M3FN)
    for node in model.graph:
        if node.op_type != "Cast":
            assert not [v for v in (*node.inputs, *node.outputs) if v is not None and v.dtype in narrow]


def test_a_graph_without_narrow_floats_is_unchanged() -> None:
    for name in ("fp32", "int8-static"):
        assert precisions.ops(simulate(converted(name))) == precisions.ops(converted(name))


def test_16_bit_inputs_and_outputs() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 11, opset_import: ["": 24]>
        g (float16[N, 2] x, float16[N, 2] z) => (float16[N, 2] y, float16[N, 2] r)
        { r = Mul(x, z) y = Transpose<perm = [0, 1]>(r) }"""
    )
    model = simulate(ir.from_proto(proto))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    session = ort.InferenceSession(precisions.content(model), providers=["CPUExecutionProvider"])
    x = sample(7, 30, 2).astype(np.float16)
    for found in session.run(["y", "r"], {"x": x, "z": x}):
        np.testing.assert_array_equal(found, x * x, strict=True)


def converted(name: str) -> ir.Model:
    """The small encoder in a precision; "fp8 in fp16" has fp16 around its products."""
    own, _, around = name.partition(" in ")
    feeds = precisions.feeds(12)
    model = base.load(own).convert(precisions.fp32(), (), feeds)
    return fp16.convert(model, (), feeds) if around else model
