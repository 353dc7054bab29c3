"""Graphs for TensorRT: attention in products equals the op, what has a kernel stays, and nothing refused remains."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from headway.core import siblings
from headway.core.tolerance import PRECISION
from headway.export.engine import tensorrt
from headway.export.engine.base import PRECISIONS
from headway.export.precision import base, fp16
from tests import precisions
from tests.tolerance import TOLERANCE

TEXTS = precisions.feeds(12, seed=1)
HALVES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
NEW, SEEN, PAST = 5, 7, 3
"""tokens that ask, tokens that come with keys and values, and tokens in the cache"""


def attention(
    kind: int = TensorProto.FLOAT,
    head: int = 16,
    heads: int = 4,
    groups: int = 4,
    flat: bool = False,
    mask: Any = None,
    cached: bool = False,
    **attributes: Any,
) -> ir.Model:
    """One Attention, with a mask of a type and a shape."""
    sizes: list[Any] = ["batch", heads, "new", head]
    keys: list[Any] = ["batch", groups, "seen", head]
    if flat:
        sizes, keys = ["batch", "new", heads * head], ["batch", "seen", groups * head]
        attributes |= {"q_num_heads": heads, "kv_num_heads": groups}
    inputs = {"q": (kind, sizes), "k": (kind, keys), "v": (kind, keys)}
    outputs = {"y": (kind, sizes)}
    if mask is not None:
        inputs["mask"] = mask
    names = ["q", "k", "v", "mask" if mask else ""]
    if cached:
        for name, new in (("past_key", "present_key"), ("past_value", "present_value")):
            inputs[name] = (kind, ["batch", groups, "past", head])
            outputs[new] = (kind, ["batch", groups, "total", head])
        names += ["past_key", "past_value"]
    node = helper.make_node("Attention", names, list(outputs), "attention", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, *each) for name, each in outputs.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11))


def inputs(model: ir.Model) -> dict[str, NDArray[Any]]:
    """Random numbers; a mask lets every token see at least the first."""
    generator = np.random.default_rng(0)
    lengths = {"batch": 2, "new": NEW, "seen": SEEN, "past": PAST, "total": PAST + SEEN}
    made = {}
    for value in model.graph.inputs:
        shape = [lengths.get(str(d), d) for d in value.shape or ()]
        assert value.dtype is not None
        if value.dtype == ir.DataType.BOOL:
            made[str(value.name)] = generator.random(shape) < 0.6
            made[str(value.name)][..., 0] = True
        else:
            made[str(value.name)] = generator.normal(size=shape).astype(value.dtype.numpy())
    return made


def answers(model: ir.Model, given: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # as the graph says
    content = precisions.content(model)
    return list(ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, given))


def rewritten(model: ir.Model) -> ir.Model:
    """Rewritten, a valid graph with the same inputs and outputs."""
    before = ir.to_proto(model)
    found = tensorrt.rewrite(model)
    after = ir.to_proto(found)
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    return found


BOOL, FLOAT = TensorProto.BOOL, TensorProto.FLOAT
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small heads": {"head": 8},
    "scale": {"scale": 0.7},
    "no scale": {"scale": 1.0},
    "softcap": {"softcap": 0.5},
    "causal": {"is_causal": 1},
    "bool mask": {"mask": (BOOL, ["batch", 1, "new", "seen"])},
    "bool mask of keys": {"mask": (BOOL, ["new", "seen"])},
    "float mask": {"mask": (FLOAT, ["batch", 4, "new", "seen"])},
    "causal with a bool mask": {"is_causal": 1, "mask": (BOOL, ["batch", 1, "new", "seen"])},
    "causal with a float mask": {"is_causal": 1, "mask": (FLOAT, ["new", "seen"])},
    "softcap with a float mask": {"softcap": 0.5, "mask": (FLOAT, ["batch", 1, "new", "seen"])},
    "grouped heads": {"groups": 2},
    "one group": {"groups": 1, "mask": (BOOL, ["batch", 1, "new", "seen"])},
    "flat": {"flat": True, "mask": (BOOL, ["batch", 1, "new", "seen"])},
    "flat grouped heads": {"flat": True, "groups": 2, "is_causal": 1},
    "cache": {"cached": True},
    "causal with a cache": {"cached": True, "is_causal": 1, "groups": 2},
    "flat with a cache": {"cached": True, "flat": True, "mask": (BOOL, ["new", "total"])},
}


@pytest.mark.parametrize("kind", KINDS)
def test_attention_in_products_is_the_op(kind: str) -> None:
    given = inputs(attention(**KINDS[kind]))
    expected = answers(attention(**KINDS[kind]), given)
    model = rewritten(attention(**KINDS[kind]))
    assert "Attention" not in precisions.ops(model)
    assert not tensorrt.refused(model)
    for ours, theirs in zip(answers(model, given), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, *TOLERANCE["float32"])


def test_keys_without_a_cache_may_be_an_output() -> None:
    model = attention()
    node = model.graph[0]
    node.resize_outputs(3)
    for value, name, source in zip(node.outputs[1:], ("keys", "values"), model.graph.inputs[1:], strict=True):
        value.name, value.type, value.shape = name, source.type, source.shape
        model.graph.outputs.append(value)
    given = inputs(model)
    found = answers(rewritten(model), given)
    np.testing.assert_array_equal(found[1], given["k"])
    np.testing.assert_array_equal(found[2], given["v"])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["plain", "scale", "causal", "bool mask", "grouped heads", "flat"])
def test_16_bit_attention_stays_one_op(kind: str, dtype: str) -> None:
    model = rewritten(attention(HALVES[dtype], **KINDS[kind]))
    before = ["Where"] if dtype == "bfloat16" and "mask" in KINDS[kind] else []
    assert precisions.ops(model) == [*before, "Attention"]
    assert not tensorrt.refused(model)


def test_a_mask_in_bf16_is_added_once_for_all_attentions() -> None:
    kind = KINDS["bool mask"]
    wide, model = attention(**kind), attention(HALVES["bfloat16"], **kind)
    given = inputs(wide)
    second = ir.node("Attention", [*model.graph[0].inputs], name="second")
    second.outputs[0].name = "z"
    second.outputs[0].type, second.outputs[0].shape = (
        model.graph.outputs[0].type,
        model.graph.outputs[0].shape,
    )
    model.graph.append(second)
    model.graph.outputs.append(second.outputs[0])
    assert precisions.ops(rewritten(model)) == ["Where", "Attention", "Attention"]
    halves = {n: a if a.dtype == np.bool_ else a.astype(ml_dtypes.bfloat16) for n, a in given.items()}
    expected = answers(wide, given)[0]
    for found in ReferenceEvaluator(ir.to_proto(model)).run(None, halves):  # type: ignore[union-attr]
        atol = 4 * TOLERANCE["bfloat16"][1]  # of several roundings
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "kind", ["small heads", "softcap", "causal with a bool mask", "cache", "causal with a cache"]
)
def test_16_bit_attention_without_a_kernel_is_in_products(kind: str, dtype: str) -> None:
    wide = attention(**KINDS[kind])
    given = inputs(wide)
    expected = answers(wide, given)[0]
    halves = {
        name: array if array.dtype == np.bool_ else array.astype(getattr(ml_dtypes, dtype, dtype))
        for name, array in given.items()
    }
    model = rewritten(attention(HALVES[dtype], **KINDS[kind]))
    assert not tensorrt.refused(model)
    found = np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, halves)[0])  # type: ignore[index]
    atol = 4 * TOLERANCE[dtype][1]  # of several roundings
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0, atol=atol)


def test_softmax_in_another_type() -> None:
    model = rewritten(attention(HALVES["float16"], softmax_precision=int(FLOAT)))
    kinds = {node.op_type: node.inputs[0] for node in model.graph}
    assert precisions.ops(model).count("Cast") == 2
    assert kinds["Softmax"] is not None
    assert kinds["Softmax"].producer().attributes["to"].as_int() == FLOAT  # type: ignore[union-attr]


def test_a_token_that_sees_nothing_gets_the_mean() -> None:
    model = rewritten(attention(**KINDS["bool mask"]))
    given = inputs(model)
    given["mask"][1, :, 2] = False
    found = answers(model, given)[0]
    np.testing.assert_allclose(found[1, :, 2], given["v"][1].mean(axis=1), *TOLERANCE["float32"])


@pytest.mark.parametrize("together", [False, True])
def test_an_encoder_alone_and_padded(together: bool) -> None:
    texts = [precisions.padded(TEXTS)] if together else TEXTS
    expected = precisions.run(precisions.fp32(), texts, optimized=False)
    model = rewritten(precisions.fp32())
    assert "Attention" not in precisions.ops(model)
    for ours, theirs, text in zip(precisions.run(model, texts), expected, texts, strict=True):
        real = text["attention_mask"] == 1
        np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=PRECISION["fp32"].worst)


@pytest.mark.parametrize("name", PRECISIONS["tensorrt"])
def test_nothing_refused_is_left(name: str) -> None:
    converted = base.load(name).convert(precisions.fp32(), (), precisions.feeds(12))
    refused = tensorrt.refused(converted)
    assert len(refused) == 2  # heads of 8 numbers are too small for any type
    assert all("Attention has no kernel" in reason for reason in refused)
    assert not tensorrt.refused(rewritten(converted))


def test_precisions_are_all_but_int8() -> None:
    assert set(PRECISIONS["tensorrt"]) == set(siblings.names(base.FAMILY)) - {"int8"}
    model = tensorrt.rewrite(base.load("int8").convert(precisions.fp32(), (), []))
    assert any("MatMulInteger has no counterpart" in reason for reason in tensorrt.refused(model))


@pytest.mark.parametrize("name", ["int8-static", "fp8", "int8-weights", "int4-weights"])
def test_quantized_graphs_in_16_bits(name: str) -> None:
    """Symmetric levels stay symmetric."""
    feeds = precisions.feeds(12)
    model = fp16.convert(base.load(name).convert(precisions.fp32(), (), feeds), (), feeds)
    assert not tensorrt.refused(rewritten(model))


ZEROS: dict[str, tuple[Any, str | None]] = {
    "int8": (np.int8(0), None),
    "int8 that is not symmetric": (np.int8(3), "is not a constant zero"),
    "uint8": (np.uint8(128), "UINT8 is no type"),
    "e4m3": (np.array(0, ml_dtypes.float8_e4m3fn), None),
    "e5m2": (np.array(0, ml_dtypes.float8_e5m2), "FLOAT8E5M2 is no type"),
    "uint4": (np.array(0, ml_dtypes.uint4), "UINT4 is no type"),
    "int4": (np.array(0, ml_dtypes.int4), None),
}


@pytest.mark.parametrize("kind", ZEROS)
def test_levels(kind: str) -> None:
    zero, reason = ZEROS[kind]
    model = written("a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z)", s=np.float32(0.1), z=zero)
    refused = tensorrt.refused(model)
    assert len(refused) == (0 if reason is None else 2)
    assert all(str(reason) in each for each in refused)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("a = QuantizeLinear(x, s) y = DequantizeLinear(a, s)", "UINT8 is no type"),
        ("a, b, c = DynamicQuantizeLinear(x) y = DequantizeLinear(a, b)", "DynamicQuantizeLinear has no"),
        ("y = com.microsoft.FastGelu(x)", "com.microsoft.FastGelu is no standard op"),
    ],
)
def test_refused(nodes: str, reason: str) -> None:
    assert reason in tensorrt.refused(written(nodes, s=np.float32(0.1)))[0]


def test_attention_over_lengths_is_refused() -> None:
    model = attention()
    node = model.graph[0]
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch"]))
    model.graph.inputs.append(lengths)
    node.resize_inputs(7)
    node.replace_input_with(6, lengths)
    assert precisions.ops(tensorrt.rewrite(model)) == ["Attention"]
    message = "attention: Attention has no kernel for FLOAT, heads of 16/16/16, nonpad_kv_seqlen"
    assert tensorrt.refused(model) == [message]


def written(nodes: str, **constants: Any) -> ir.Model:
    """A graph from x (N, 4) to y, written as ONNX text."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 11, opset_import: ["": 24, "com.microsoft": 1]>
        g (float[N, 4] x) => (float[N, 4] y) {{ {nodes} }}"""
    )
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return ir.from_proto(proto)


def problem(model: ir.Model) -> str:
    """What TensorRT-RTX's parser or builder says against a graph, for compute capability 8.9."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the builder is not installed")
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    if not parser.parse(precisions.content(model)):
        return str(parser.get_error(0).desc())
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    for value in model.graph.inputs:
        sizes = [[d if isinstance(d, int) else most for d in value.shape or ()] for most in (1, 4, 16)]
        profile.set_shape(value.name, *sizes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return "" if builder.build_serialized_network(network, config) else "is not built"


@pytest.mark.parametrize("name", PRECISIONS["tensorrt"])
def test_the_builder_takes_every_precision(name: str) -> None:
    converted = base.load(name).convert(precisions.fp32(), (), precisions.feeds(12))
    assert problem(rewritten(converted)) == ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "cache" not in kind])
@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_the_builder_takes_every_attention(kind: str, dtype: str) -> None:
    sizes = dict(KINDS[kind])
    if "mask" in sizes and sizes["mask"][0] == FLOAT:
        sizes["mask"] = (HALVES.get(dtype, FLOAT), sizes["mask"][1])
    assert problem(rewritten(attention(HALVES.get(dtype, FLOAT), **sizes))) == ""


def test_the_builder_refuses_what_is_refused() -> None:
    for model in (
        attention(),
        attention(HALVES["float16"], head=8),
        attention(HALVES["float16"], softcap=1.0),
    ):
        assert tensorrt.refused(model)
        assert problem(model) != ""
