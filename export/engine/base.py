"""What each inference engine defines, and which one a target is run by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from headway.core import siblings

if TYPE_CHECKING:
    import onnx_ir as ir

FAMILY = "headway.export.engine"

TARGETS = {"cpu": "onnxruntime", "cuda": "cuda", "tensorrt": "tensorrt"}
"""the engine by what `--target` says"""
PRECISIONS = {
    "cpu": ("fp32", "fp16", "bf16", "int8", "int8-static", "int8-weights", "int4-weights"),
    "cuda": ("fp32", "fp16", "bf16", "int8-weights", "int4-weights"),
    "tensorrt": ("fp32", "fp16", "bf16", "fp8", "int8-static", "int8-weights", "int4-weights"),
}
"""what each target runs: a processor has no products in fp8, and a GPU none of integers without Q and DQ"""


class Engine(Protocol):
    """What each module of this family defines."""

    ABOUT: str
    """one sentence for the model card"""
    SIMULATED: tuple[str, ...]
    """precisions that are proven by fp32 ops that round (`headway.export.simulated`), as not every processor computes them"""

    def rewrite(self, model: ir.Model) -> ir.Model:
        """A precision's graph as the engine takes it and runs it fastest; it may be changed in place."""
        ...

    def refused(self, model: ir.Model) -> list[str]:
        """What of a graph the engine will not take, each node's name with its reason."""
        ...


def load(target: str) -> Engine:
    """The engine of a target."""
    return cast(Engine, siblings.load(FAMILY, TARGETS[target], "--target"))
