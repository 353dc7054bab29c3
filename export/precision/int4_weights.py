"""int4-weights: 4-bit weights with one scale for every 32 of an output channel, all else as it was.

The form and what becomes of it is that of `int8_weights`. Four bits are stored packed, two to a byte.
"""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.export.calibration import LEAST
from headway.export.precision.base import Feeds, Layer, Writer, layers
from headway.export.precision.int8_weights import by_channel

ABOUT = "4-bit weights, one scale per 32 of them (no calibration data); for decoders"

BLOCK = 32
"""weights of an output channel that share a scale; TensorRT takes 16 and 32, ONNX Runtime powers of two from 16"""
LEAST_LEVEL, LARGEST_LEVEL = -8, 7
RANGES = np.linspace(1, 0.7, 13, dtype=np.float32)
"""shares of a block's largest magnitude that are tried as its range"""


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    writer = Writer(model)
    for layer in layers(model):
        if layer.name not in kept:
            _by_block(writer, layer) if len(layer.weight) % BLOCK == 0 else by_channel(writer, layer)
    writer.drop_unused_constants()
    return model


def _by_block(writer: Writer, layer: Layer) -> None:
    """Let a layer read int4 weights (D, N) with (D / BLOCK, N) scales."""
    levels, scale = rounded(layer.weight)
    inputs = [
        writer.constant(f"{layer.name}.int4", levels.astype(ml_dtypes.int4)),
        writer.constant(f"{layer.name}.scale", scale),
    ]
    name = f"{layer.node.outputs[0].name}.weight"
    read = writer.node(layer.node, "DequantizeLinear", inputs, name, axis=0, block_size=BLOCK)
    layer.node.replace_input_with(1, read)


def rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Levels (D, N) between -8 and 7, and scales (D / BLOCK, N).

    With so few levels it pays to clip the largest: each block takes the range with the least squared error.
    """
    blocks = weight.reshape(-1, BLOCK, weight.shape[1])  # (D / BLOCK, BLOCK, N)
    most = np.maximum(np.abs(blocks).max(axis=1, keepdims=True) / LARGEST_LEVEL, LEAST)
    levels = scale = least = None
    for share in RANGES:
        step = (most * share).astype(np.float32)
        tried = np.clip(np.rint(blocks / step), LEAST_LEVEL, LARGEST_LEVEL)
        error = np.square(tried * step - blocks).sum(axis=1, keepdims=True)
        if levels is None or scale is None or least is None:
            levels, scale, least = tried, step, error
        better = error < least
        levels, scale = np.where(better, tried, levels), np.where(better, step, scale)
        least = np.minimum(error, least)
    assert levels is not None
    assert scale is not None
    return levels.reshape(weight.shape).astype(np.int8), scale[:, 0]
