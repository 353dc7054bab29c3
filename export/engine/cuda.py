"""Graphs for ONNX Runtime on NVIDIA GPUs, which takes the standard ones and fuses them itself.

A decoder's step is captured and done again without the processor, so that it must not wait for numbers from there. ONNX
Runtime reckons with sizes on the processor; a kernel on the GPU reads them there only where they say a shape.
"""

from __future__ import annotations

import onnx_ir as ir

ABOUT = "ONNX Runtime on an NVIDIA GPU: the standard graph"
SIMULATED = ("fp16", "bf16")

WRITTEN = "written"
"""the input that tells a decoder's step from other graphs"""
ON_PROCESSOR = {
    "Reshape": (1,), "Expand": (1,), "Unsqueeze": (1,), "Squeeze": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Tile": (1,), "Pad": (1, 3), "TopK": (1,), "ReduceSum": (1,), "ReduceMean": (1,),
}  # fmt: skip
"""inputs that a kernel reads on the processor"""
MOST = 100
"""numbers of a small constant (GetCpuPreferredNodes in ONNX Runtime)"""


def rewrite(model: ir.Model) -> ir.Model:
    return model


def refused(model: ir.Model) -> list[str]:
    if all(value.name != WRITTEN for value in model.graph.inputs):
        return []
    reasons = []
    reckoned: set[ir.Value] = set()
    """on the processor: sizes, and what is computed from nothing else"""
    for node in model.graph:
        there = [i for i, value in enumerate(node.inputs) if value in reckoned]
        if node.op_type in ("Shape", "Size"):
            reckoned.update(node.outputs)
        elif there and all(i in ON_PROCESSOR.get(node.op_type, ()) for i in there):
            continue
        elif there and all(v is None or v in reckoned or _is_small(v) for v in node.inputs):
            reckoned.update(node.outputs)
        elif there:
            name = node.name or node.outputs[0].name
            reasons.append(f"{name}: {node.op_type} would wait for a size from the processor")
    return reasons


def _is_small(value: ir.Value) -> bool:
    """Whether it is a constant that ONNX Runtime reads on either side."""
    return value.const_value is not None and value.const_value.size <= MOST
