"""What the user sees: progress bars and messages on standard error, tables as text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from tqdm import tqdm

from headway.cli import streams
from headway.core.tasks import FIGURES_FALLING

T = TypeVar("T")


def bar(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """A progress bar on standard error, from the second second on, if that is a terminal."""
    yield from tqdm(items, desc=label, total=total, file=sys.stderr, disable=None, delay=1, leave=False)


say = streams.say


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def figures(metrics: Mapping[str, float]) -> str:
    """Metrics in words: shares in percent, others as they are."""
    return ", ".join(
        f"{name} {value:.2f}" if name in FIGURES_FALLING else f"{name} {percent(value)}"
        for name, value in metrics.items()
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with its columns aligned: the first to the left, the others to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        + " |"
        for r in cells
    ]
    rule = (
        "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])
