"""A comparison as Markdown: every figure with its spread, and the ratios to the peers."""

from __future__ import annotations

from headway.bench.measure import Figure, Record, Row


def markdown(record: Record) -> str:
    """The table, the ratios, and what was measured on what."""
    head = (
        "| subject | one text, ms | p95, ms | p99, ms | texts/s | cold start, s | memory, MB "
        f"| {_agreement_name(record)} |"
    )
    rows = [
        f"| {r.subject} | {_with_spread(r.latency_ms)} | {_with_spread(r.latency_p95_ms)} "
        f"| {_with_spread(r.latency_p99_ms)} | {_with_spread(r.throughput, 0)} "
        f"| {_with_spread(r.cold_start_s)} | {_with_spread(r.memory_mb, 0)} | {_agreement(r)} |"
        for r in record.rows
    ]
    conditions = (
        f"{record.texts} texts ({record.one_by_one} of them one by one), cut at {record.max_length} tokens, "
        f"{record.threads} threads, "
        f"{record.rounds} rounds in turns, each in a fresh process; median (smallest–largest). "
        f"{record.machine['processor']}; {_versions(record.versions)}."
    )
    return "\n".join(
        [head, "|---|--:|--:|--:|--:|--:|--:|--:|", *rows, "", *_ratios(record), "", *_settings(record), "",
         conditions, ""]
    )  # fmt: skip


def _agreement_name(record: Record) -> str:
    vectors = record.rows[0].least_cosine is not None
    return "cosine, mean / least" if vectors else "same answer"


def _agreement(row: Row) -> str:
    if row.least_cosine is None:
        return f"{100 * row.agreement:.1f} %"
    return f"{row.agreement:.4f} / {row.least_cosine:.4f}"


def _settings(record: Record) -> list[str]:
    """How each subject was fastest, and the libraries that it has of its own."""
    lines = []
    for row in record.rows:
        said = [f"{k} {v}" for k, v in row.setting.items()] + (
            [_versions(row.versions)] if row.versions else []
        )
        if said:
            lines.append(f"{row.subject}: {', '.join(said)}.  ")
    return lines


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in versions.items())


def _ratios(record: Record) -> list[str]:
    """headway's fastest variant against the best of the peers, figure by figure, and against each."""
    own = [r for r in record.rows if r.subject.startswith("headway ")]
    peers = [r for r in record.rows if r not in own]
    if not own or not peers:
        return []
    best = max(own, key=lambda r: r.throughput.median)
    return [_against(best, peers, "the best peer"), *(_against(best, [p], p.subject) for p in peers)]


def _against(own: Row, peers: list[Row], name: str) -> str:
    """Ratios to the peers' best figures; a line of its own in Markdown."""
    throughput = own.throughput.median / max(p.throughput.median for p in peers)
    return (
        f"{own.subject} against {name}: throughput {throughput:.2f}×, one text {_ratio(own, peers, 'latency_ms'):.2f}×, "
        f"p99 {_ratio(own, peers, 'latency_p99_ms'):.2f}×, cold start {_ratio(own, peers, 'cold_start_s'):.2f}×, "
        f"memory {_ratio(own, peers, 'memory_mb'):.2f}×.  "
    )


def _ratio(own: Row, peers: list[Row], name: str) -> float:
    def median(row: Row) -> float:
        figure: Figure = getattr(row, name)
        return figure.median

    return median(own) / min(map(median, peers))


def _with_spread(figure: Figure, digits: int = 2) -> str:
    if figure.least == figure.most:
        return f"{figure.median:.{digits}f}"
    return f"{figure.median:.{digits}f} ({figure.least:.{digits}f}–{figure.most:.{digits}f})"
