"""Graphs for ONNX Runtime on the processor: what it does not do itself when it opens a graph, and what is faster.

It runs after the precision's conversion, on graphs of every precision. A part that does not look as expected stays as
it is. All that it writes are standard ops, and none of them mixes the tokens of two texts:
- where a head reads the first token only, the last layer computes that token only;
- Attention takes (B, T, D) as the products give it, without a Reshape and a Transpose around it;
- RMS normalization is one op;
- all quantizations of (B, T) tokens share one array of zero points.

Tried and left out, as no faster: one product for query, key and value, Gemm instead of MatMul and Add,
MultiHeadAttention, masks of floats, a scale per row of flattened tokens. MatMulNBits with 8 bits takes twice the time;
MatMulIntegerToFloat, which is no standard op, saves 1 to 2 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from headway.export import rms
from headway.export.precision.base import Writer

ABOUT = "ONNX Runtime on a processor: the last layer for the first token only where no other is read, fewer copies"
SIMULATED = ("bf16",)
"""what OpenVINO runs, and ONNX Runtime does not"""

STANDARD = ("", "ai.onnx")
SWAPPED = (0, 2, 1, 3)
"""(B, T, N, D) to (B, N, T, D) and back"""
MASK = 3
"""place of Attention's mask"""
ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where"),
    *("Abs", "Cast", "Erf", "Exp", "Gelu", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"),
)
ALONG_LAST = ("LayerNormalization", "RMSNormalization", "Softmax")
PRODUCTS = ("MatMul", "MatMulInteger")

Axes = dict[int, int]
"""which inputs of a node are read at one index only, each with the axis of that index"""


def rewrite(model: ir.Model) -> ir.Model:
    """A precision's graph as ONNX Runtime runs it fastest; it may be changed in place."""
    ShapeInferencePass()(model)
    _share_zero_points(model)
    rms.fuse(model)
    RemoveUnusedNodesPass()(model)
    _FirstToken(model).write()
    for node in list(model.graph):
        if _is(node, "Attention"):
            attend_unsplit(model, node)
    RemoveUnusedNodesPass()(model)
    return model


def refused(model: ir.Model) -> list[str]:
    return []


def _share_zero_points(model: ir.Model) -> None:
    """Expand a constant to the shape of a scale, as (B, T, 1), once for all scales of that shape."""
    made: dict[tuple[ir.Value | None, str], ir.Value] = {}
    for node in model.graph:
        if not _is(node, "QuantizeLinear") or len(node.inputs) < 3:
            continue
        scale, zero = node.inputs[1:3]
        expand, shape = _producer(zero, "Expand"), _shape(scale)
        source = None if expand is None else _producer(expand.inputs[1], "Shape")
        if zero is None or shape is None or expand is None or source is None or source.inputs[0] is not scale:
            continue
        if not source.attributes and expand.inputs[0] in model.graph.initializers.values():
            zero.shape = shape
            node.replace_input_with(2, made.setdefault((expand.inputs[0], str(shape)), zero))


