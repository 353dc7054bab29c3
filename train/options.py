"""How to train: every setting with its unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headway.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Contradictions are refused, naming the option."""

    model: str
    """pretrained model: a folder, or a name on the hub"""
    train: Path
    """labelled data: .jsonl, .csv or .parquet"""
    output: Path
    """folder for the checkpoint"""
    eval: Path | None = None
    """held-out data: chooses the best epoch and stops early"""
    columns: str | None = None
    """names of fields in the files, as text=body,label=topic"""
    epochs: int = 5
    """passes over the training data, at most"""
    batch_size: int = 32
    """texts in a step"""
    learning_rate: float = 2e-4
    """peak, after warm-up"""
    warmup: float = 0.1
    """share of the steps over which the learning rate rises"""
    weight_decay: float = 0.01
    """per step, relative to the learning rate"""
    max_length: int = 128
    """tokens a text, special ones included; the rest is cut"""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a label counts by the inverse of its frequency"""
    patience: int = 2
    """epochs without improvement on the eval file after which training stops"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the products in a step; auto: bf16 where the processor has it. Weights are always fp32"""
    seed: int = 13
    """of weights, order and dropout"""
    threads: int | None = None
    """processor threads; none: all that affinity and cgroup leave"""
    resume: bool = False
    """go on where an interrupted run with the same output stopped"""
    overwrite: bool = False
    """replace what is at the output"""

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("patience", 1),
            ("max_length", 3),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(_flag(name), f"must be at least {least}, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise UsageError("--learning-rate", f"must be above 0, not {self.learning_rate}")
        for name in ("warmup", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(_flag(name), f"must be between 0 and 1, not {getattr(self, name)}")
        if self.output.resolve() == Path(self.model).resolve():
            raise UsageError("--output", "is the folder of --model itself")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
