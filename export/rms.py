"""RMS normalization as one op, of which torch's exporter makes seven (Zhang and Sennrich 2019; `RMSNormalization`)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from headway.export.precision.base import Writer


def fuse(model: ir.Model) -> ir.Model:
    """Replace x * Reciprocal(Sqrt(ReduceMean(x²) + e)) * weight, over the last axis; the graph is changed in place."""
    writer = Writer(model)
    for root in [node for node in model.graph if node.op_type == "Sqrt"]:
        squares = _squares(root)
        if squares is None:
            continue
        x, epsilon = squares
        inverse = _only_user(root, "Reciprocal")
        normal = None if inverse is None else _only_user(inverse, "Mul")
        scaled = None if normal is None else _only_user(normal, "Mul")
        if normal is None or scaled is None or x not in normal.inputs:
            continue
        (weight,) = [value for value in scaled.inputs if value is not normal.outputs[0]] or [None]
        if weight is None or weight.const_value is None or len(weight.const_value.shape) != 1:
            continue
        name = str(scaled.outputs[0].name)
        made = writer.node(scaled, "RMSNormalization", [x, weight], f"{name}.rms", axis=-1, epsilon=epsilon)
        made.shape, made.type = scaled.outputs[0].shape, scaled.outputs[0].type
        writer.replace(scaled, made)
    return model


def _squares(root: ir.Node) -> tuple[ir.Value, float] | None:
    """x and e of a root of ReduceMean(x²) + e."""
    added = _producer(root.inputs[0], "Add")
    mean = None if added is None else _producer(added.inputs[0], "ReduceMean")
    power = None if mean is None else _producer(mean.inputs[0], "Pow")
    if added is None or mean is None or power is None or power.inputs[0] is None:
        return None
    axes, exponent, epsilon = (
        _constant(value) for value in (mean.inputs[1], power.inputs[1], added.inputs[1])
    )
    if axes is None or exponent is None or epsilon is None or epsilon.size != 1:
        return None
    fits = axes.tolist() == [-1] and exponent.tolist() in (2, [2]) and mean.attributes.get_int("keepdims", 1)
    return (power.inputs[0], float(epsilon.item())) if fits else None


def _constant(value: ir.Value | None) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _producer(value: ir.Value | None, op: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op else None


def _only_user(node: ir.Node, op: str) -> ir.Node | None:
    (value,) = node.outputs
    users = list(value.consumers())
    return users[0] if len(users) == 1 and users[0].op_type == op and not value.is_graph_output() else None
