"""Graphs for TensorRT: standard ops, symmetric QDQ, and attention as one op only where TensorRT has a kernel for it.

What it takes was tried with the parser and builder of TensorRT-RTX 1.7. Its Attention exists in 16 bits, for heads
of 16 to 256 numbers, the same in keys and values, without softcap and caches, and with a mask or causal but not both; a mask of bools is added to the scores where it would fail in bf16.
Any other, and all of a decoder's, become products and a softmax, as the standard says (onnx.ai/onnx/operators/onnx__Attention.html), but that
a token which may look at nothing gets the mean of all values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from headway.export.precision.base import Writer

ABOUT = "NVIDIA TensorRT: standard ops, symmetric QDQ, attention as one op in 16 bits only"
SIMULATED = ("fp16", "bf16", "fp8")

LEAST_HEAD, LARGEST_HEAD = 16, 256
"""numbers in a head of which TensorRT has attention as one op"""
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
SYMMETRIC = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN)
"""types that TensorRT quantizes to"""
ABSENT = ("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeLinear")
"""ops on integers; TensorRT reads them off Q and DQ around the ops on floats"""
STANDARD = ("", "ai.onnx")
WRITTEN = "written"
"""the input that tells a decoder's step from other graphs"""
MASK, PAST_KEY, PAST_VALUE, LENGTHS = 3, 4, 5, 6
INPUTS = {"attn_mask": MASK, "past_key": PAST_KEY, "past_value": PAST_VALUE, "nonpad_kv_seqlen": LENGTHS}
"""places of Attention's optional inputs"""


def rewrite(model: ir.Model) -> ir.Model:
    """A precision's graph as TensorRT takes it; it may be changed in place."""
    nodes = [node for node in model.graph if node.op_type == "Attention" and node.domain in STANDARD]
    if any(value.dtype is None or value.shape is None for node in nodes for value in _computed(node)):
        ShapeInferencePass()(model)
    added: dict[ir.Value, ir.Value] = {}
    steps = any(
        value.name == WRITTEN for value in model.graph.inputs
    )  # no kernel takes one query in each row
    for node in nodes:
        if (steps or not _has_kernel(node)) and _can_decompose(node):
            _Decomposition(model, node).write()
        elif _computed(node)[0].dtype == ir.DataType.BFLOAT16:
            _add_mask(model, node, added)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph):
        _part_weights(model)
    Writer(model).drop_unused_constants()
    return model


def _part_weights(model: ir.Model) -> None:
    """Give each layer quantized weights of its own, where layers share them.

    TensorRT-RTX 1.7 joins the products for queries, keys and values, and fails at weights that several layers read.
    """
    read: set[ir.Value] = set()
    for node in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        levels = node.inputs[0]
        assert levels is not None
        if levels not in read:
            read.add(levels)
            continue
        own = ir.val(f"{levels.name}.{node.name}", const_value=levels.const_value)
        model.graph.register_initializer(own)
        node.replace_input_with(0, own)


def _add_mask(model: ir.Model, node: ir.Node, added: dict[ir.Value, ir.Value]) -> None:
    """What is added to the scores, in place of a mask of bools, once for each mask.

    TensorRT-RTX 1.7 takes bools in bf16, but cannot build two Attentions with a mask that the graph computes.
    """
    mask, writer = _input(node, MASK), Writer(model)
    if mask is None or mask.dtype != ir.DataType.BOOL:
        return
    if mask not in added:
        kind = ir.DataType.BFLOAT16.numpy()
        seen = writer.constant("attention.seen", np.array(0, kind))
        unseen = writer.constant("attention.unseen", np.array(_lowest(kind), kind))
        added[mask] = writer.node(node, "Where", [mask, seen, unseen], f"{mask.name}.added")
        added[mask].shape, added[mask].type = mask.shape, ir.TensorType(ir.DataType.BFLOAT16)
    node.replace_input_with(MASK, added[mask])


