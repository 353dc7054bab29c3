"""What a comparison says, in plain sentences, and no more than its intervals allow."""

from __future__ import annotations

from collections.abc import Callable

from headway.bench.estimates import Estimate
from headway.bench.record import Record, Row
from headway.bench.report.tables import latency


def conclusions(record: Record) -> list[str]:
    """Of headway's fastest variant and the best of the peers; of the variants among themselves; of load."""
    own = [r for r in record.rows if r.subject.startswith("headway ")]
    peers = [r for r in record.rows if r not in own]
    found = []
    if own and peers:
        best = max(own, key=lambda r: r.throughput.value)
        found.append(against(best, peers, "the best peer"))
        found += [against(best, [p], p.subject) for p in peers] if len(peers) > 1 else []
    return [*found, *_variants(own), *_waits(record)]


def against(own: Row, peers: list[Row], name: str) -> str:
    """Ratios to the peers' best figures; those that chance may explain are said to be so."""
    said = []
    for what, read in (
        ("throughput", lambda r: r.throughput),
        ("one text", lambda r: r.latency(50)),
        ("p99", lambda r: r.latency(99)),
        ("cold start", lambda r: r.cold_start_s),
        ("memory", lambda r: r.memory_mb),
    ):
        ratio = _ratio(own, peers, read, rising=what == "throughput")
        if ratio is not None:
            doubt = " (perhaps the same)" if ratio.low <= 1 <= ratio.high else ""
            said.append(f"{what} {ratio.value:.2f}×{doubt}")
    return f"{own.subject} against {name}: {', '.join(said)}."


def _ratio(
    own: Row, peers: list[Row], read: Callable[[Row], Estimate | None], rising: bool
) -> Estimate | None:
    """With bounds from both intervals, wider than they need be."""
    ours, theirs = read(own), [found for p in peers if (found := read(p)) is not None]
    if ours is None or not theirs:
        return None
    best = (max if rising else min)(theirs, key=lambda e: e.value)
    return Estimate(ours.value / best.value, ours.low / best.high, ours.high / best.low)


def _variants(own: list[Row]) -> list[str]:
    """What each of the bundle's other variants costs and brings."""
    found = []
    for row in own[1:]:
        first = own[0]
        quality = next((n for n in first.quality if n in row.quality), None)
        lost = (
            ""
            if quality is None
            else f", {quality} {100 * (row.quality[quality] - first.quality[quality]):+.2f} points"
        )
        found.append(
            f"{row.subject} answers {row.throughput.value / first.throughput.value:.2f}× as many texts as {first.subject} "
            f"from {row.disk_mb / first.disk_mb:.2f}× the bytes{lost}."
        )
    return found


def _waits(record: Record) -> list[str]:
    """At which rate requests waited in vain."""
    found = []
    for row in record.rows:
        over = [rounds[0].rate for rounds in row.loads() if any(r.unanswered for r in rounds)]
        if over:
            found.append(f"{row.subject} did not keep up with {min(over):g} requests a second.")
        elif row.loads() and (worst := latency(row.loads()[-1], 99)) is not None:
            rate = row.loads()[-1][0].rate
            found.append(
                f"{row.subject} answers {rate:g} requests a second with a p99 of {worst.value:.1f} ms."
            )
    return found
