"""How to train: every setting with its unit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from headway.core.errors import UsageError

SPECIAL = frozenset(
    {
        "beams",
        "class_weights",
        "dimensions",
        "few_shot",
        "from_scratch",
        "hard_negatives",
        "label_smoothing",
        "loss",
        "margin",
        "max_target_length",
        "pooling",
        "problem_type",
        "scale",
        "score_range",
        "stride",
    }
)
"""options that only some tasks have"""
MAX_SEED = 2**32 - 1
"""the greatest that `numpy.random.seed` takes"""
MAX_BATCH_SIZE = 2**31 - 1
"""the greatest that PyTorch's data loader takes on every platform"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Contradictions are refused, naming the option."""

    model: str | None = None
    """pretrained model: a folder, or a name on the hub"""
    train: Path
    """labelled data: .jsonl, .csv, .parquet, plain .txt, or the folder of a retrieval collection"""
    output: Path
    """folder for the checkpoint"""
    eval: Path | None = None
    """held-out data: chooses the best epoch, stops early, fits temperature and thresholds"""
    columns: str | None = None
    """names of fields in the files, as text=body,label=topic; or templates, as source=ask: {question}"""
    epochs: int = 5
    """passes over the training data, at most"""
    batch_size: int = 32
    """examples in a step; windows, where long ones are read in windows"""
    accumulate: int = 1
    """parts that a step's examples are computed in, one after the other, to save memory"""
    learning_rate: float = 2e-4
    """peak, after warm-up"""
    warmup: float = 0.1
    """share of the steps over which the learning rate rises"""
    weight_decay: float = 0.01
    """per step, relative to the learning rate"""
    layer_decay: float = 1.0
    """learning rate of each layer as a share of the one above it"""
    freeze: int = 0
    """layers of the body, from the embeddings up, that stay as they are; 1: the embeddings alone"""
    lora: int = 0
    """rank of low-rank adapters that are trained instead of the body's weights, and merged at the end; 0: none"""
    gradient_checkpointing: bool = False
    """compute activations twice to save memory"""
    max_length: int = 128
    """tokens in one input of the model, special ones included; longer texts are cut, or read in windows"""
    patience: int = 2
    """epochs without improvement on the eval file after which training stops"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """of the products in a step; auto: bf16 where the machine has it. Weights are always fp32"""
    seed: int = 13
    """of weights, order and dropout"""
    threads: int | None = None
    """processor threads; none: all that affinity and cgroup leave"""
    resume: bool = False
    """go on from the last complete epoch of an interrupted run with the same output, data, options and model"""
    overwrite: bool = False
    """replace what is at the output"""

    class_weights: Literal["none", "balanced"] = "none"
    """one label each: balanced counts a label by the inverse of its frequency"""
    label_smoothing: float = 0.0
    """share of the target that is spread over all labels or tokens"""
    pooling: Literal["auto", "cls", "mean", "max", "attention"] = "auto"
    """how token vectors become one; auto: classification has the model's own head, embeddings the mean"""
    score_range: str | None = None
    """lowest and highest score of the data, as 0,5; others are refused"""
    stride: int | None = None
    """tokens that neighbouring windows of a long text share"""
    loss: Literal["auto", "triplet", "contrastive", "cosine", "mnr", "softmax", "binary", "listwise"] = "auto"
    """of embeddings (triplet to softmax) or ranking (binary, listwise); auto: by the data's fields"""
    problem_type: Literal[
        "auto", "single_label_classification", "multi_label_classification", "regression"
    ] = "auto"
    """of text classification, which decides whether label, labels or score is read; auto: by the data's fields"""
    margin: float = 0.2
    """triplet and contrastive loss: distance (1 - cosine) that parts what differs"""
    scale: float = 20.0
    """mnr loss: factor of the cosines"""
    hard_negatives: int = 0
    """pairs: texts most like the anchor that are mined with the model before training, and added as negatives"""
    dimensions: str | None = None
    """prefixes of the vector that shall be useful alone, as 256,128,64 (Matryoshka)"""
    max_target_length: int = 64
    """tokens of a target; longer ones are cut; also what is generated, at most"""
    beams: int = 1
    """beams in evaluation"""
    few_shot: bool = False
    """few examples of each label: first a contrastive phase on the body, and the head fitted to it (as in SetFit)"""
    from_scratch: Literal["small"] | None = None
    """no pretrained model: a new tokenizer and a small new model, both made from the training data"""

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("patience", 1),
            ("max_length", 8),
            ("max_target_length", 2),
            ("beams", 1),
            ("seed", 0),
            ("freeze", 0),
            ("lora", 0),
            ("hard_negatives", 0),
            ("stride", 0),
        ):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise UsageError(flag(name), f"must be at least {least}, not {getattr(self, name)}")
        for name, most in (("seed", MAX_SEED), ("batch_size", MAX_BATCH_SIZE)):
            if getattr(self, name) > most:
                raise UsageError(flag(name), f"must be at most {most}, not {getattr(self, name)}")
        for name in ("learning_rate", "layer_decay", "scale", "margin"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(flag(name), f"must be a number above 0, not {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(flag(name), f"must be between 0 and 1, not {getattr(self, name)}")
        if self.accumulate > self.batch_size:
            raise UsageError("--accumulate", f"parts {self.batch_size} examples into {self.accumulate}")
        if self.freeze and self.lora:
            raise UsageError("--lora", "trains no layer of the body, so that --freeze has none to leave out")
        if (self.model is None) == (self.from_scratch is None):
            raise UsageError("--model", "give a pretrained model, or --from-scratch; one of the two")
        if self.model is not None and self.output.resolve() == Path(self.model).resolve():
            raise UsageError("--output", "is the folder of --model itself")

    def refuse_foreign(self, task: str, own: Iterable[str]) -> None:
        """Raise UsageError for an option that was given but means nothing to the task."""
        for field in fields(self):
            foreign = field.name in SPECIAL - set(own)
            if foreign and getattr(self, field.name) != field.default:
                raise UsageError(flag(field.name), f"has no meaning for {task}")

    @property
    def name(self) -> str:
        """What training starts from, by name alone."""
        return f"scratch-{self.from_scratch}" if self.model is None else Path(self.model).name


def numbers(option: str, text: str | None) -> list[float]:
    """The finite numbers of an option like `--score-range 0,5`. Raises UsageError."""
    try:
        found = [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise UsageError(option, f"wants numbers parted by commas, not '{text}'") from error
    if not all(map(math.isfinite, found)):
        raise UsageError(option, f"wants finite numbers, not '{text}'")
    return found


def whole_numbers(option: str, text: str | None) -> list[int]:
    """The whole numbers of an option like `--dimensions 256,128`. Raises UsageError."""
    found = numbers(option, text)
    if not all(number.is_integer() for number in found):
        raise UsageError(option, f"wants whole numbers parted by commas, not '{text}'")
    return [int(number) for number in found]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")