def _lowest(kind: np.dtype[Any]) -> float:
    """A score that counts for nothing, and is no infinity with others added to it."""
    return float(ml_dtypes.finfo(kind).min) / 2  # type: ignore[no-untyped-call]


def refused(model: ir.Model) -> list[str]:
    """What TensorRT will not take: each node's name with its reason, in the order of the graph."""
    reasons = ((node, _refusal(node)) for node in model.graph)
    return [f"{node.name or node.outputs[0].name}: {reason}" for node, reason in reasons if reason]


def _refusal(node: ir.Node) -> str | None:
    if node.domain not in STANDARD:
        return f"{node.domain}.{node.op_type} is no standard op"
    if node.op_type in ABSENT:
        return f"{node.op_type} has no counterpart"
    if node.op_type == "Attention" and not _has_kernel(node):
        return f"Attention has no kernel for {_kind(node)}"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _asymmetry(node)
    return None


def _asymmetry(node: ir.Node) -> str | None:
    """Why the levels of a Q or DQ are not those of a symmetric quantization."""
    zero, kind = _input(node, 2), _levels(node)
    if kind not in SYMMETRIC:
        return f"{kind.name if kind else 'an unknown type'} is no type of its quantization"
    if zero is not None and (zero.const_value is None or np.any(zero.const_value.numpy().astype(np.float32))):
        return "the zero point is not a constant zero"
    return None


def _levels(node: ir.Node) -> ir.DataType | None:
    """What a Q gives, and a DQ takes."""
    zero = _input(node, 2)
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    if node.op_type == "DequantizeLinear":
        return node.inputs[0].dtype if node.inputs[0] is not None else None
    return ir.DataType(int(_number(node, "output_dtype")) or ir.DataType.UINT8)


def _computed(node: ir.Node) -> list[ir.Value]:
    """Query, key and value."""
    return [value for value in node.inputs[:3] if value is not None]


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if len(node.inputs) > place else None


def _number(node: ir.Node, name: str) -> float:
    return float(node.attributes[name].value) if name in node.attributes else 0.0


def _kind(node: ir.Node) -> str:
    """What kind of attention it is, for the message."""
    kind = _computed(node)[0].dtype
    extras = [name for name in ("is_causal", "softcap", "softmax_precision") if _number(node, name)]
    extras += [name for name, place in INPUTS.items() if _input(node, place) is not None]
    sizes = "/".join(str(size) for size in _head_sizes(node))
    return ", ".join([kind.name if kind else "an unknown type", f"heads of {sizes}", *extras])


def _heads(node: ir.Node, value: ir.Value) -> int | None:
    """How many heads a query, a key or a value (B, heads, T, D) or (B, T, heads * D) has."""
    if value.shape is not None and len(value.shape) == 4:
        return value.shape[1] if isinstance(value.shape[1], int) else None
    name = "q_num_heads" if value is node.inputs[0] else "kv_num_heads"
    return node.attributes[name].as_int() if name in node.attributes else None


