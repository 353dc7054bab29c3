"""What an evaluation says beyond its figures: tables per class, confusions, worst errors; as JSON and as one page."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

WORST = 20
"""errors that a report shows"""


class Table(msgspec.Struct, frozen=True):
    """A titled table; every row has as many cells as the head."""

    title: str
    head: list[str]
    rows: list[list[Any]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation of one model on one file."""

    task: str
    n: int
    metrics: dict[str, float]
    calibration: dict[str, float] = {}
    """temperature, and the expected calibration error before and after it"""
    counts: dict[str, int] = {}
    """what was cut or left out by rule, by reason"""
    tables: list[Table] = []

    def write(self, folder: Path) -> None:
        """Write report.json and report.html."""
        (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        (folder / "report.html").write_text(_page(self), encoding="utf-8")


def confusion(gold: Sequence[str], said: Sequence[str]) -> Table:
    """Rows are gold labels, columns predicted ones; the 30 most frequent labels, the others together."""
    frequent = [label for label, _ in Counter([*gold, *said]).most_common(30)]
    names = sorted(frequent)
    if len(set(gold) | set(said)) > len(names):
        names.append("(others)")
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for g, s in zip(gold, said, strict=True):
        counts[place.get(g, len(names) - 1), place.get(s, len(names) - 1)] += 1
    rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    return Table("Confusion (rows: gold, columns: predicted)", ["", *names], rows)


def per_label(gold: Sequence[Iterable[Any]], said: Sequence[Iterable[Any]]) -> Table:
    """Precision, recall, F1 and count of each label; an example may have several."""
    true, found, both = Counter[str](), Counter[str](), Counter[str]()
    for g, s in zip(gold, said, strict=True):
        g, s = set(g), set(s)
        true.update(g)
        found.update(s)
        both.update(g & s)
    rows = []
    for label in sorted(true | found):
        precision = both[label] / found[label] if found[label] else 0.0
        recall = both[label] / true[label] if true[label] else 0.0
        f1 = 2 * both[label] / (true[label] + found[label])
        rows.append([label, precision, recall, f1, true[label], found[label]])
    return Table("Per label", ["label", "precision", "recall", "f1", "gold", "predicted"], rows)


def worst(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """The first errors of a list that begins with the worst."""
    shown = [list(row) for _, row in zip(range(WORST), rows, strict=False)]
    return Table("Worst errors", list(head), shown)


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 2rem;display:block;overflow-x:auto}
td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}"""


def _page(report: Report) -> str:
    parts = [
        _table(Table(title, ["", ""], [[k, v] for k, v in values.items()]))
        for title, values in (
            ("Figures", report.metrics),
            ("Calibration", report.calibration),
            ("Cut or left out by rule", report.counts),
        )
        if values
    ]
    parts += [_table(table) for table in report.tables if table.rows]
    title = f"{report.task}: {report.n} examples"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="n">{value:.4f}</td>'
    return f'<td class="n">{value}</td>' if isinstance(value, int) else f"<td>{html.escape(str(value))}</td>"
