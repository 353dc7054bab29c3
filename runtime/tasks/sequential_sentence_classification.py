"""sequential-sentence-classification: labels of sentences, as the task itself has them."""

from __future__ import annotations

from collections.abc import Sequence

from headway.core.tasks import Output, Spec
from headway.core.tasks import sequential_sentence_classification as task
from headway.core.tasks.sequential_sentence_classification import Example, Result
from headway.runtime.tasks.base import Plain as Call
from headway.runtime.tasks.base import unchanged

__all__ = ["Call", "decode", "prepare"]

prepare = unchanged


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Call) -> list[Result]:
    return task.decode(examples, outputs, spec)
