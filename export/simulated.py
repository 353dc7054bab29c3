"""A graph in 16-bit or 8-bit floats as fp32 ops that round, to measure on a processor what a GPU would answer.

Each op computes in fp32 and its result is rounded to the type that the graph says: products of such numbers, summed
in fp32, are what tensor cores give. An engine that keeps a chain of ops in fp32 rounds less often.
ONNX Runtime's CPU provider rounds to the nearest in a pair of Casts, and keeps the pair at every level of
optimization; beyond the range it gives infinity in fp16 and bf16, and the largest number in e4m3.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from headway.export.precision.base import Writer

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
EIGHTH = ir.DataType.FLOAT8E4M3FN
TYPES = ("to", "dtype", "output_dtype", "softmax_precision")
"""attributes that name the type of a result"""
EXACT = (
    "Concat", "Expand", "Gather", "GatherElements", "GatherND", "Identity", "Max", "Min", "Neg", "Pad", "Relu",
    "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip
"""ops that give nothing but numbers which they were given, and so need no rounding"""


def simulate(model: ir.Model) -> ir.Model:
    """The same graph for a processor; it may be changed in place. Inputs and outputs keep their names and types."""
    ShapeInferencePass()(model)
    used = [value for node in model.graph for value in node.outputs if value.uses()]
    assert all(value.dtype is not None for value in used)
    for value in model.graph.initializers.values():
        if value.dtype in HALVES and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in model.graph.inputs:
        if value.dtype in HALVES:
            _widen(model.graph, value)
    for node in list(model.graph):
        made = _plain(model, node) if _is_eighth(node) else node
        _retype(made)
        for value in made.outputs:
            if value.dtype in HALVES:
                _round(model.graph, value)
    return model


def _is_eighth(node: ir.Node) -> bool:
    """Whether a node quantizes to 8-bit floats (e4m3) or reads them."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return False
    levels = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    return levels is not None and levels.dtype == EIGHTH


def _plain(model: ir.Model, node: ir.Node) -> ir.Node:
    """Q or DQ of 8-bit floats as a quotient or a product, and a Cast: the node that makes the result."""
    writer, old, x = Writer(model), node.outputs[0], node.inputs[0]
    assert x is not None
    name, kind, scale = str(old.name), old.type, _along(writer, node)
    if node.op_type == "QuantizeLinear":
        share = writer.node(node, "Div", [x, scale], f"{name}.share")
        result = writer.node(node, "Cast", [share], f"{name}.levels", to=old.dtype)  # saturates
    else:
        levels = writer.node(node, "Cast", [x], f"{name}.levels", to=ir.DataType.FLOAT)
        result = writer.node(node, "Mul", [levels, scale], f"{name}.numbers")
    result.shape, result.type = old.shape, kind
    writer.replace(node, result)
    made = result.producer()
    assert made is not None
    return made


def _along(writer: Writer, node: ir.Node) -> ir.Value:
    """The scale of a Q or DQ, with a dimension for each one of its input that is behind its axis."""
    x, scale = node.inputs[:2]
    assert x is not None
    assert scale is not None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    if x.shape is None or scale.shape is None or len(scale.shape) != 1:
        return scale
    behind = range(1, len(x.shape) - axis % len(x.shape))
    if not behind:
        return scale
    axes = writer.constant(f"behind.{len(behind)}", np.array(behind, np.int64))
    return writer.node(node, "Unsqueeze", [scale, axes], f"{node.outputs[0].name}.scale")


def _retype(node: ir.Node) -> None:
    """Let a node make fp32 where its attributes say 16 bits."""
    for name, attribute in list(node.attributes.items()):
        if name in TYPES and attribute.value in HALVES:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALVES:
            wide = attribute.as_tensor().numpy().astype(np.float32)
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(wide))


def _round(graph: ir.Graph, value: ir.Value) -> None:
    """Let a node make fp32 instead of a 16-bit number, and what reads it read the 16-bit number nearest to it."""
    node, name, kind = value.producer(), str(value.name), value.type
    assert node is not None
    if node.op_type in EXACT and not value.is_graph_output():
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return
    narrow = ir.node("Cast", [value], {"to": value.dtype}, name=f"{name}.rounded")
    graph.insert_after(node, narrow)
    rounded = narrow.outputs[0]
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    narrow.replace_input_with(0, value)
    rounded.shape, rounded.type = value.shape, kind
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.name, rounded.name = f"{name}.exact", name
    _widen(graph, rounded)


def _widen(graph: ir.Graph, value: ir.Value) -> None:
    """Let what reads a 16-bit number read it in fp32."""
    users, node = list(value.uses()), value.producer()
    if not users:
        return
    wide = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{value.name}.wide")
    if node is None:
        graph.insert_before(graph[0], wide)
    else:
        graph.insert_after(node, wide)
    result = wide.outputs[0]
    result.name, result.shape, result.type = wide.name, value.shape, ir.TensorType(ir.DataType.FLOAT)
    for user, place in users:
        user.replace_input_with(place, result)
