"""A comparison of writers as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headway.bench.estimates import Figure
from headway.bench.writing import OWN, Record, Row


def table(record: Record, columns: Mapping[str, Callable[[Row], str]]) -> str:
    """In Markdown: a row for every question and subject; `columns`: by their heads, what to say of a row."""
    heads = ["subject", "question", *columns, "between runs", "best peer ÷ it", "same", "way"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(columns) + 3) + "---|"]
    for row in record.rows:
        cells = [row.subject, row.question, *(say(row) for say in columns.values())]
        cells += [
            "" if row.between is None else f"{row.between:.1%}",
            _ratio(row, record),
            f"{row.same:.1%}",
            row.way,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for subject, problem in record.problems.items():
        lines.append(f"| {subject} | {problem.replace('|', '/')} |" + " |" * (len(heads) - 2))
    return "\n".join([*lines, "", conditions(record)])


def _ratio(row: Row, record: Record) -> str:
    """Of the best peer's median to this one's."""
    peers = [
        r.ms.median for r in record.rows if r.question == row.question and not r.subject.startswith(f"{OWN} ")
    ]
    return f"{min(peers) / row.ms.median:.2f}×" if peers else ""


def spread(figure: Figure) -> str:
    return f"{figure.median:.1f} ({figure.least:.1f}–{figure.most:.1f})"


def conditions(record: Record) -> str:
    speed = record.bytes_per_second
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return (
        f"Shape of {record.shape}, random weights, {record.threads} threads, {record.rounds} rounds in turns, each in a "
        f"fresh process; median (smallest–largest round). Memory is read at {speed.median / 1e9:.1f} GB/s "
        f"({speed.least / 1e9:.1f}–{speed.most / 1e9:.1f}); a step reads {record.step_weights / 1e6:.1f} million weights. "
        f"{record.machine['processor']}; {versions}."
    )
