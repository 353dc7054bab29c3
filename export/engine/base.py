"""What each inference engine defines, and which one a target is run by."""

from __future__ import annotations

from typing import Protocol, cast

import onnx_ir as ir

from headway.core import siblings

FAMILY = "headway.export.engine"

TARGETS = {"cpu": "onnxruntime", "cuda": "cuda", "tensorrt": "tensorrt"}
"""the engine by what `--target` says"""


class Engine(Protocol):
    """What each module of this family defines."""

    ABOUT: str
    """one sentence for the model card"""
    PRECISIONS: tuple[str, ...]
    """those that it runs"""
    SIMULATED: tuple[str, ...]
    """those that are proven by fp32 ops that round (`headway.export.simulated`), as no processor computes them so"""

    def rewrite(self, model: ir.Model) -> ir.Model:
        """A precision's graph as the engine takes it and runs it fastest; it may be changed in place."""
        ...

    def refused(self, model: ir.Model) -> list[str]:
        """What of a graph the engine will not take, each node's name with its reason."""
        ...


def load(target: str) -> Engine:
    """The engine of a target."""
    return cast(Engine, siblings.load(FAMILY, TARGETS[target], "--target"))
