"""Step 4: a task's results from the graph's outputs. One file per task, each with `decode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from numpy import bool_
from numpy.typing import NDArray

from headway.core import siblings
from headway.core.tasks import Result
from headway.runtime.backends.base import Outputs

FAMILY = "headway.runtime.tasks"

Decode = Callable[[Outputs, NDArray[bool_], Sequence[str]], Sequence[Result]]
"""from a batch's outputs, which of its texts were cut, and the label names, one result a row"""


def load_decoder(task: str) -> Decode:
    """The decoder of a task. Raises UsageError."""
    return cast(Decode, siblings.load(FAMILY, task, "task").decode)
