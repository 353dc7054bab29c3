"""fp16: 16-bit floats, with 32 bits left where the user's texts show that 16 would not hold a number.

Graph inputs and outputs keep their types. A node stays fp32, with a Cast where it meets the others, when
- one of its inputs or outputs is beyond the range on the texts, or a weight is;
- one of its scalars, as an epsilon, would become zero;
- it computes angles or integers (rotary positions, buckets of distances), for which 11 bits are not enough;
- the standard does not define it for 16 bits; or the layer is to be kept.

A fill of masks beyond the range becomes half the least number, so that adding scores to it cannot make infinities
and a row of nothing else cannot make NaN. Sums within one op are the engine's affair: they are 32-bit in all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from headway.export import calibration
from headway.export.precision.base import Feeds, Writer

ABOUT = "16-bit floats; 32 bits where the user's texts go beyond their range"

MARGIN = 4
"""how many times larger than on the user's texts an activation may become and still be in range"""
ANGLES = ("Sin", "Cos")
UNTYPED = ("Shape", "Size")
"""ops that read no number"""
SOURCES = ("Cast", "ConstantOfShape")
"""ops that make floats of something else, and which can be told of what type"""


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    return narrow(model, kept, feeds, ir.DataType.FLOAT16)


def narrow(model: ir.Model, kept: Collection[str], feeds: Feeds, kind: ir.DataType) -> ir.Model:
    """Turn an fp32 graph into one that computes in a 16-bit float type wherever that is safe."""
    LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    wide = _wide(model, kept, feeds, kind)
    rewriter = _Rewriter(model, kind)
    for node in list(model.graph):
        rewriter.retype(node, ir.DataType.FLOAT if node in wide else kind)
    rewriter.finish()
    return model


def _wide(model: ir.Model, kept: Collection[str], feeds: Feeds, kind: ir.DataType) -> set[ir.Node]:
    """The nodes that stay fp32."""
    nodes, highest = list(model.graph), _largest(kind)
    opset = model.graph.opset_imports[""]
    wide = _exact(nodes)
    computed = [value for node in nodes for value in _floats(node.outputs)]
    most = calibration.largest(model, computed, feeds, _least_fill(model, highest))
    beyond = {value for value, size in most.items() if size * MARGIN > highest}
    for node in nodes:
        named = any(
            str(value.name).removesuffix(".weight") in kept for value in node.inputs if value is not None
        )
        unsafe = any(_lost(value, kind, highest) for value in _floats(node.inputs))
        reaches = any(value in beyond for value in (*node.inputs, *node.outputs))
        if named or unsafe or reaches or not _defined(node, kind, opset) or _ends(node, wide):
            wide.add(node)
    return wide


def _largest(kind: ir.DataType) -> float:
    return float(ml_dtypes.finfo(kind.numpy()).max)  # type: ignore[no-untyped-call]


def _floats(values: Any) -> Iterator[ir.Value]:
    return (value for value in values if value is not None and value.dtype == ir.DataType.FLOAT)


def _constant(value: ir.Value) -> NDArray[Any] | None:
    return None if value.const_value is None else value.const_value.numpy()


def _exact(nodes: list[ir.Node]) -> set[ir.Node]:
    """What computes angles and integers, and all that they are computed from."""
    exact: set[ir.Node] = set()
    for node in reversed(nodes):
        integers = node.op_type == "Cast" and any(_floats(node.inputs)) and not any(_floats(node.outputs))
        integers = integers and node.attributes["to"].as_int() != ir.DataType.BOOL
        if node.op_type in ANGLES or integers:
            exact.add(node)
        if node in exact:
            exact |= {value.producer() for value in _floats(node.inputs) if value.producer() is not None}  # type: ignore[misc]
    return exact


def _least_fill(model: ir.Model, highest: float) -> float:
    """How far below zero a number is a mask's fill, or comes from one: half the least negative scalar out of range."""
    constants = [_constant(value) for value in _floats(model.graph.initializers.values())]
    scalars = [float(array.item()) for array in constants if array is not None and array.size == 1]
    return min((-scalar / 2 for scalar in scalars if scalar < -highest), default=np.inf)


