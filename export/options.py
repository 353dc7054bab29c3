"""How to export: every setting with its unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.core import siblings
from headway.core.errors import UnavailableError, UsageError
from headway.export.engine import base as engines

PRECISIONS = "headway.export.precision"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Contradictions are refused, naming the option."""

    output: Path
    """folder for the bundle"""
    precision: str = "fp32,int8"
    """variants to make, separated by commas: fp32, fp16, bf16, fp8, int8, int8-static, int8-weights, int4-weights"""
    task: str | None = None
    """must be the task that the checkpoint was trained for; none: that task"""
    target: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """what the variants are meant to run on"""
    eval: Path | None = None
    """labelled data: measures every variant's quality, through the runtime"""
    max_drop: float | None = None
    """how much of the task's metric a variant may lose against the checkpoint, 0.01 being one point; needs --eval"""
    calibration: Path | None = None
    """texts of the kind that the model will see, to set ranges and compare with PyTorch; none: those of --eval"""
    columns: str | None = None
    """names of fields in the files, as text=body,label=topic"""
    trim_vocabulary: Path | None = None
    """texts, one a line: keep only the tokens that these and other words' spelling need"""
    speed: bool = False
    """time every variant on this machine, for the model card (which then differs from one export to the next)"""
    threads: int | None = None
    """processor threads; none: all that affinity and cgroup leave"""
    overwrite: bool = False
    """replace what is at the output"""

    def __post_init__(self) -> None:
        known = siblings.names(PRECISIONS)
        for name in self.precisions:
            if name not in known:
                raise UsageError("--precision", f"unknown '{name}'; known: {', '.join(known)}")
            able = engines.PRECISIONS[self.target]
            if name not in able:
                raise UnavailableError(
                    f"{name} for --target {self.target}",
                    f"it has {', '.join(able)}; another target may have {name}",
                )
        if len(set(self.precisions)) < len(self.precisions):
            raise UsageError("--precision", f"names a variant twice: {self.precision}")
        if self.max_drop is not None and self.eval is None:
            raise UsageError("--max-drop", "needs --eval, the data to measure on")
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise UsageError("--max-drop", f"must be between 0 and 1, not {self.max_drop}")

    @property
    def precisions(self) -> list[str]:
        return self.precision.split(",")

    def variant(self, precision: str) -> str:
        """The name of a variant, and of its folder."""
        return f"{precision}-tensorrt" if self.target == "tensorrt" else precision
