"""Prediction lines: one JSON object per input, in input order, with the input's id when it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, TextIO, TypeVar

import msgspec
from cyclopts import Parameter

from headway.core.tasks import Example, Result

T = TypeVar("T")

Place = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""a file, or - for standard input or output"""


def ready_lines(items: Iterator[T], most: int, ready: Callable[[], bool]) -> list[T]:
    """The next items, at most so many: the first, however long it takes to come, and those that are there by then."""
    found: list[T] = []
    while len(found) < most and (not found or ready()):
        if (item := next(items, None)) is None:
            break
        found.append(item)
    return found


def write_lines(stream: TextIO, examples: Iterable[Example], results: Iterable[Result]) -> int:
    """Write a line a result; returns how many texts had been cut."""
    cut = 0
    for example, result in zip(examples, results, strict=True):
        line = {"id": example.id} | msgspec.to_builtins(result)
        known = {name: value for name, value in line.items() if value is not None}
        stream.write(msgspec.json.encode(known).decode() + "\n")
        cut += result.truncated
    return cut
