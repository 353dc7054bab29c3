"""int8-weights: 8-bit weights with one scale per output channel, all else as it was.

In the standard form, a DequantizeLinear before each MatMul, which TensorRT takes and ONNX Runtime fuses into its
MatMulNBits. That one rounds activations as well, to 8 bits by blocks of a token, and so apart from its neighbours.
Meant for decoders, where reading weights is what takes the time.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from headway.export.calibration import rounded
from headway.export.precision.base import Feeds, Layer, Writer, layers
from headway.export.precision.int8 import LARGEST

ABOUT = "8-bit weights, one scale per output channel (no calibration data); for decoders"


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    writer = Writer(model)
    for layer in layers(model):
        if layer.name not in kept:
            by_channel(writer, layer)
    writer.drop_unused_constants()
    return model


def by_channel(writer: Writer, layer: Layer) -> None:
    """Let a layer read int8 weights (D, N) with N scales."""
    levels, scale = rounded(layer.weight, LARGEST)
    inputs = [writer.constant(f"{layer.name}.int8", levels), writer.constant(f"{layer.name}.scale", scale)]
    read = writer.node(layer.node, "DequantizeLinear", inputs, f"{layer.node.outputs[0].name}.weight", axis=1)
    layer.node.replace_input_with(1, read)
