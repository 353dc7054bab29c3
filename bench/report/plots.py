"""Plots of a comparison, as SVG that stands in a page: text stays text, nothing is loaded."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np

from headway.bench.record import Record
from headway.bench.report import tables
from headway.core.errors import UnavailableError

WIDTH, HEIGHT = 4.6, 2.7
"""inches, without the legend below: no wider than a phone shows, so that letters are not made smaller there"""
LETTERS = 46
"""in a line of a plot"""
TICKS = 6
"""on a logarithmic axis, at most"""
TOKENS_TOGETHER = 512
"""that are assumed to share one reading of the weights where all texts are given at once"""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""of Okabe and Ito, which most people who confuse colours can tell apart"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Plot:
    """A titled drawing with what must be known to read it."""

    def __init__(self, title: str, about: str, draw: Callable[[Any], object]) -> None:
        self.title, self.about = title, about
        with _figure(title) as (figure, axes):
            draw(axes)
            stream = io.StringIO()
            figure.savefig(
                stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
            )
        drawn = re.sub(r'<g id="[^"]*"', "<g", stream.getvalue())  # the same names in each plot, and unused
        self.svg = f'<svg role="img" aria-label="{escape(title)}"{drawn[drawn.index("<svg") + 4 :]}'


def plots(record: Record) -> Iterator[Plot]:
    """Those that the record has something for."""
    yield Plot(
        "One text at a time",
        "Every latency that was measured, from the fastest to the slowest. Lower is better; a curve that stays flat "
        "to the right has no surprises.",
        lambda axes: _latencies(axes, record),
    )
    if any(tables.latency(rounds, 50) for row in record.rows for rounds in row.loads()):
        yield Plot(
            "Under load",
            "Median (line) and 99th percentile (dashes) of the time from when a request should have been sent to its "
            "answer, while requests arrive at a rate. Lower and further to the right is better.",
            lambda axes: _loads(axes, record),
        )
    yield Plot(
        "Quality, speed, size",
        "Further up and to the right is better; the larger a mark, the more bytes are read from disk. "
        f"Up: {_goodness(record)[0]}.",
        lambda axes: _frontier(axes, record),
    )
    if record.work is not None and record.peaks is not None and "fp32" in record.peaks.operations:
        yield Plot(
            "Roofline",
            "The roof is what this machine reached: its memory on the left, its products on the right. Small marks: one "
            f"text. Large marks: all texts at once, as if {TOKENS_TOGETHER} tokens shared each reading of the weights "
            "(fp32 bytes for everyone). The distance to the roof is what is left to gain.",
            lambda axes: _roofline(axes, record),
        )
    if any(row.fastest.stages_ms for row in record.rows):
        yield Plot(
            "Where one text's time goes",
            "Mean of each stage.",
            lambda axes: _stages(axes, record),
        )


def _latencies(axes: Any, record: Record) -> None:
    for number, row in enumerate(record.rows):
        samples = np.sort(np.concatenate([r.latencies_ms for r in row.rounds]))
        shares = 100 * (np.arange(len(samples)) + 1) / len(samples)
        every = max(1, len(samples) // 6)
        axes.step(
            shares, samples, where="pre", markersize=5, markevery=(every - 1, every), label=row.subject, **_look(number)
        )  # fmt: skip
    axes.set(xlabel="percent of the texts", ylabel="ms", yscale="log", xlim=(0, 102))
    _few_ticks(axes.yaxis)
    _legend(axes)


def _loads(axes: Any, record: Record) -> None:
    for number, row in enumerate(record.rows):
        rates = [rounds[0].rate for rounds in row.loads()]
        for wanted, line in ((50, "-"), (99, "--")):
            found = [tables.latency(rounds, wanted) for rounds in row.loads()]
            points = [(rate, e) for rate, e in zip(rates, found, strict=True) if e is not None]
            if not points:
                continue
            values = np.array([[e.value, e.value - e.low, e.high - e.value] for _, e in points])
            axes.errorbar(
                [rate for rate, _ in points], values[:, 0], values[:, 1:].T, linestyle=line, markersize=5,
                elinewidth=1, capsize=2, label=row.subject if wanted == 50 else None, **_look(number),
            )  # fmt: skip
    axes.set(xlabel="requests a second", ylabel="ms", yscale="log")
    axes.set_xlim(left=0)
    _few_ticks(axes.yaxis)
    _legend(axes)


def _goodness(record: Record) -> tuple[str, list[float]]:
    """The figure by which answers are good, and that of each subject."""
    first = record.rows[0]
    for name in first.quality:
        if all(name in row.quality for row in record.rows):
            return name, [row.quality[name] for row in record.rows]
    name = (
        "share of the first subject's answers"
        if first.least_cosine is None
        else "cosine with the first subject"
    )
    return name, [row.agreement for row in record.rows]


def _frontier(axes: Any, record: Record) -> None:
    name, values = _goodness(record)
    speeds = [row.throughput.value for row in record.rows]
    largest = max(row.disk_mb for row in record.rows)
    for number, row in enumerate(record.rows):
        area = 30 + 300 * row.disk_mb / largest
        axes.scatter(speeds[number], values[number], s=area, alpha=0.7, edgecolors="white", **_look(number))
        axes.scatter([], [], s=30, label=f"{row.subject}, {row.disk_mb:.0f} MB", **_look(number))
    room = 0.3 * (max(values) - min(values)) or 0.01
    axes.set(xlabel="texts a second", ylabel=textwrap.fill(name, 24), xlim=(0, 1.2 * max(speeds)))
    axes.set_ylim(min(values) - room, max(values) + room)
    _legend(axes)


def _roofline(axes: Any, record: Record) -> None:
    work, peaks = record.work, record.peaks
    assert work is not None
    assert peaks is not None
    one = work.operations / work.weights
    many = max(one, work.operations / work.tokens * TOKENS_TOGETHER / work.weights)
    x = np.logspace(np.log10(one / 4), np.log10(many * 4), 100)
    for kind, line in (("fp32", "-"), ("int8", ":")):
        if kind in peaks.operations:
            roof = np.minimum(peaks.operations[kind], x * peaks.memory) / 1e9
            axes.plot(x, roof, line, color="black", linewidth=1.5, label=f"roof, {kind}")
    for number, row in enumerate(record.rows):
        look = {"linestyle": "none", **_look(number)}
        alone = row.latency(50)
        if alone is not None:
            axes.plot(one, work.operations / alone.value / 1e6, markersize=4, **look)
        axes.plot(many, row.throughput.value * work.operations / 1e9, markersize=7, label=row.subject, **look)
    axes.set(
        xlabel="operations a byte of weights", ylabel="G operations a second", xscale="log", yscale="log"
    )
    _few_ticks(axes.xaxis)
    _few_ticks(axes.yaxis)
    _legend(axes)


def _stages(axes: Any, record: Record) -> None:
    """One bar a subject, its name above it: beside it, a long one would leave no room for the bar."""
    told = [row for row in record.rows if row.fastest.stages_ms]
    names = [textwrap.fill(row.subject, LETTERS) for row in told]
    pitch = 0.35 + 0.17 * (1 + max(name.count("\n") for name in names))  # inches
    thick, places, lefts = 0.2 / pitch, np.arange(len(told)), np.zeros(len(told))
    for number, stage in enumerate(told[0].fastest.stages_ms):
        widths = np.array([tables.mean_stages(row).get(stage, 0.0) for row in told])
        axes.barh(
            places, widths, thick, lefts, label=stage, color=COLOURS[number % len(COLOURS)], edgecolor="white"
        )
        lefts += widths
    for place, name in enumerate(names):
        axes.text(0, place - 0.6 * thick, name, verticalalignment="bottom")
    axes.set(xlabel="ms", yticks=[], ylim=(len(told) - 1 + thick, thick - 1))
    axes.spines.left.set_visible(False)
    axes.figure.set_figheight(0.7 + pitch * len(told))
    _legend(axes)


def _look(number: int) -> dict[str, Any]:
    """A subject's, in all plots; the shape tells those apart who look alike to somebody."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _few_ticks(axis: Any) -> None:
    """Of a logarithmic axis: round figures in plain digits, as many as there is room for."""
    from matplotlib.ticker import MaxNLocator

    low, high = axis.get_view_interval()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
        found = [value for power in powers for step in steps if low <= (value := step * power) <= high]
        if len(found) <= TICKS:
            break
    if len(found) < 3:  # not even an octave
        found = [value for value in MaxNLocator(TICKS).tick_values(low, high) if low <= value <= high]
    axis.set_ticks(found)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter("{x:g}")


