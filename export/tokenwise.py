"""Which ops of an encoder's graph treat each token by itself, in a batch of one row (1, T, …)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from headway.export.engine.onnxruntime import ALONG_LAST, ELEMENTWISE


class Kind(Enum):
    """What a value is."""

    STATED = auto()
    """known from sizes and constants, and the same for all tokens"""
    TOKENS = auto()
    """(1, T, …)"""
    TEXTS = auto()
    """(B, …)"""
    MASK = auto()
    """made of the attention mask"""
    UNKNOWN = auto()


KindOf = Callable[[ir.Value], Kind]

POINTWISE = {
    *ELEMENTWISE, "And", "Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or",
}  # fmt: skip
UNIFORM = {
    *POINTWISE, "Concat", "ConstantOfShape", "DequantizeLinear", "Expand", "Gather", "Reshape", "Shape", "Size",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""ops that make of sizes and constants nothing that differs from token to token"""
LAST = (-1, 2)
"""the last axis of (1, T, D)"""


def by_itself(node: ir.Node, kind: KindOf) -> bool:
    """Whether a node, of whose inputs some are TOKENS, gives TOKENS and mixes none of them."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return rule is not None and rule(node, kind)


def _pointwise(node: ir.Node, kind: KindOf) -> bool:
    return all(kind(value) in (Kind.STATED, Kind.TOKENS) for value in node.inputs if value is not None)


def _along_last(node: ir.Node, kind: KindOf) -> bool:
    others = all(kind(value) is Kind.STATED for value in node.inputs[1:] if value is not None)
    return others and rank(node.inputs[0]) == 3 and node.attributes.get_int("axis", -1) in LAST


def _product(node: ir.Node, kind: KindOf) -> bool:
    return rank(node.inputs[0]) == 3 and rank(node.inputs[1]) == 2 and _stated(node.inputs[1], kind)


def _looked_up(node: ir.Node, kind: KindOf) -> bool:
    return _stated(node.inputs[0], kind) and node.attributes.get_int("axis", 0) == 0


def _looked_up_in_rows(node: ir.Node, kind: KindOf) -> bool:
    return _stated(node.inputs[0], kind) and node.attributes.get_int("axis", 0) == 1


def _expanded(node: ir.Node, kind: KindOf) -> bool:
    return rank(node.inputs[0]) == rank(node.outputs[0])


def _squeezed(node: ir.Node, kind: KindOf) -> bool:
    return rank(node.inputs[0]) == 3 and len(node.inputs) > 1 and number(node.inputs[1]) in LAST


def _split(node: ir.Node, kind: KindOf) -> bool:
    return rank(node.inputs[0]) == 3 and node.attributes.get_int("axis", 0) in LAST


_RULES: dict[str, Callable[[ir.Node, KindOf], bool]] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(ALONG_LAST, _along_last),
    "Expand": _expanded,
    "Gather": _looked_up,
    "GatherElements": _looked_up_in_rows,
    "MatMul": _product,
    "Split": _split,
    "Squeeze": _squeezed,
}


def _stated(value: ir.Value | None, kind: KindOf) -> bool:
    return value is not None and kind(value) is Kind.STATED


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def number(value: ir.Value | None) -> int | None:
    """The only one in a constant."""
    array = constant(value)
    return int(array.item()) if array is not None and array.size == 1 else None


def rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else value.shape.rank()
