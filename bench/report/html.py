"""A comparison as one HTML page that needs nothing else: plots, tables, conclusions."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from headway.bench.estimates import distributions
from headway.bench.record import Record
from headway.bench.report import tables
from headway.bench.report.conclusions import conclusions
from headway.bench.report.plots import Plot, drawing, plots
from headway.core.report import Table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 100rem; padding: 0 1rem 2rem; color: #1a1a1a;
       background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 1.5rem 0 .5rem; }
ul { max-width: 50rem; padding-left: 1.2rem; overflow-wrap: anywhere; } li { margin: .25rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(max(min(22rem, 100%), 30%), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-size: .9rem; color: #444; max-width: 38rem; }
figure svg { width: 100%; height: auto; max-width: 38rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap;
         vertical-align: top; font-variant-numeric: tabular-nums; }
th { vertical-align: bottom; } small { display: block; font-size: .8rem; color: #555; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; white-space: normal;
                                 min-width: clamp(7rem, 20vw, 12rem); max-width: 20rem; overflow-wrap: anywhere; }
"""
INTERVAL = re.compile(r" (\(.+–.+\))$")
"""at the end of a figure, and shown below it: a phone is narrow"""


def require() -> None:
    """Raises UnavailableError where no page could be made: to be asked before hours of measuring."""
    drawing()
    distributions()


def page(record: Record) -> str:
    """The whole of it. Raises UnavailableError without matplotlib."""
    title = f"headway bench: {record.task}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _section("What it says", _list(conclusions(record))),
        f'<section class="plots">{"".join(map(_plot, plots(record)))}</section>',
        *(_section(t.title, _table(t)) for t in tables.every(record)),
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
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in table.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return (
        f'<div class="wide" role="region" aria-label="{escape(table.title)}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    shown = INTERVAL.sub(r" <small>\1</small>", escape(str(value)))
    return f"<td>{shown}</td>"
