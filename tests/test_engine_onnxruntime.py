"""Graphs for ONNX Runtime: the same answers, fewer tokens and copies, and untouched what does not look as expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import transformers
from numpy.typing import NDArray

from headway.core import tasks
from headway.export import contract, encoders, graph
from headway.export.engine import onnxruntime as engine
from headway.export.precision import base
from headway.train import checkpoint
from tests import precisions
from tests.test_architectures import model_of
from tests.test_export_tasks import untrained
from tests.tolerance import NEIGHBOURS

KINDS = ("bert", "mpnet", "modernbert")
"""of others `test_export_tasks` has the rewritten graphs"""
CONVERTED = ("int8", "int8-static", "int8-weights", "int4-weights")
"""precisions that ONNX Runtime computes on a processor"""
CLOSE = 1e-5
"""largest difference that fusing may make, as a share of the logits' spread"""
FEEDS = precisions.feeds(12)


def first_of(model: ir.Model, index: int = 0, others: bool = False) -> ir.Model:
    """The graph with logits (B, C) of one token; `others`: those of all tokens are an output too."""
    tokens = model.graph.outputs[0]
    tokens.name = "tokens"
    at = base.Writer(model).constant("index", np.array(index))
    gather = ir.node("Gather", [tokens, at], {"axis": 1}, name=precisions.LOGITS)
    gather.outputs[0].name, gather.outputs[0].type = precisions.LOGITS, tokens.type
    model.graph.append(gather)
    for node in [node for node in model.graph if node.op_type == "Softmax"]:
        model.graph.outputs.pop(1)
        model.graph.remove(node, safe=True)
    model.graph.outputs[:] = [gather.outputs[0], tokens] if others else gather.outputs
    return model


def copied(model: ir.Model) -> ir.Model:
    return ir.from_proto(ir.to_proto(model))


def one_token(model: ir.Model) -> list[str]:
    """Ops that compute (B, 1, ...), but for those on scales."""
    shapes = [(node.op_type, node.outputs[0].shape) for node in model.graph]
    return [op for op, shape in shapes if shape is not None and shape.rank() == 3 and shape[1] == 1]