class _FirstToken:
    """Keeps, of all that only a head's first token is computed from, that token: from (B, T, D) to (B, 1, D)."""

    def __init__(self, model: ir.Model) -> None:
        self.graph, self.writer = model.graph, Writer(model)
        self.read: dict[tuple[ir.Node, int], int] = {}
        """inputs of nodes that are read at index 0 of an axis only, with the axis"""
        self.narrow: dict[ir.Node, int] = {}
        """nodes that need to compute index 0 of an axis only, with the axis"""

    def write(self) -> None:
        self._find()
        if not any(node.op_type in PRODUCTS for node in self.narrow):
            return
        cut: dict[tuple[ir.Value, int], ir.Value] = {}
        for (node, index), axis in self.read.items():
            value = node.inputs[index]
            assert value is not None
            if node in self.narrow and value.producer() not in self.narrow:
                if (value, axis) not in cut:
                    cut[value, axis] = self._cut(value, axis)
                node.replace_input_with(index, cut[value, axis])
        for node, axis in self.narrow.items():
            self._narrow(node, axis)

    def _find(self) -> None:
        for node in reversed(list(self.graph)):
            if _reads_first(node):
                self.read[node, 0] = node.attributes.get_int("axis", 0)
                continue
            axes = {self._axis(value) for value in node.outputs if value.uses() or value.is_graph_output()}
            axis = axes.pop() if len(axes) == 1 else None
            needed = None if axis is None else _needed(node, axis)
            if axis is not None and needed is not None:
                self.narrow[node] = axis
                self.read |= {(node, index): at for index, at in needed.items()}

    def _axis(self, value: ir.Value) -> int | None:
        """The axis of which all that use a value read index 0 only."""
        axes = {self.read.get((node, index)) for node, index in value.uses()}
        return axes.pop() if len(axes) == 1 and not value.is_graph_output() else None

    def _cut(self, value: ir.Value, axis: int) -> ir.Value:
        ends = [self.writer.constant(f"first.{n}", np.array([n], np.int64)) for n in (0, 1)]
        at = self.writer.constant(f"first.axis{axis}", np.array([axis], np.int64))
        made = ir.node("Slice", [value, *ends, at], name=f"{value.name}.first{axis}")
        made.outputs[0].name, made.outputs[0].type = made.name, value.type
        made.outputs[0].shape = _with_one(value, axis)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], made)
        else:
            self.graph.insert_after(producer, made)
        return made.outputs[0]

    def _narrow(self, node: ir.Node, axis: int) -> None:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = _with_one(value, axis)
        if node.op_type == "Reshape":
            assert node.outputs[0].shape is not None
            sizes = np.array([0, *node.outputs[0].shape[1:]], np.int64)
            name = "first.shape." + "x".join(map(str, sizes[1:]))
            node.replace_input_with(1, self.writer.constant(name, sizes))
            node.attributes.pop("allowzero", None)  # so that 0 is the size of the batch


def _reads_first(node: ir.Node) -> bool:
    """Whether a node takes index 0 of an axis, as a head takes the first token."""
    if not _is(node, "Gather") or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    return node.inputs[1].const_value.size == 1 and not node.inputs[1].const_value.numpy().any()


def _needed(node: ir.Node, axis: int) -> Axes | None:
    """What of its inputs a node needs for index 0 of an axis of its outputs. None: all, or it is not known."""
    shape = _shape(node.outputs[0])
    find = _RULES.get(node.op_type) if node.domain in STANDARD else None
    if shape is None or find is None or any(v is not None and _shape(v) is None for v in node.inputs):
        return None
    return find(node, axis, shape.rank())


def _elementwise(node: ir.Node, axis: int, rank: int) -> Axes | None:
    """Shapes are aligned on the right; an axis of size 1 is broadcast."""
    found = {}
    for index, value in enumerate(node.inputs):
        if value is not None and value.shape is not None:
            at = axis - rank + value.shape.rank()
            if at >= 0 and value.shape[at] != 1:
                found[index] = at
    return found


def _along_last(node: ir.Node, axis: int, rank: int) -> Axes | None:
    last = node.attributes.get_int("axis", -1) in (-1, rank - 1)
    return {0: axis} if last and axis < rank - 1 and _ranks(node, 1) <= {0, 1} else None


def _largest_along_last(node: ir.Node, axis: int, rank: int) -> Axes | None:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None or axes.const_value is None or not node.attributes.get_int("keepdims", 1):
        return None
    return {0: axis} if axis < rank - 1 and axes.const_value.numpy().tolist() in ([-1], [rank - 1]) else None


def _quantized(node: ir.Node, axis: int, rank: int) -> Axes | None:
    """One scale, one for each block of the last axis, or one for each index of it."""
    last = node.attributes.get_int("axis", 1) in (-1, rank - 1)
    single = _ranks(node, 1) == {0}
    return _elementwise(node, axis, rank) if single or (last and axis < rank - 1) else None


def _product(node: ir.Node, axis: int, rank: int) -> Axes | None:
    """Rows of the left side; its zero point is for all rows."""
    left = node.inputs[0]
    if (
        axis != rank - 2
        or left is None
        or left.shape is None
        or left.shape.rank() != rank
        or _ranks(node, 2) - {0}
    ):
        return None
    return {0: axis}


def _transposed(node: ir.Node, axis: int, rank: int) -> Axes | None:
    return {0: node.attributes.get_ints("perm", range(rank)[::-1])[axis]}


def _reshaped(node: ir.Node, axis: int, rank: int) -> Axes | None:
    """(B, T, ...) to (B, T, ...) of known sizes."""
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    if before is None or after is None or axis != 1 or before[:2] != after[:2]:
        return None
    return {0: 1} if all(isinstance(size, int) for size in after[2:]) else None


