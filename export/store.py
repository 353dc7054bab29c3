"""Graphs on disk and in ONNX Runtime, with their weights in a file beside them where one file cannot hold them."""

from __future__ import annotations

import tempfile
from copy import copy
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime

LARGEST = 1 << 30
"""bytes of weights within a graph's own file; Protocol Buffers, which it is written in, end at 2 GiB"""
LIGHT = 256
"""bytes of constants that stay in the graph's file in any case, as shapes and scales do"""


def write(model: ir.Model, path: Path) -> None:
    """Write a graph, and its weights to `<name>.data` if they are large. The same graph gives the same bytes."""
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)
    external = beside.name if weight(model) > LARGEST else None
    if external is None:
        _take_in(model)
    ir.save(model, path, external_data=external, size_threshold_bytes=LIGHT)


def _take_in(model: ir.Model) -> None:
    """Let a graph hold the weights that lie beside the one which it was read from."""
    for value in model.graph.initializers.values():
        held = value.const_value
        if isinstance(held, ir.ExternalTensor):
            value.const_value = ir.Tensor(held.numpy().copy(), dtype=held.dtype, name=held.name)


def write_with_twin(model: ir.Model, path: Path, other: ir.Model, other_path: Path) -> None:
    """Write two graphs in one folder, the constants that they share once: those of `other` lie in the data of `model`."""
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=LIGHT)
    written = ir.load(path).graph.initializers
    for name, value in other.graph.initializers.items():
        if name in written and isinstance(written[name].const_value, ir.ExternalTensor):
            value.const_value = written[name].const_value
    ir.save(other, other_path)


def weight(model: ir.Model) -> int:
    """Bytes of a graph's constants."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def twin(model: ir.Model) -> ir.Model:
    """A copy to be rewritten; only the constants' bytes, which nothing changes in place, are the same."""
    made = model.clone()
    for node in made.graph:
        for value in node.outputs:
            value.type = copy(value.type)
    for value in (*made.graph.inputs, *made.graph.initializers.values()):
        value.type = copy(value.type)
    return made


def session(model: ir.Model, threads: int, fused: bool = True) -> Any:
    """An opened graph, of any size. Without `fused` quantized products are computed op by op, as they are written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write(model, path)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
