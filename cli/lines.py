"""Prediction lines: one JSON object per input, in input order, with the input's id when it has one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TextIO

import msgspec
from cyclopts import Parameter

from headway.core.tasks import Example, Result

Place = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""a file, or - for standard input or output"""


def write_lines(stream: TextIO, examples: Iterable[Example], results: Iterable[Result]) -> int:
    """Write a line a result; returns how many texts had been cut."""
    cut = 0
    for example, result in zip(examples, results, strict=True):
        line = {"id": example.id} | msgspec.to_builtins(result)
        known = {name: value for name, value in line.items() if value is not None}
        stream.write(msgspec.json.encode(known).decode() + "\n")
        cut += result.truncated
    return cut