def _held(array: NDArray[Any], kind: ir.DataType) -> NDArray[Any]:
    """Numbers in a 16-bit type, those beyond its range at half its largest; infinities stay."""
    dtype = kind.numpy()
    highest = _largest(kind)
    beyond = np.isfinite(array) & (np.abs(array) > highest)
    return np.where(beyond, np.sign(array) * highest / 2, array).astype(dtype)


def _lost(value: ir.Value, kind: ir.DataType, highest: float) -> bool:
    """Whether 16 bits do not hold a constant: numbers beyond the range but for fills, scalars that become zero."""
    array = _constant(value)
    if array is None:
        return False
    numbers = array[np.isfinite(array)]
    if array.size > 1:
        return bool(np.abs(numbers).max(initial=0) > highest)
    return bool(np.any(numbers > highest) or np.any((numbers != 0) & (_held(numbers, kind) == 0)))


def _defined(node: ir.Node, kind: ir.DataType, opset: int) -> bool:
    """Whether the standard lets the node have that type wherever it has fp32 now, and its inputs decide on it."""
    if not any(_floats(node.inputs)) and any(_floats(node.outputs)) and node.op_type not in SOURCES:
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return False
    allowed = {
        constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints
    }
    name = f"tensor({kind.name.lower()})"
    for values, formal in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for index, value in enumerate(values):
            kind_of = formal[min(index, len(formal) - 1)].type_str  # the last may be any number of values
            if any(_floats([value])) and name not in allowed.get(kind_of, [kind_of]):
                return False
    return True


def _ends(node: ir.Node, wide: Collection[ir.Node]) -> bool:
    """Whether a node turns nothing but fp32 numbers into outputs of the graph: a Cast less, and more digits."""
    computed = [value for value in _floats(node.inputs) if value.const_value is None]
    ready = all(value.is_graph_output() or value.producer() in wide for value in computed)
    return bool(computed) and ready and all(value.is_graph_output() for value in node.outputs)


class _Rewriter:
    """Gives nodes, in their order, another float type, with one Cast for each value that changes it."""

    def __init__(self, model: ir.Model, kind: ir.DataType) -> None:
        self.writer, self.kind = Writer(model), kind
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.narrowed: dict[ir.Value, ir.Value] = {}
        """constants in 16 bits, by the constant that they stand for"""

    def retype(self, node: ir.Node, kind: ir.DataType) -> None:
        """Let a node, all before which are done, compute in that type."""
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in (ir.DataType.FLOAT, self.kind) or value.dtype == kind:
                continue
            if node.op_type not in UNTYPED:
                node.replace_input_with(index, self._as(value, kind, node))
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", kind)
        if node.op_type == "ConstantOfShape" and any(_floats(node.outputs)):
            filled = (
                node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1)
            )
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_held(filled, kind)))
        for value in _floats(node.outputs):
            value.dtype = kind

    def finish(self) -> None:
        """Let the graph's outputs be fp32, and 16-bit constants have the names of those that they replaced."""
        graph = self.writer.graph
        for index, value in enumerate(graph.outputs):
            if value.dtype == self.kind:
                name, kind = str(value.name), ir.DataType.FLOAT
                wide = self.casts.get((value, kind)) or self._cast(value, kind, None)
                wide.shape = value.shape
                value.name = f"{name}.{self.kind.name.lower()}"
                graph.outputs[index], wide.name = wide, name
        self.writer.drop_unused_constants()
        for old, new in self.narrowed.items():
            if old.name not in graph.initializers:
                new.name = old.name

    def _as(self, value: ir.Value, kind: ir.DataType, before: ir.Node) -> ir.Value:
        if value.const_value is not None:
            if value not in self.narrowed:
                name = f"{value.name}.{kind.name.lower()}"
                self.narrowed[value] = self.writer.constant(name, _held(value.const_value.numpy(), kind))
            return self.narrowed[value]
        return self.casts.get((value, kind)) or self._cast(value, kind, before)

    def _cast(self, value: ir.Value, kind: ir.DataType, before: ir.Node | None) -> ir.Value:
        made = ir.node("Cast", [value], {"to": kind}, name=f"{value.name}.{kind.name.lower()}")
        made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = (
            made.name,
            ir.TensorType(kind),
            value.shape,
        )
        if before is None:
            self.writer.graph.append(made)
        else:
            self.writer.graph.insert_before(before, made)
        self.casts[value, kind] = made.outputs[0]
        return made.outputs[0]
