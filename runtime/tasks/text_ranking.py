"""text-ranking: scores of passages, as the task itself has them."""

from __future__ import annotations

from collections.abc import Sequence

from headway.core.tasks import Output, Spec
from headway.core.tasks import text_ranking as task
from headway.core.tasks.text_ranking import Example, Result
from headway.runtime.tasks.base import Plain as Call
from headway.runtime.tasks.base import unchanged

__all__ = ["Call", "decode", "prepare"]

prepare = unchanged


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Call) -> list[Result]:
    return task.decode(examples, outputs, spec)
