"""How to export: every setting with its unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.core import siblings
from headway.core.errors import UnavailableError, UsageError

PRECISIONS = "headway.export.precision"
NEED_GPU = frozenset({"bf16", "fp8"})
"""precisions that ONNX Runtime cannot run on a processor, and so not prove"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Contradictions are refused, naming the option."""

    output: Path
    """folder for the bundle"""
    precision: str = "fp32,int8"
    """variants to make, separated by commas: fp32, fp16, int8, int8-static, int8-weights, int4-weights"""
    task: str | None = None
    """must be the task that the checkpoint was trained for; none: that task"""
    target: Literal["cpu"] = "cpu"
    """what the bundle is meant to run on"""
    eval: Path | None = None
    """labelled data: measures every variant's quality, through the runtime"""
    max_drop: float | None = None
    """how much of the task's metric a variant may lose against the checkpoint, 0.01 being one point; needs --eval"""
    calibration: Path | None = None
    """texts of the kind that the model will see, to set ranges and compare with PyTorch; none: those of --eval"""
    columns: str | None = None
    """names of fields in the files, as text=body,label=topic"""
    threads: int | None = None
    """processor threads; none: all that affinity and cgroup leave"""
    overwrite: bool = False
    """replace what is at the output"""

    def __post_init__(self) -> None:
        known = siblings.names(PRECISIONS)
        for name in set(self.precisions) & NEED_GPU:
            remedy = "its proof needs an engine that runs it, on a GPU, which comes with a later version"
            raise UnavailableError(f"{name} on a processor", remedy)
        for name in self.precisions:
            if name not in known:
                raise UsageError("--precision", f"unknown '{name}'; known: {', '.join(known)}")
        if len(set(self.precisions)) < len(self.precisions):
            raise UsageError("--precision", f"names a variant twice: {self.precision}")
        if self.max_drop is not None and self.eval is None:
            raise UsageError("--max-drop", "needs --eval, the data to measure on")
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise UsageError("--max-drop", f"must be between 0 and 1, not {self.max_drop}")

    @property
    def precisions(self) -> list[str]:
        return self.precision.split(",")
