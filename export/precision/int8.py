"""int8: 8-bit products with one activation scale per token, in standard ONNX ops.

A scale per token keeps a text's result independent of its neighbours in the batch, which one scale for the
whole batch (`DynamicQuantizeLinear`) does not. Activations are uint8 around 128, the form that VNNI multiplies;
weights are int8 within ±64 with one scale per output channel, so that the sums are exact on every processor.
Embedding tables are int8 with one scale per row.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.export.precision.base import Feeds, Writer, layers, tables

ABOUT = "8-bit products, one activation scale per token (no calibration data, independent of the batch)"

ZERO = np.array(128, np.uint8)
LARGEST = 127
LARGEST_WEIGHT = 64
"""so that two products fit 16 bits, 2 * 255 * 64 < 2**15: processors without VNNI sum pairs of them so, and saturate"""
LEAST_SCALE = np.array(1e-20, np.float32)
"""for a token that is all zeros"""


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    writer = Writer(model)
    quantized: dict[
        ir.Value, tuple[ir.Value, ir.Value]
    ] = {}  # query, key and value share one quantized input
    for layer in layers(model):
        if layer.name not in kept:
            _matmul(writer, layer.node, layer.weight, quantized)
    for table in tables(model):
        if table.name not in kept:
            _embedding(writer, table.node, table.rows)
    writer.drop_unused_constants()
    return model


def _matmul(writer: Writer, node: ir.Node, weight: NDArray[Any], quantized: dict[ir.Value, Any]) -> None:
    """y = (x8 - 128) @ w8 * scale(w) * scale(x), products summed in int32."""
    x, name = node.inputs[0], str(node.outputs[0].name)
    assert x is not None
    if x not in quantized:
        quantized[x] = _per_token(writer, node, x, weight.shape[0])
    x8, x_scale = quantized[x]
    w8, w_scale = _rounded(weight, axis=0, largest=LARGEST_WEIGHT)
    constant = str(node.inputs[1].name)  # type: ignore[union-attr]
    sums = writer.node(
        node,
        "MatMulInteger",
        [x8, writer.constant(f"{constant}.int8", w8), writer.constant("int8.zero", ZERO)],
        f"{name}.sums",
    )
    floats = writer.node(node, "Cast", [sums], f"{name}.floats", to=ir.DataType.FLOAT)
    channels = writer.constant(f"{constant}.scale", w_scale[0])
    scaled = writer.node(node, "Mul", [floats, channels], f"{name}.scaled")
    writer.replace(node, writer.node(node, "Mul", [scaled, x_scale], f"{name}.tokens"))


def _per_token(writer: Writer, node: ir.Node, x: ir.Value, width: int) -> tuple[ir.Value, ir.Value]:
    """x (B, T, D) float32 to (B, T, D) uint8 and its scales (B, T, 1): one block a token."""
    name = f"{x.name}.token"
    size = writer.node(node, "Abs", [x], f"{name}.abs")
    last = writer.constant("int8.last_axis", np.array([-1], np.int64))
    most = writer.node(node, "ReduceMax", [size, last], f"{name}.most", keepdims=1)
    share = writer.constant("int8.share", np.array(1 / LARGEST, np.float32))
    scale = writer.node(node, "Mul", [most, share], f"{name}.share")
    scale = writer.node(node, "Max", [scale, writer.constant("int8.least", LEAST_SCALE)], f"{name}.scale")
    shape = writer.node(node, "Shape", [scale], f"{name}.shape")
    zero = writer.node(node, "Expand", [writer.constant("int8.zero", ZERO), shape], f"{name}.zero")
    x8 = writer.node(node, "QuantizeLinear", [x, scale, zero], f"{name}.uint8", axis=-1, block_size=width)
    return x8, scale


def _embedding(writer: Writer, node: ir.Node, table: NDArray[Any]) -> None:
    """Rows are looked up in int8 and scaled afterwards."""
    rows8, scales = _rounded(table, axis=1, largest=LARGEST)
    constant, name = str(node.inputs[0].name), str(node.outputs[0].name)  # type: ignore[union-attr]
    ids = node.inputs[1]
    assert ids is not None
    looked_up = writer.node(
        node, "Gather", [writer.constant(f"{constant}.int8", rows8), ids], f"{name}.int8", axis=0
    )
    floats = writer.node(node, "Cast", [looked_up], f"{name}.floats", to=ir.DataType.FLOAT)
    scale = writer.node(
        node, "Gather", [writer.constant(f"{constant}.scale", scales), ids], f"{name}.scale", axis=0
    )
    writer.replace(node, writer.node(node, "Mul", [floats, scale], f"{name}.rows"))


def _rounded(weight: NDArray[Any], axis: int, largest: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale for each slice along the other axis; the scale keeps its dimension."""
    scale = np.maximum(np.abs(weight).max(axis=axis, keepdims=True) / largest, LEAST_SCALE).astype(np.float32)
    return np.clip(np.rint(weight / scale), -largest, largest).astype(np.int8), scale
