"""The tables of a report, and what was measured on what; in Markdown and in HTML the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headway.bench.estimates import ENOUGH, Estimate, percentile
from headway.bench.record import Load, Record, Row
from headway.core.report import Table

WIDTHS = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0, "int4": 0.5}
"""bytes of a weight, by how a precision's name begins"""


def every(record: Record) -> list[Table]:
    """Those that the record has something for."""
    found = (subjects(record), loads(record), stages(record), speeds(record))
    return [table for table in found if table is not None]


def subjects(record: Record) -> Table:
    """One row for each subject."""
    first = record.rows[0]
    quality = next(iter(first.quality), None)
    columns: dict[str, Callable[[Row], str]] = {
        "subject": lambda r: r.subject,
        "one text, ms": lambda r: shown(r.latency(50)),
        "p90": lambda r: shown(r.latency(90)),
        "p99": lambda r: shown(r.latency(99)),
        "texts/s": lambda r: shown(r.throughput, 0),
        "cold start, s": lambda r: shown(r.cold_start_s),
        "memory, MB": lambda r: shown(r.memory_mb, 0),
        "disk, MB": lambda r: f"{r.disk_mb:.1f}",
        "same answer" if first.least_cosine is None else "cosine, mean / least": agreement,
    }
    if quality is not None:
        columns[quality] = lambda r: f"{r.quality[quality]:.4f}" if quality in r.quality else ""
    if first.fastest.waste is not None:
        columns["padding"] = lambda r: "" if r.fastest.waste is None else f"{100 * r.fastest.waste:.0f} %"
    if first.fastest.joules is not None:
        columns["J/text"] = lambda r: "" if r.fastest.joules is None else f"{r.fastest.joules:.4f}"
    rows = [[cell(row) for cell in columns.values()] for row in record.rows]
    return Table("Side by side", list(columns), rows)


def loads(record: Record) -> Table | None:
    """Latency under each rate of arrivals."""
    rows = []
    for row in record.rows:
        for rounds in row.loads():
            cells = [shown(latency(rounds, p)) for p in (50, 90, 99, 99.9)]
            together = sum(r.batch or 1 for r in rounds) / len(rounds)
            late = sum(r.unanswered for r in rounds)
            rows.append(
                [row.subject, f"{rounds[0].rate:g}", *cells, f"{together:.1f}", str(late) if late else ""]
            )
    head = ["subject", "requests/s", "p50, ms", "p90", "p99", "p99.9", "together", "unanswered"]
    return Table("Under load", head, rows) if rows else None


def latency(rounds: Sequence[Load], wanted: float) -> Estimate | None:
    """A percentile of latencies under load, in milliseconds."""
    return percentile([r.latencies_ms for r in rounds], wanted)


def stages(record: Record) -> Table | None:
    """Where one text's time goes, of subjects that can tell."""
    told = [row for row in record.rows if row.fastest.stages_ms]
    if not told:
        return None
    names = list(told[0].fastest.stages_ms)
    rows = [[row.subject, *(f"{ms:.3f}" for ms in mean_stages(row).values())] for row in told]
    return Table("Stages of one text, ms", ["subject", *names], rows)


def mean_stages(row: Row) -> dict[str, float]:
    """Milliseconds of each, over the rounds."""
    names = row.fastest.stages_ms
    return {name: sum(r.stages_ms[name] for r in row.rounds) / len(row.rounds) for name in names}


def speeds(record: Record) -> Table | None:
    """Tokens, useful operations and bytes of weights a second, beside what the machine reached."""
    work, peaks = record.work, record.peaks
    if work is None or peaks is None or "fp32" not in peaks.operations:
        return None
    best, rows = peaks.operations["fp32"], []
    for row in record.rows:
        alone = row.latency(50)
        many = row.throughput.value * work.operations
        one = ["", "", ""]
        if alone is not None:
            read = work.weights * width(row) / 4 / alone.value * 1e3
            one = [
                f"{work.operations / alone.value / 1e6:.1f}",
                f"{read / 1e9:.2f}",
                f"{100 * read / peaks.memory:.0f} %",
            ]
        tokens = f"{row.throughput.value * (work.written or work.tokens):,.0f}"
        rows.append([row.subject, *one, tokens, f"{many / 1e9:.1f}", f"{100 * many / best:.0f} %"])
    head = ["subject", "one text, G operations/s", "GB of weights/s", "of the memory's peak"]
    head += [
        f"all at once, {'written ' if work.written else ''}tokens/s",
        "G operations/s",
        "of the fp32 peak",
    ]
    return Table("Useful operations and bytes", head, rows)


def width(row: Row) -> float:
    """Bytes of a weight, by the precision that a subject is named after."""
    precision = row.subject.rpartition(" ")[2]
    return next((size for name, size in WIDTHS.items() if precision.startswith(name)), 4.0)


def settings(record: Record) -> list[str]:
    """How each subject was fastest, and the libraries that it has of its own."""
    lines = []
    for row in record.rows:
        said = [f"{k} {v}" for k, v in row.fastest.setting.items()]
        said += [_versions(row.versions)] if row.versions else []
        unsteady = sum(not r.steady for r in row.rounds)
        said += [f"{unsteady} of {len(row.rounds)} warm-ups were not steady at their end"] if unsteady else []
        if said:
            lines.append(f"{row.subject}: {', '.join(said)}.")
    return lines


def conditions(record: Record) -> list[str]:
    """What was measured on what."""
    rounds = len(record.rows[0].rounds)
    lines = [
        f"{record.texts} texts ({record.one_by_one} of them one by one), cut at {record.max_length} tokens.",
        f"{record.threads} threads, {rounds} rounds in turns, each in a fresh process.",
        "In brackets: the interval that holds the figure with 95 % confidence."
        if rounds >= ENOUGH
        else "In brackets: the least and the most, as so few rounds tell no confidence between them.",
        "No percentile is told that the samples cannot support.",
    ]
    if record.peaks is not None:
        kinds = [
            f"{kind} {speed / 1e9:,.0f} G operations/s" for kind, speed in record.peaks.operations.items()
        ]
        lines.append(
            f"Measured peaks: {', '.join([*kinds, f'memory {record.peaks.memory / 1e9:.1f} GB/s'])}."
        )
    told = {k: v for k, v in record.machine.items() if v is not None}
    lines.append(f"{', '.join(f'{k} {v}' for k, v in told.items())}.")
    lines.append(f"{_versions(record.versions)}; bundle {record.bundle_seal[:12]}.")
    return lines


def shown(estimate: Estimate | None, digits: int = 2) -> str:
    """A figure with its interval; nothing where there is none."""
    if estimate is None:
        return ""
    if estimate.low == estimate.high:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"


def agreement(row: Row) -> str:
    if row.least_cosine is None:
        return f"{100 * row.agreement:.1f} %"
    return f"{row.agreement:.4f} / {row.least_cosine:.4f}"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in versions.items())
