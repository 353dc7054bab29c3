"""What every encoder task has at prediction: the settings of a call, and decoding under them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec

from headway.core import siblings
from headway.core.errors import UsageError
from headway.core.tasks import Example, Output, Result, Spec

FAMILY = "headway.runtime.tasks"


class Plain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A call of a task that has no settings."""


class Decoder(Protocol):
    """What each module of this family defines."""

    Call: type[msgspec.Struct]
    """settings of a call; all have defaults, with which the answers are those of the task's own `decode`"""

    def prepare(self, examples: Sequence[Any], spec: Spec, call: Any) -> Sequence[Any]:
        """The examples as a call wants them read. Raises UsageError."""
        ...

    def decode(
        self, examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Any
    ) -> list[Result]:
        """Results in the order of the examples."""
        ...


def unchanged(examples: Sequence[Any], spec: Spec, call: Any) -> Sequence[Any]:
    """The member `prepare` of a task whose settings of a call change nothing about reading."""
    return examples


@functools.cache
def load(task: str) -> Decoder:
    """The decoder of the task of that name. Raises UsageError."""
    return cast(Decoder, siblings.load(FAMILY, task, "TASK"))


def settings(task: str, given: Mapping[str, Any]) -> Any:
    """A call's settings, checked. Raises UsageError, naming the first that is wrong."""
    kind = load(task).Call
    if not given:
        return kind()
    for name, value in given.items():
        if name not in kind.__struct_fields__:
            known = ", ".join(kind.__struct_fields__)
            besides = f" but {known}" if known else ""
            raise UsageError(name, f"{task} has no settings of a call{besides}")
        try:
            msgspec.convert({name: value}, kind)
        except msgspec.ValidationError as error:
            raise UsageError(name, str(error).partition(" - at ")[0]) from error
    return msgspec.convert(given, kind)