def spread(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a share of the expected numbers' spread."""
    return float(np.abs(found - expected).max() / expected.std())


def compare(plain: ir.Model, fused: ir.Model) -> None:
    """A text alone and texts in a batch come to what the plain graph makes of them."""
    batch = precisions.padded(FEEDS)
    expected, found = (precisions.run(model, [*FEEDS, batch]) for model in (plain, fused))
    for ours, theirs in zip(found, expected, strict=True):
        assert spread(ours, theirs) <= CLOSE
    for row, alone in zip(found[-1], found, strict=False):
        same_alone(row[: alone.shape[1]] if row.ndim == 2 else row, alone[0])


def same_alone(found: NDArray[Any], alone: NDArray[Any]) -> None:
    rtol, atol = NEIGHBOURS["fp32"]
    np.testing.assert_allclose(found, alone, rtol, atol * np.abs(alone).max())


def parsed(nodes: str, signature: str, **constants: NDArray[Any]) -> ir.Model:
    """A graph written as ONNX text."""
    proto = onnx.parser.parse_model(f'<ir_version: 11, opset_import: ["": 24]> g {signature} {{ {nodes} }}')
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_attention_takes_what_the_products_give(pre_norm: bool) -> None:
    model = precisions.fp32(pre_norm)
    fused = engine.rewrite(copied(model))
    assert not {"Transpose", "Reshape", "Slice"} & set(precisions.ops(fused))
    (first, second) = (node for node in fused.graph if node.op_type == "Attention")
    for node in (first, second):
        assert node.attributes.get_int("q_num_heads") == precisions.HEADS
        assert node.attributes.get_int("kv_num_heads") == precisions.HEADS
    onnx.checker.check_model(ir.to_proto(fused), full_check=True)
    compare(model, fused)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_last_layer_is_for_the_first_token(pre_norm: bool) -> None:
    model = first_of(precisions.fp32(pre_norm))
    fused = engine.rewrite(copied(model))
    found = one_token(fused)
    assert (
        found.count("MatMul") == 5
    )  # query, mix, grow, shrink and the head; key and value are of all tokens
    assert found.count("Attention") == found.count("Gelu") == 1
    assert fused.graph.initializers.keys() >= {n for n in model.graph.initializers if "weight" in n}
    onnx.checker.check_model(ir.to_proto(fused), full_check=True)
    compare(model, fused)


@pytest.mark.parametrize("change", [{"index": 1}, {"others": True}])
def test_all_tokens_are_computed_where_others_than_the_first_are_read(change: dict[str, Any]) -> None:
    model = first_of(precisions.fp32(), **change)
    fused = engine.rewrite(copied(model))
    assert "Slice" not in precisions.ops(fused)
    assert not one_token(fused)
    texts = [feed for feed in FEEDS if feed["input_ids"].shape[1] > 1]
    for ours, theirs in zip(precisions.run(fused, texts), precisions.run(model, texts), strict=True):
        assert spread(ours, theirs) <= CLOSE


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("first", [False, True])
def test_converted_graphs(name: str, first: bool) -> None:
    plain = first_of(precisions.fp32()) if first else precisions.fp32()
    plain = base.load(name).convert(plain, (), FEEDS)
    fused = engine.rewrite(copied(plain))
    assert ("Gelu" in one_token(fused)) == first
    assert not {"Transpose", "Reshape"} & set(precisions.ops(fused))
    compare(plain, fused)


def test_zero_points_are_shared() -> None:
    fused = engine.rewrite(base.load("int8").convert(precisions.fp32(), (), []))
    nodes = [node for node in fused.graph if node.op_type == "QuantizeLinear"]
    assert len(nodes) == 9
    assert len({node.inputs[2] for node in nodes}) == 1


def test_zero_points_of_other_shapes_are_not_shared() -> None:
    nodes = ""
    for x, y in ("ay", "bz"):
        nodes += f"{x}1 = Abs({x}) {x}2 = ReduceMax <keepdims = 1> ({x}1, last) {x}3 = Shape({x}2) "
        nodes += f"{x}4 = Expand(zero, {x}3) "
        nodes += f"{y} = QuantizeLinear <axis = -1, block_size = 4> ({x}, {x}2, {x}4) "
    constants: dict[str, NDArray[Any]] = {"zero": np.array(128, np.uint8), "last": np.array([-1], np.int64)}
    for other, count in (("U", 2), ("T", 1)):
        signature = (
            f"(float[B, T, 4] a, float[B, {other}, 4] b) => (uint8[B, T, 4] y, uint8[B, {other}, 4] z)"
        )
        fused = engine.rewrite(parsed(nodes, signature, **constants))
        assert precisions.ops(fused).count("Expand") == count


@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("<is_causal = 1> (q, k, v)", ""),
        ("(q, k, v, , past, past)", ", float[B, 2, P, 4] past"),
    ],
)
def test_attention_of_decoders_is_untouched(call: str, more: str) -> None:
    split = "".join(
        f"{n}r = Reshape({n}x, shape) {n} = Transpose <perm = [0, 2, 1, 3]> ({n}r) " for n in "qkv"
    )
    nodes = (
        f"shape = Constant <value_ints = [0, 0, 2, 4]> () flat = Constant <value_ints = [0, 0, 8]> () {split}"
    )
    nodes += f"o = Attention {call} t = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape(t, flat)"
    inputs = ", ".join(f"float[B, T, 8] {n}x" for n in "qkv")
    fused = engine.rewrite(parsed(nodes, f"({inputs}{more}) => (float[B, T, 8] y)"))
    assert precisions.ops(fused).count("Transpose") == 4
    (attention,) = (node for node in fused.graph if node.op_type == "Attention")
    assert "q_num_heads" not in attention.attributes


@pytest.mark.parametrize("kind", KINDS)
def test_architectures(kind: str, tmp_path: Path) -> None:
    """A classifier of texts of each kind, in fp32 and int8."""
    folder, _ = untrained("single", model_of(kind, transformers.AutoModel, tmp_path / "model"), tmp_path)
    opened = checkpoint.open_checkpoint(folder)
    task: Any = tasks.load(opened.manifest.task)
    declared = contract.declare(task, opened.tokenizer.model_input_names, len(opened.spec.labels), 32)
    plain = graph.build(opened, declared)
    tokenizer: Any = opened.tokenizer
    rows = encoders.rows(tokenizer.backend_tokenizer, opened.spec)[::8]
    alone = [encoders.feed(row, declared) for row in rows]
    batch = together(alone)
    for name in ("fp32", "int8"):
        model = base.load(name).convert(copied(plain), (), alone)
        fused = engine.rewrite(copied(model))
        products = [op for op in one_token(fused) if op.startswith("MatMul")]
        assert len(products) >= 3  # mix, grow and shrink; ModernBERT has one product for query, key and value
        contract.check(fused, declared, kind)
        expected, found = logits(model, [batch, *alone]), logits(fused, [batch, *alone])
        for ours, theirs in zip(found, expected, strict=True):
            assert np.abs(ours - theirs).max() <= CLOSE * expected[0].std()
        same_alone(found[0], np.concatenate(found[1:]))


def together(alone: list[Any]) -> dict[str, NDArray[np.int64]]:
    """Rows in one batch, padded with zeros."""
    longest = max(feed["input_ids"].shape[1] for feed in alone)
    return {
        name: np.concatenate([np.pad(f[name], ((0, 0), (0, longest - f[name].shape[1]))) for f in alone])
        for name in alone[0]
    }


def logits(model: ir.Model, batches: list[Any]) -> list[NDArray[np.float32]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(precisions.content(model), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run([precisions.LOGITS], batch)[0]) for batch in batches]
