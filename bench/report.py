"""A comparison as Markdown: every figure with its spread, and the ratios to the peers."""

from __future__ import annotations

from headway.bench.measure import Figure, Record, Row


def markdown(record: Record) -> str:
    """The table, the ratios, and what was measured on what."""
    head = "| subject | one text, ms | p95, ms | texts/s | cold start, s | memory, MB | same answer |"
    rows = [
        f"| {r.subject} | {_with_spread(r.latency_ms)} | {_with_spread(r.latency_p95_ms)} "
        f"| {_with_spread(r.throughput, 0)} | {_with_spread(r.cold_start_s)} | {_with_spread(r.memory_mb, 0)} "
        f"| {100 * r.agreement:.1f} % |"
        for r in record.rows
    ]
    conditions = (
        f"{record.texts} texts ({record.one_by_one} of them one by one), {record.threads} threads, "
        f"{record.rounds} rounds in turns, each in a fresh process; median (smallest–largest). "
        f"{record.machine['processor']}; " + ", ".join(f"{k} {v}" for k, v in record.versions.items()) + "."
    )
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|--:|", *rows, "", *_ratios(record), "", conditions, ""])


def _ratios(record: Record) -> list[str]:
    """headway's fastest variant against the best of the peers, figure by figure."""
    own = [r for r in record.rows if r.subject.startswith("headway ")]
    peers = [r for r in record.rows if r not in own]
    if not own or not peers:
        return []
    best = max(own, key=lambda r: r.throughput.median)
    throughput = best.throughput.median / max(p.throughput.median for p in peers)
    summary = (
        f"{best.subject} against the best peer: one text {_ratio(best, peers, 'latency_ms'):.2f}×, "
        f"throughput {throughput:.2f}×, cold start {_ratio(best, peers, 'cold_start_s'):.2f}×, "
        f"memory {_ratio(best, peers, 'memory_mb'):.2f}×."
    )
    each = (
        f"Throughput against {p.subject}: {best.throughput.median / p.throughput.median:.2f}×." for p in peers
    )
    return [summary, *each]


def _ratio(own: Row, peers: list[Row], name: str) -> float:
    def median(row: Row) -> float:
        figure: Figure = getattr(row, name)
        return figure.median

    return median(own) / min(map(median, peers))


def _with_spread(figure: Figure, digits: int = 2) -> str:
    if figure.least == figure.most:
        return f"{figure.median:.{digits}f}"
    return f"{figure.median:.{digits}f} ({figure.least:.{digits}f}–{figure.most:.{digits}f})"
