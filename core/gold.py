"""Which gold answer is read of records that may carry several kinds of it, as a label and a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from headway.core.data import Record


def choose(task: Any, records: Sequence[Record], wanted: Sequence[str] = ()) -> str | None:
    """The kind of gold answer that is read of all records, or None where they carry none.

    It is the first of `wanted` that the first record carries. Where it carries none of them: the task's first kind
    that can be read in every record, so that a field that is not read is never the reason for an error.
    """
    carried = task.gold_kinds(records[0])
    for kind in wanted:
        if kind in carried:
            return kind
    if len(carried) > 1:
        for kind in carried:
            if all(task.is_readable(record, kind) for record in records):
                return str(kind)
    return carried[0] if carried else None


def unread(task: Any, examples: Sequence[Any], kind: str, remedy: str) -> dict[str, int]:
    """How many training examples carry another kind of gold answer that was not read, by reason.

    `remedy`: how the user chooses between them.
    """
    others = Counter(
        other for e in examples for other in task.gold_kinds(e.record) if other != kind and kind in task.GOLD
    )
    return {
        f"their '{task.GOLD[kind]}' was read, not their '{task.GOLD[other]}' ({remedy})": count
        for other, count in others.items()
    }
