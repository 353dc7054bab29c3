"""Tasks: what goes in and what comes out. One file per task, each with the members of `Task`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from headway.core import data, siblings
from headway.core.data import Record

FAMILY = "headway.core.tasks"


class Example(Protocol):
    """One input of a task, with its gold answer where the data has one."""

    @property
    def id(self) -> Any: ...

    @property
    def record(self) -> Record: ...


class Result(Protocol):
    """One prediction. A dataclass whose fields are those of DESIGN's table."""

    @property
    def truncated(self) -> bool: ...


class Task(Protocol):
    """What each module of this family defines."""

    METRIC: str
    """the figure that early stopping and the quality gate watch; higher is better"""
    OUTPUTS: tuple[str, ...]
    """names of the graph's outputs, each (B, …) float32"""

    def read(self, record: Record, labelled: bool) -> Example:
        """Check a record. Raises DataError with file, line and field."""
        ...

    def labels(self, examples: Iterable[Example]) -> list[str]:
        """The label names that training data declares, sorted."""
        ...

    def check(self, example: Example, labels: Sequence[str]) -> None:
        """Raise DataError if the example's gold answer is not one that the model can give."""
        ...

    def inputs(self, example: Example) -> str:
        """What the tokenizer gets."""
        ...

    def decode(self, outputs: Mapping[str, NDArray[np.float32]], labels: Sequence[str]) -> list[Result]:
        """Results of a batch, from the graph's outputs: the plain way, in numpy."""
        ...

    def metrics(self, examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
        """Figures by their usual names, from gold answers and predictions in the same order."""
        ...


def names() -> list[str]:
    """Names of the tasks, as the command line and the files write them."""
    return siblings.names(FAMILY)


def load(name: str, option: str = "TASK") -> Task:
    """The task of that name. Raises UsageError, naming `option`."""
    return cast(Task, siblings.load(FAMILY, name, option))


def read_labelled(
    task: Task,
    path: Path,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[Example]:
    """Every record of a labelled file; with `labels`, only those may occur. Raises DataError."""
    examples = [task.read(record, labelled=True) for record in data.read(path, columns)]
    for example in examples if labels is not None else ():
        task.check(example, labels or ())
    return examples