def _legend(axes: Any) -> None:
    """Below the plot, where it hides nothing; the figure grows by it."""
    handles, labels = axes.get_legend_handles_labels()
    handles = [handle.lines[0] if hasattr(handle, "lines") else handle for handle in handles]  # no error bars
    names = [textwrap.fill(label, LETTERS) for label in labels]
    columns = max(1, int(LETTERS // (max(map(len, labels)) + 6)))
    lines = sum(1 + name.count("\n") for name in names) if columns == 1 else -(-len(names) // columns)
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.2 * lines)
    axes.figure.legend(
        handles,
        names,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        borderpad=0.2,
        labelspacing=0.2,
    )


def drawing() -> Any:
    """matplotlib. Raises UnavailableError without it."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise UnavailableError(
            "matplotlib, which draws the report,", "pip install 'headway[bench]'"
        ) from error
    return matplotlib


@contextmanager
def _figure(title: str) -> Iterator[tuple[Any, Any]]:
    """A figure that belongs to nobody's screen; names within it are made from the title, so that no two plots share one."""
    matplotlib = drawing()
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "font.family": "sans-serif",
                  "text.parse_math": False, "axes.formatter.useoffset": False, "axes.grid": True,
                  "grid.alpha": 0.3, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False}  # fmt: skip
    with matplotlib.rc_context(style):
        figure = matplotlib.figure.Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        yield figure, figure.subplots()
