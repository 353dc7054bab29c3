"""Graphs for ONNX Runtime on NVIDIA GPUs, which takes the standard ones and fuses them itself."""

from __future__ import annotations

import onnx_ir as ir

ABOUT = "ONNX Runtime on an NVIDIA GPU: the standard graph"
SIMULATED = ("fp16", "bf16")


def rewrite(model: ir.Model) -> ir.Model:
    return model


def refused(model: ir.Model) -> list[str]:
    return []
