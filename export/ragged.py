"""An encoder's graph without padding, for ONNX Runtime on NVIDIA GPUs: texts lie end to end, and ops see nothing else.

It is written from a variant's padded graph, as the batch of one row that holds all tokens: what treats each token by
itself stays as it is. What mixes tokens is told where texts begin and end:
- Attention becomes `PackedMultiHeadAttention`, which ONNX Runtime has for NVIDIA GPUs only;
- positions are an input, and sums along a text begin anew with each text;
- the head's first token is each text's own;
- the mean of a text's tokens is an attention that looks at all of them alike.

Any other graph stays padded: relative positions, windows, rotation, maxima and weighted means of tokens, bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)

from headway.core.manifest import Graph, Tensor
from headway.export.engine.onnxruntime import attend_unsplit
from headway.export.precision.base import Writer
from headway.export.tokenwise import POINTWISE, UNIFORM, Kind, by_itself, constant, number, rank
from headway.runtime.layouts import INPUTS

OP, DOMAIN = "PackedMultiHeadAttention", "com.microsoft"
TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
"""that the op has"""
HEADS = range(8, 257, 8)
"""sizes of heads that its kernels for long texts take"""
ALIKE = 1e-30
"""a scale that makes all scores zero, so that attention is the mean"""

OF_MASK = {"Cast", "Clip", "Expand", "Max", "ReduceSum", "Unsqueeze"}
"""ops between a mask and the count of a text's tokens"""


def rewrite(model: ir.Model) -> ir.Model | None:
    """The graph over tokens; None: it stays padded. The model may be changed in place in either case."""
    LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    ShapeInferencePass()(model)
    for node in list(model.graph):
        if node.op_type == "Attention":
            attend_unsplit(model, node)
    RemoveUnusedNodesPass()(model)
    try:
        _Rewriter(model).write()
    except _StaysPaddedError:
        return None
    return model


def declare(model: ir.Model) -> Graph:
    """What a graph over tokens takes and gives."""
    inputs, outputs = (
        [_tensor(value) for value in side] for side in (model.graph.inputs, model.graph.outputs)
    )
    return Graph(inputs=inputs, outputs=outputs)


def _tensor(value: ir.Value) -> Tensor:
    assert value.dtype is not None
    assert value.shape is not None
    shape = [size if isinstance(size, int) else str(size) for size in value.shape]
    return Tensor(name=str(value.name), dtype=value.dtype.numpy().name, shape=shape)


class _StaysPaddedError(Exception):
    """The graph mixes tokens in a way that is not known here."""