def _split(node: ir.Node, axis: int, rank: int) -> Axes | None:
    return {0: axis} if node.attributes.get_int("axis", 0) not in (axis, axis - rank) else None


def _attention(node: ir.Node, axis: int, rank: int) -> Axes | None:
    """Queries (B, N, T, D), and what they may look at."""
    if rank != 4 or axis != 2 or not _is_plain(node):
        return None
    mask = node.inputs[MASK] if len(node.inputs) > MASK else None
    if mask is None or mask.shape is None:
        return {0: 2}
    at = mask.shape.rank() - 2
    return {0: 2} | ({MASK: at} if mask.shape[at] != 1 else {})


_RULES: dict[str, Callable[[ir.Node, int, int], Axes | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(ALONG_LAST, _along_last),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantized),
    "ReduceMax": _largest_along_last,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Split": _split,
    "Attention": _attention,
}


def attend_unsplit(model: ir.Model, node: ir.Node) -> None:
    """Attention of (B, T, N * D) instead of (B, N, T, D)."""
    split = [_unsplit(value) for value in node.inputs[:3]]
    joined = _joined(node)
    if joined is None or not _is_plain(node) or any(found is None for found in split):
        return
    values, heads = zip(*(found for found in split if found is not None), strict=True)
    if heads[1] != heads[2]:
        return
    for index, value in enumerate(values):
        node.replace_input_with(index, value)
    node.attributes.add(ir.AttrInt64("q_num_heads", heads[0]))
    node.attributes.add(ir.AttrInt64("kv_num_heads", heads[1]))
    node.outputs[0].shape = joined.outputs[0].shape
    Writer(model).replace(joined, node.outputs[0])


def _unsplit(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """What (B, N, T, D) is made of, (B, T, N * D), and N."""
    transpose = _producer(value, "Transpose")
    reshape = None if transpose is None else _producer(transpose.inputs[0], "Reshape")
    if transpose is None or reshape is None or tuple(transpose.attributes.get_ints("perm", ())) != SWAPPED:
        return None
    before, after = _shape(reshape.inputs[0]), _shape(reshape.outputs[0])
    if before is None or after is None or (before.rank(), after.rank()) != (3, 4) or before[:2] != after[:2]:
        return None
    heads = after[2]
    assert reshape.inputs[0] is not None
    return (reshape.inputs[0], heads) if isinstance(heads, int) else None


def _joined(node: ir.Node) -> ir.Node | None:
    """The Reshape to (B, T, N * D) that alone uses what Attention gives."""
    transpose = _only_user(node.outputs[0], "Transpose")
    joined = None if transpose is None else _only_user(transpose.outputs[0], "Reshape")
    if transpose is None or joined is None or tuple(transpose.attributes.get_ints("perm", ())) != SWAPPED:
        return None
    before, after = _shape(transpose.outputs[0]), _shape(joined.outputs[0])
    if before is None or after is None or after.rank() != 3 or before[:2] != after[:2]:
        return None
    return joined


def _is(node: ir.Node | None, op: str) -> bool:
    return node is not None and node.op_type == op and node.domain in STANDARD


def _is_plain(node: ir.Node) -> bool:
    """Whether Attention has queries, keys, values and a mask alone, and gives what it mixed alone."""
    inputs = any(value is not None for value in node.inputs[MASK + 1 :])
    outputs = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    return not inputs and not outputs and not node.attributes.get_int("is_causal", 0)


def _producer(value: ir.Value | None, op: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if _is(node, op) else None


def _only_user(value: ir.Value, op: str) -> ir.Node | None:
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    ((node, _),) = value.uses()
    return node if _is(node, op) else None


def _shape(value: ir.Value | None) -> ir.Shape | None:
    """A shape of which each size is known, be it by name."""
    if value is None or value.shape is None or any(size == ir.SymbolicDim(None) for size in value.shape):
        return None
    return value.shape


def _with_one(value: ir.Value, axis: int) -> ir.Shape:
    assert value.shape is not None
    sizes = list(value.shape)
    sizes[axis] = 1
    return ir.Shape(sizes)


def _ranks(node: ir.Node, since: int) -> set[int]:
    """Ranks of a node's inputs from some place on."""
    return {v.shape.rank() for v in node.inputs[since:] if v is not None and v.shape is not None}
