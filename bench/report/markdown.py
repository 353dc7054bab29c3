"""A comparison as Markdown, for a pull request."""

from __future__ import annotations

from headway.bench.record import Record
from headway.bench.report import tables
from headway.bench.report.conclusions import conclusions
from headway.core.report import Table


def markdown(record: Record) -> str:
    """Tables, conclusions, and what was measured on what."""
    found = [table(t) for t in tables.every(record)]
    words = (conclusions(record), tables.settings(record), tables.conditions(record))
    return (
        "\n\n".join([*found, *("\n".join(f"{line}  " for line in lines) for lines in words if lines)]) + "\n"
    )


def table(given: Table) -> str:
    """The first column to the left, the others to the right."""
    rule = "|---|" + "--:|" * (len(given.head) - 1)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (given.head, *given.rows)]
    return "\n".join([lines[0], rule, *lines[1:]])