def _head_sizes(node: ir.Node) -> tuple[int | None, ...]:
    """Numbers in a head of the query, the key and the value."""
    found: list[int | None] = []
    for value in _computed(node):
        last = None if value.shape is None else value.shape[-1]
        heads = 1 if value.shape is not None and len(value.shape) == 4 else _heads(node, value)
        found.append(last // heads if isinstance(last, int) and heads else None)
    return tuple(found)


def _has_kernel(node: ir.Node) -> bool:
    """Whether TensorRT has an attention of that kind as one op."""
    mask, kind, sizes = _input(node, MASK), _computed(node)[0].dtype, _head_sizes(node)
    return (
        kind in HALVES
        and all(size is not None and LEAST_HEAD <= size <= LARGEST_HEAD for size in sizes)
        and len(set(sizes)) == 1
        and (mask is None or mask.dtype in (kind, ir.DataType.BOOL))
        and not (mask is not None and _number(node, "is_causal"))
        and not _number(node, "softcap")
        and not _number(node, "softmax_precision")
        and all(value is None for value in node.inputs[PAST_KEY:])
        and len(node.outputs) == 1
    )


def _can_decompose(node: ir.Node) -> bool:
    known = all(value.dtype is not None and _heads(node, value) for value in _computed(node))
    scores = len(node.outputs) > 3 and (node.outputs[3].uses() or node.outputs[3].is_graph_output())
    return known and _head_sizes(node)[0] is not None and _input(node, LENGTHS) is None and not scores


@dataclass
class _Decomposition:
    """One Attention in products and a softmax. B: batch, H: heads, T: new tokens, S: tokens looked at, D: head size."""

    model: ir.Model
    node: ir.Node

    def __post_init__(self) -> None:
        self.writer, self.name = Writer(self.model), str(self.node.outputs[0].name)
        self.query, self.key, self.value = _computed(self.node)
        assert self.query.dtype is not None
        self.kind = self.query.dtype
        self.flat = self.query.shape is not None and len(self.query.shape) == 3

    def write(self) -> None:
        heads, groups = _heads(self.node, self.query), _heads(self.node, self.key)
        assert heads is not None
        assert groups is not None
        query = self._scaled(self._apart(self.query, heads, "query"))
        key = self._held(self._apart(self.key, groups, "key"), PAST_KEY, "key")
        value = self._held(self._apart(self.value, groups, "value"), PAST_VALUE, "value")
        if heads != groups:
            places = np.repeat(np.arange(groups), heads // groups)
            of = self._constant(f"attention.heads.{heads}.{groups}", places)
            key, value = (self._add("Gather", [x, of], f"{x.name}.heads", axis=1) for x in (key, value))
        columns = self._add("Transpose", [key], f"{self.name}.columns", perm=[0, 1, 3, 2])
        scores = self._capped(self._add("MatMul", [query, columns], f"{self.name}.scores"))
        shares = self._softmax(self._masked(scores, query, key))
        mixed = self._add("MatMul", [shares, value], f"{self.name}.mixed")  # (B, H, T, D)
        self.writer.replace(self.node, self._together(mixed) if self.flat else mixed)

    def _add(self, op: str, inputs: list[ir.Value], name: str, **attributes: Any) -> ir.Value:
        return self.writer.node(self.node, op, inputs, name, **attributes)

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        return self.writer.constant(name, array)

    def _scalar(self, number: float, role: str) -> ir.Value:
        made = np.array(number, self.kind.numpy())
        return self._constant(f"attention.{role}.{self.kind.name.lower()}.{number:.9g}", made)

    def _apart(self, value: ir.Value, heads: int, role: str) -> ir.Value:
        """(B, T, H * D) to (B, H, T, D)."""
        if not self.flat:
            return value
        shape = self._constant(f"attention.apart.{heads}", np.array([0, 0, heads, -1], np.int64))
        parts = self._add("Reshape", [value, shape], f"{self.name}.{role}.parts")
        return self._add("Transpose", [parts], f"{self.name}.{role}", perm=[0, 2, 1, 3])

    def _together(self, value: ir.Value) -> ir.Value:
        """(B, H, T, D) to (B, T, H * D)."""
        shape = self._constant("attention.together", np.array([0, 0, -1], np.int64))
        parts = self._add("Transpose", [value], f"{self.name}.parts", perm=[0, 2, 1, 3])
        return self._add("Reshape", [parts, shape], f"{self.name}.together")

    def _held(self, value: ir.Value, place: int, role: str) -> ir.Value:
        """The tokens in the cache and the new ones (B, H, S, D), which are also an output if the op gives them."""
        past, output = _input(self.node, place), place - PAST_KEY + 1
        present = self.node.outputs[output] if len(self.node.outputs) > output else None
        if past is not None:
            value = self._add("Concat", [past, value], f"{self.name}.{role}.held", axis=2)
        if present is None:
            return value
        if past is None:
            value = self._add("Identity", [value], f"{self.name}.{role}.held")
        name = present.name
        value.shape, value.type = present.shape, present.type
        present.replace_all_uses_with(value, replace_graph_outputs=True)
        present.name, value.name = f"{name}.before", name
        return value

    def _scaled(self, query: ir.Value) -> ir.Value:
        """The scale on the query, so that 16-bit products do not overflow."""
        size = _head_sizes(self.node)[0]
        assert size is not None
        scale = _number(self.node, "scale") if "scale" in self.node.attributes else size**-0.5
        if scale == 1:
            return query
        return self._add("Mul", [query, self._scalar(scale, "scale")], f"{self.name}.query.scaled")

    def _capped(self, scores: ir.Value) -> ir.Value:
        if not (cap := _number(self.node, "softcap")):
            return scores
        limit = self._scalar(cap, "softcap")
        share = self._add("Div", [scores, limit], f"{self.name}.scores.share")
        bent = self._add("Tanh", [share], f"{self.name}.scores.bent")
        return self._add("Mul", [bent, limit], f"{self.name}.scores.capped")

    def _masked(self, scores: ir.Value, query: ir.Value, key: ir.Value) -> ir.Value:
        """Scores (B, H, T, S) with those that must not count at half the least number, or with what is added to them."""
        mask = _input(self.node, MASK)
        seen = self._causal(query, key) if _number(self.node, "is_causal") else None
        if mask is not None and mask.dtype == ir.DataType.BOOL:
            seen = mask if seen is None else self._add("And", [mask, seen], f"{self.name}.seen")
        elif mask is not None:
            if mask.dtype != self.kind:
                mask = self._add("Cast", [mask], f"{self.name}.mask", to=self.kind)
            scores = self._add("Add", [scores, mask], f"{self.name}.scores.moved")
        if seen is None:
            return scores
        fill = self._scalar(_lowest(self.kind.numpy()), "fill")
        return self._add("Where", [seen, scores, fill], f"{self.name}.scores.masked")

    def _causal(self, query: ir.Value, key: ir.Value) -> ir.Value:
        """Token i of the new ones sees the cache and the new ones up to itself (T, S)."""
        one, zero = (self._constant(f"attention.{n}", np.array(n, np.int64)) for n in (1, 0))
        new, every = (self._length(x, role) for x, role in ((query, "new"), (key, "every")))
        past = _input(self.node, PAST_KEY)
        first = zero if past is None else self._length(past, "past")
        last = new if past is None else self._add("Add", [first, new], f"{self.name}.last")
        rows = self._add("Range", [first, last, one], f"{self.name}.rows")
        axis = self._constant("attention.axis", np.array([1], np.int64))
        rows = self._add("Unsqueeze", [rows, axis], f"{self.name}.rows.column")  # (T, 1)
        columns = self._add("Range", [zero, every, one], f"{self.name}.places")  # (S,)
        return self._add("LessOrEqual", [columns, rows], f"{self.name}.causal")

    def _length(self, value: ir.Value, role: str) -> ir.Value:
        size = self._add("Shape", [value], f"{self.name}.{role}.size", start=2, end=3)
        return self._add("Squeeze", [size], f"{self.name}.{role}")

    def _softmax(self, scores: ir.Value) -> ir.Value:
        precision = ir.DataType(int(_number(self.node, "softmax_precision")) or self.kind)
        if precision == self.kind:
            return self._add("Softmax", [scores], f"{self.name}.shares", axis=-1)
        wide = self._add("Cast", [scores], f"{self.name}.scores.wide", to=precision)
        shares = self._add("Softmax", [wide], f"{self.name}.shares.wide", axis=-1)
        return self._add("Cast", [shares], f"{self.name}.shares", to=self.kind)