class _Rewriter:
    """Goes through a graph once, in its order, and knows of each value what it is."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph, self.writer = model, model.graph, Writer(model)
        self.kinds: dict[ir.Value, Kind] = {}
        self.summed: dict[ir.Value, ir.Value] = {}
        """tokens, by their product with the mask and by the sum of that"""
        self.heads = 0
        self.given = {name: _input(name) for name in INPUTS}
        self.front = self.graph[0]
        model.opset_imports[DOMAIN] = 1

    def write(self) -> None:
        nodes = list(self.graph)
        self._take_inputs()
        for node in nodes:
            self._visit(node)
        if not self.heads:
            raise _StaysPaddedError
        for index, value in enumerate(self.graph.outputs):
            self._give(index, value)
        RemoveUnusedNodesPass()(self.model)
        if self.mask.uses():
            raise _StaysPaddedError
        self.graph.inputs[:] = [value for value in self.given.values() if value.uses()]
        self.writer.drop_unused_constants()
        kept = {*self.graph.inputs, *self.graph.outputs, *self.graph.initializers.values()}
        for value in (value for node in self.graph for value in node.outputs if value not in kept):
            value.shape = None  # it was of rows

    def _take_inputs(self) -> None:
        self.rows = {}
        for name, value in self.given.items():
            if name in ("input_ids", "token_type_ids", "positions"):
                self.rows[name] = self._made("Unsqueeze", [value, self._axes(0)], f"{name}.row", value.type)
                self.kinds[self.rows[name]] = Kind.TOKENS
        old = {str(value.name): value for value in self.graph.inputs}
        self.mask = old.pop("attention_mask")
        for value in (*old.values(), self.mask):
            for node, index in list(value.uses()):
                if node.op_type == "Shape":
                    node.replace_input_with(index, self.rows["input_ids"])
        for name, value in old.items():
            value.replace_all_uses_with(self.rows[name])
        self.kinds[self.mask] = Kind.MASK

    def _visit(self, node: ir.Node) -> None:
        kinds = {self._kind(value) for value in node.inputs if value is not None}
        if node.op_type == "Shape":
            kind = Kind.STATED
        elif kinds <= {Kind.STATED}:
            kind = self._stated(node)
        elif Kind.UNKNOWN in kinds:
            raise _StaysPaddedError
        elif kinds <= {Kind.STATED, Kind.MASK}:
            kind = self._of_mask(node)
        elif Kind.TEXTS in kinds:
            kind = self._of_texts(node, kinds)
        else:
            kind = self._of_tokens(node)
        for value in node.outputs:
            self.kinds.setdefault(value, kind)

    def _kind(self, value: ir.Value) -> Kind:
        return self.kinds.get(value, Kind.STATED)  # constants

    def _stated(self, node: ir.Node) -> Kind:
        """What comes from sizes alone. Positions are what a table is cut to."""
        data = node.inputs[0] if node.inputs else None
        fixed = all(constant(value) is not None for value in node.inputs if value is not None)
        if node.op_type in UNIFORM or fixed:
            return Kind.STATED
        table = None if data is None else constant(data)
        begins = node.op_type == "Slice" and [number(node.inputs[i]) for i in (1, 3, 4)] == [0, 1, 1]
        if begins and table is not None and table.ndim == 2 and table.shape[0] == 1:
            self._replace(node.outputs[0], self._looked_up(table[0], node))
            return Kind.TOKENS
        if node.op_type == "Slice" and table is None and rank(data) == 1:
            return Kind.STATED  # a part of a shape
        return Kind.UNKNOWN

    def _looked_up(self, table: NDArray[Any], node: ir.Node) -> ir.Value:
        """Entries of a table (L), by position: (1, T)."""
        positions = self.rows["positions"]
        if np.array_equal(table, np.arange(len(table))):
            return positions
        flat = self.writer.constant(f"{node.outputs[0].name}.table", table)
        return self._made("Gather", [flat, positions], f"{node.outputs[0].name}.positions", flat.type, node)

    def _of_tokens(self, node: ir.Node) -> Kind:
        mixing = _MIXING.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if mixing is not None and (kind := mixing(self, node)) is not None:
            return kind
        if not by_itself(node, self._kind):
            raise _StaysPaddedError
        return Kind.TOKENS

    def _of_texts(self, node: ir.Node, kinds: set[Kind]) -> Kind:
        """The head: each text by itself, as it was in the padded graph, if no size of the batch comes into it."""
        if kinds - {Kind.TEXTS, Kind.STATED}:
            raise _StaysPaddedError
        if node.op_type == "Expand" and all(user.op_type in POINTWISE for user, _ in node.outputs[0].uses()):
            assert node.inputs[0] is not None
            self._replace(node.outputs[0], node.inputs[0])  # such ops broadcast
            return Kind.TEXTS
        if any(self._kind(v) is Kind.STATED and constant(v) is None for v in node.inputs if v is not None):
            raise _StaysPaddedError
        return Kind.TEXTS

    def attention(self, node: ir.Node) -> Kind:
        q, k, v, mask = (node.inputs[i] if len(node.inputs) > i else None for i in range(4))
        heads = node.attributes.get_int("q_num_heads", 0)
        softcap = node.attributes.get_float("softcap", 0.0)
        if q is None or k is None or v is None or not heads or softcap or not self._hides_padding(mask):
            raise _StaysPaddedError
        self.heads = heads
        scale = node.attributes.get_float("scale", (_width(q) // heads) ** -0.5)
        mixed = self._attended(node, (q, k, v), scale, f"{node.outputs[0].name}.packed")
        self._replace(node.outputs[0], mixed)
        return Kind.TOKENS

    def _hides_padding(self, mask: ir.Value | None) -> bool:
        """Whether a mask lets all see all tokens of their text, and nothing else."""
        while mask is not None and mask is not self.mask:
            node = mask.producer()
            spreads = node is not None and node.op_type in ("Cast", "Expand", "Unsqueeze")
            mask = node.inputs[0] if node is not None and spreads else None
        return mask is not None

    def _attended(self, before: ir.Node, qkv: tuple[ir.Value, ...], scale: float, name: str) -> ir.Value:
        """Attention among each text's tokens, (1, T, D) from three of them."""
        widths, kinds = {_width(value) for value in qkv}, {value.dtype for value in qkv}
        if len(widths) > 1 or len(kinds) > 1 or not kinds <= set(TYPES):
            raise _StaysPaddedError
        (width,) = widths
        if width % self.heads or width // self.heads not in HEADS:
            raise _StaysPaddedError
        kind, axes = qkv[0].type, self._axes(0)
        flat = {
            v: self._made("Squeeze", [v, axes], f"{name}.{v.name}", kind, before) for v in dict.fromkeys(qkv)
        }
        inputs = [*(flat[value] for value in qkv), None, self.given["places"], self.given["bounds"]]
        made = ir.node(OP, inputs, {"num_heads": self.heads, "scale": scale}, domain=DOMAIN, name=name)
        made.outputs[0].name, made.outputs[0].type = name, kind
        self.graph.insert_before(before, made)
        return self._made("Unsqueeze", [made.outputs[0], axes], f"{name}.row", kind, before, qkv[0].shape)

    def cumulative(self, node: ir.Node) -> Kind:
        """Of all tokens up to each one, less those of the texts before."""
        x, axis = node.inputs[:2]
        otherwise = node.attributes.get_int("reverse", 0) or node.attributes.get_int("exclusive", 0)
        if x is None or axis is None or otherwise or rank(x) != 2 or number(axis) != 1:
            raise _StaysPaddedError
        name, kind = str(node.outputs[0].name), x.type
        total = self._made("CumSum", [x, axis], f"{name}.total", kind, node)
        before = self._made("Sub", [total, x], f"{name}.before", kind, node)
        others = self._made("Gather", [before, self.given["starts"]], f"{name}.others", kind, node, axis=1)
        self._replace(node.outputs[0], self._made("Sub", [total, others], f"{name}.own", kind, node, x.shape))
        return Kind.TOKENS

    def gather(self, node: ir.Node) -> Kind | None:
        """The first token of each text; or none of this, as a table is read."""
        data, indices = node.inputs
        assert data is not None
        axis, first = node.attributes.get_int("axis", 0), number(indices)
        if self._kind(data) is Kind.STATED:
            return None
        places = (axis, first, rank(indices), rank(data))
        if self._kind(data) is not Kind.TOKENS or places != (1, 0, 0, 3):
            raise _StaysPaddedError
        self._replace(node.outputs[0], self._firsts(node, data))
        return Kind.TEXTS

    def _firsts(self, node: ir.Node, tokens: ir.Value) -> ir.Value:
        """(1, T, D) to (B, D)."""
        name = f"{node.outputs[0].name}.firsts"
        found = self._made("Gather", [tokens, self.given["firsts"]], f"{name}.row", tokens.type, node, axis=1)
        firsts = self._made("Squeeze", [found, self._axes(0)], name, tokens.type, node, node.outputs[0].shape)
        self.kinds[firsts] = Kind.TEXTS
        return firsts

    def multiply(self, node: ir.Node) -> Kind | None:
        """Tokens by the mask, on the way to their mean."""
        kinds = [self._kind(value) for value in node.inputs if value is not None]
        if set(kinds) != {Kind.TOKENS, Kind.MASK}:
            return None
        tokens = node.inputs[kinds.index(Kind.TOKENS)]
        assert tokens is not None
        self.summed[node.outputs[0]] = tokens
        return Kind.MASK

    def _of_mask(self, node: ir.Node) -> Kind:
        """What the mask alone tells; the mean of a text's tokens, which is a sum by their count."""
        first = node.inputs[0]
        tokens = None if first is None else self.summed.get(first)
        if tokens is not None and node.op_type == "ReduceSum":
            keeps = node.attributes.get_int("keepdims", 1)
            if keeps or number(node.inputs[1]) != 1 or rank(tokens) != 3:
                raise _StaysPaddedError
            self.summed[node.outputs[0]] = tokens
            return Kind.MASK
        if tokens is not None and node.op_type == "Div" and _producer(first) == "ReduceSum":
            name = f"{node.outputs[0].name}.mean"
            mean = self._attended(node, (tokens, tokens, tokens), ALIKE, name)
            self._replace(node.outputs[0], self._firsts(node, mean))
            return Kind.TEXTS
        return Kind.MASK if node.op_type in OF_MASK and tokens is None else Kind.UNKNOWN

    def _give(self, index: int, value: ir.Value) -> None:
        """An output, of tokens end to end or of texts."""
        if self._kind(value) is Kind.TEXTS:
            value.shape = ir.Shape(["batch", *list(value.shape or ())[1:]])
            return
        if self._kind(value) is not Kind.TOKENS:
            raise _StaysPaddedError
        node = ir.node("Squeeze", [value, self._axes(0)], name=f"{value.name}.flat")
        flat = node.outputs[0]
        self.graph.append(node)
        flat.type, flat.shape = value.type, ir.Shape(["tokens", *list(value.shape or ())[2:]])
        flat.name, value.name = value.name, f"{value.name}.row"
        self.graph.outputs[index] = flat

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let another value be read instead, under the same name where the graph gives it."""
        if old.is_graph_output():
            new.name, old.name = old.name, f"{old.name}.padded"
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def _axes(self, axis: int) -> ir.Value:
        return self.writer.constant(f"ragged.axis{axis}", np.array([axis], np.int64))

    def _made(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str,
        kind: ir.TypeProtocol | None,
        before: ir.Node | None = None,
        shape: ir.Shape | None = None,
        **attributes: int,
    ) -> ir.Value:
        value = self.writer.node(before or self.front, op, inputs, name, **attributes)
        value.type, value.shape = kind, shape
        self.kinds[value] = Kind.TOKENS
        return value


_MIXING: dict[str, Callable[[_Rewriter, ir.Node], Kind | None]] = {
    "Attention": _Rewriter.attention,
    "CumSum": _Rewriter.cumulative,
    "Gather": _Rewriter.gather,
    "Mul": _Rewriter.multiply,
}
"""what is written anew where it mixes tokens; None where it does not"""


def _input(name: str) -> ir.Value:
    dtype, shape = INPUTS[name]
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    return ir.Value(name=name, type=kind, shape=ir.Shape(shape))


def _width(value: ir.Value) -> int:
    """D of (1, T, D)."""
    width = None if value.shape is None else value.shape[-1]
    if not isinstance(width, int):
        raise _StaysPaddedError
    return width


def _producer(value: ir.Value | None) -> str | None:
    node = None if value is None else value.producer()
    return None if node is None else node.op_type
