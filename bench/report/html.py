"""A comparison as one HTML page that needs nothing else: plots, tables, conclusions."""

from __future__ import annotations

from html import escape

from headway.bench.record import Record
from headway.bench.report import tables
from headway.bench.report.conclusions import conclusions
from headway.bench.report.plots import Plot, plots
from headway.core.report import Table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 100rem; padding: 0 1rem 2rem; color: #1a1a1a;
       background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 1.5rem 0 .5rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-size: .9rem; color: #444; }
figure svg { width: 100%; height: auto; max-width: 38rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
"""


def page(record: Record) -> str:
    """The whole of it. Raises UnavailableError without matplotlib."""
    found = [tables.subjects(record), tables.loads(record), tables.stages(record), tables.speeds(record)]
    title = f"headway bench: {record.task}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _section("What it says", _list(conclusions(record))),
        f'<section class="plots">{"".join(map(_plot, plots(record)))}</section>',
        *(_section(t.title, _table(t)) for t in found if t is not None),
        _section("How each was fastest", _list(tables.settings(record))),
        _section("What was measured on what", _list(tables.conditions(record))),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{chr(10).join(p for p in parts if p)}\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _plot(plot: Plot) -> str:
    return f"<figure><h2>{escape(plot.title)}</h2>{plot.svg}<figcaption>{escape(plot.about)}</figcaption></figure>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in table.head)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
