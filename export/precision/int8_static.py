"""int8-static: 8-bit products with ranges fixed beforehand on the user's texts, in symmetric QDQ form.

The form is what TensorRT takes (zero points of zero, weights with one scale per output channel) and what ONNX
Runtime fuses into 8-bit products. Each activation has one scale, chosen by `headway.export.calibration`. Weights
are int8 within ±64, so that the sums are exact on every processor (see `int8`). Embeddings stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.core.errors import UsageError
from headway.export import calibration
from headway.export.precision.base import Feeds, Layer, Writer, layers
from headway.export.precision.int8 import LARGEST, LARGEST_WEIGHT

ABOUT = "8-bit products, activation scales calibrated on the user's texts (for TensorRT and ONNX Runtime)"

GAIN = 0.7
"""share of the error that must be left for SmoothQuant's migration to be worth a product at run time"""
NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
"""ops whose scale and bias can take a migration over, at no cost"""


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    writer = Writer(model)
    groups = by_input(model, kept)
    observed = observe(model, groups, feeds)
    for x, group in groups.items():
        if x in observed:
            _quantize(writer, x, group, observed[x])
    writer.drop_unused_constants()
    return model


def by_input(model: ir.Model, kept: Collection[str]) -> dict[ir.Value, list[Layer]]:
    """The layers to quantize, by their input: query, key and value share one."""
    groups: dict[ir.Value, list[Layer]] = {}
    for layer in layers(model):
        if layer.name not in kept:
            groups.setdefault(layer.node.inputs[0], []).append(layer)  # type: ignore[arg-type]
    return groups


def observe(
    model: ir.Model, groups: Collection[ir.Value], feeds: Feeds
) -> dict[ir.Value, calibration.Observed]:
    """What the layers' inputs are on the feeds. Raises UsageError without feeds."""
    if not feeds:
        raise UsageError("--calibration", "static quantization needs texts to measure activations on")
    return calibration.observe(model, list(groups), feeds)


def _quantize(writer: Writer, x: ir.Value, group: list[Layer], observed: calibration.Observed) -> None:
    """Give an input and all the weights that it meets their scales."""
    nodes = [layer.node for layer in group]
    weight = np.concatenate([layer.weight for layer in group], axis=1)  # (D, N)
    free = _normalization(x, nodes)
    shared = any(user not in nodes for node in nodes for user in node.inputs[1].consumers())  # type: ignore[union-attr]
    gain = 0.0 if shared else GAIN if free is None else 1.0
    choice = calibration.choose(observed, weight, LARGEST_WEIGHT, gain)
    if choice.migration is not None:
        by = choice.migration
        weight = weight * by[:, None]
        x = _divided(writer, x, nodes[0], by) if free is None else _scaled(writer, free, by)
    narrow, channels = calibration.rounded(weight, LARGEST_WEIGHT)
    multiply(writer, x, group, np.array(choice.limit / LARGEST, np.float32), narrow, channels)


def multiply(
    writer: Writer,
    x: ir.Value,
    group: list[Layer],
    step: NDArray[np.float32],
    narrow: NDArray[Any],
    channels: NDArray[np.float32],
) -> None:
    """x with one scale, by the weights of all its layers in a row (D, N) with one scale for each column (N,).

    They are one product, as ONNX Runtime fuses a rounded activation with one product only.
    """
    kind, name, first = narrow.dtype, "+".join(layer.name for layer in group), group[0].node
    scale, zero = writer.constant(f"{x.name}.step", step), writer.constant(f"zero.{kind}", np.zeros((), kind))
    levels = writer.node(first, "QuantizeLinear", [x, scale, zero], f"{x.name}.{kind}")
    rows = writer.node(first, "DequantizeLinear", [levels, scale, zero], f"{x.name}.rounded")
    constants = {kind: narrow, "scale": channels, "zero": np.zeros(len(channels), kind)}
    inputs = [writer.constant(f"{name}.{part}", array) for part, array in constants.items()]
    columns = writer.node(first, "DequantizeLinear", inputs, f"{x.name}.weight", axis=1)
    together = writer.node(first, "MatMul", [rows, columns], f"{x.name}.products")
    for layer, part in zip(group, _parts(writer, together, group), strict=True):
        writer.replace(layer.node, part)


def _parts(writer: Writer, together: ir.Value, group: list[Layer]) -> list[ir.Value]:
    """Each layer's columns of a product."""
    if len(group) == 1:
        return [together]
    widths = np.array([layer.weight.shape[1] for layer in group], np.int64)
    sizes = writer.constant(f"{together.name}.widths", widths)
    split = ir.node(
        "Split", [together, sizes], {"axis": -1}, num_outputs=len(group), name=f"{together.name}.split"
    )
    writer.graph.insert_before(group[0].node, split)
    return list(split.outputs)


def _normalization(x: ir.Value, nodes: list[ir.Node]) -> ir.Node | None:
    """The normalization that gives x, if nothing but these nodes reads x."""
    node = x.producer()
    if node is None or node.op_type not in NORMALIZATIONS or x.is_graph_output():
        return None
    known = all(v is not None and v.const_value is not None for v in node.inputs[1:])
    return node if known and all(user in nodes for user in x.consumers()) else None


def _scaled(writer: Writer, node: ir.Node, by: NDArray[np.float32]) -> ir.Value:
    """Let a normalization give its output divided by channel."""
    x = node.outputs[0]
    for index, part in enumerate(node.inputs[1:], 1):
        assert part is not None
        assert part.const_value is not None
        moved = part.const_value.numpy() / by
        node.replace_input_with(index, writer.constant(f"{x.name}.absorbed.{index}", moved))
    return x


def _divided(writer: Writer, x: ir.Value, before: ir.Node, by: NDArray[np.float32]) -> ir.Value:
    share = writer.constant(f"{x.name}.share", (1 / by).astype(np.float32))
    return writer.node(before, "Mul", [x, share], f"{x.name}.migrated")
