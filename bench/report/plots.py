"""Plots of a comparison, as SVG that stands in a page: text stays text, nothing is loaded."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headway.bench.record import Record
from headway.bench.report import tables
from headway.core.errors import UnavailableError

SIZE = (4.6, 3.2)
"""inches; a page shows one beside the other where there is room, so that letters are as large on a phone"""
TOKENS_TOGETHER = 512
"""that are assumed to share one reading of the weights where all texts are given at once"""


class Plot:
    """A titled drawing with what must be known to read it."""

    def __init__(self, title: str, about: str, draw: Callable[[Any], object]) -> None:
        self.title, self.about = title, about
        with _figure() as (figure, axes):
            draw(axes)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
        text = stream.getvalue()
        self.svg = text[text.index("<svg") :]


def plots(record: Record) -> Iterator[Plot]:
    """Those that the record has something for."""
    yield Plot(
        "One text at a time",
        "Every latency that was measured, from the fastest to the slowest. Lower is better; a curve that stays flat "
        "to the right has no surprises.",
        lambda axes: _latencies(axes, record),
    )
    if record.rows[0].loads():
        yield Plot(
            "Under load",
            "Median (line) and 99th percentile (dashes) of the time from when a request should have been sent to its "
            "answer, while requests arrive at a rate. Lower and further to the right is better.",
            lambda axes: _loads(axes, record),
        )
    yield Plot(
        "Quality, speed, size",
        "Further up and to the right is better; the larger a disc, the more bytes are read from disk. "
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
    for row in record.rows:
        samples = np.sort(np.concatenate([r.latencies_ms for r in row.rounds]))
        axes.step(100 * (np.arange(len(samples)) + 1) / len(samples), samples, where="pre", label=row.subject)
    axes.set(xlabel="percent of the texts", ylabel="ms", yscale="log")
    axes.legend()


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
                [rate for rate, _ in points], values[:, 0], values[:, 1:].T, fmt=line, marker="o", markersize=3,
                capsize=2, color=f"C{number}", label=row.subject if wanted == 50 else None,
            )  # fmt: skip
    axes.set(xlabel="requests a second", ylabel="ms", yscale="log", xlim=(0, None))
    axes.legend()


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
        area = 30 + 400 * row.disk_mb / largest
        axes.scatter(speeds[number], values[number], s=area, color=f"C{number}", alpha=0.6)
        axes.scatter(
            [], [], s=30, color=f"C{number}", alpha=0.6, label=f"{row.subject}, {row.disk_mb:.0f} MB"
        )
    room = 0.3 * (max(values) - min(values)) or 0.01
    axes.set(xlabel="texts a second", ylabel=name, ylim=(min(values) - room, max(values) + room))
    axes.set_xlim(0, 1.2 * max(speeds))
    axes.legend()


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
            axes.plot(x, roof, line, color="black", linewidth=1, label=f"roof, {kind}")
    for number, row in enumerate(record.rows):
        alone = row.latency(50)
        if alone is not None:
            axes.plot(one, work.operations / alone.value / 1e6, "o", markersize=4, color=f"C{number}")
        speed = row.throughput.value * work.operations / 1e9
        axes.plot(many, speed, "o", markersize=8, color=f"C{number}", label=row.subject)
    axes.set(
        xlabel="operations a byte of weights", ylabel="G operations a second", xscale="log", yscale="log"
    )
    axes.legend()


def _stages(axes: Any, record: Record) -> None:
    told = [row for row in record.rows if row.fastest.stages_ms]
    lefts = np.zeros(len(told))
    for number, stage in enumerate(told[0].fastest.stages_ms):
        widths = np.array([tables.mean_stages(row)[stage] for row in told])
        axes.barh([row.subject for row in told], widths, left=lefts, label=stage, color=f"C{number}")
        lefts += widths
    axes.set(xlabel="ms")
    axes.invert_yaxis()
    axes.legend()


@contextmanager
def _figure() -> Iterator[tuple[Any, Any]]:
    """A figure that belongs to nobody's screen."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnavailableError(
            "matplotlib, which draws the report,", "pip install 'headway[bench]'"
        ) from error
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "headway", "font.size": 10, "font.family": "sans-serif",
             "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False,
             "legend.fontsize": 8, "legend.framealpha": 0.8}  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=SIZE, layout="tight")
        yield figure, figure.subplots()
