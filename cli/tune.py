"""headway tune: find how to run a bundle on this machine for a latency and a rate, and leave the plan beside it."""

from __future__ import annotations

from pathlib import Path

from headway.bench import tune as tuning
from headway.bench.inputs import read_inputs
from headway.bench.report.tables import shown
from headway.cli.screen import bar, say
from headway.core import files, hub
from headway.core.errors import GateError, UsageError
from headway.core.manifest import Bundle
from headway.core.threads import budget
from headway.runtime import tuned

MACHINE_HOURS = 1e6 / 3600
"""hours in which a machine answers a million requests at one a second"""


def tune(
    bundle: Path,
    /,
    *,
    p95_ms: float,
    rate: float,
    max_drop: float = 0.01,
    input: str | None = None,
    columns: str | None = None,
    threads: int | None = None,
    texts: int = 500,
    price: float | None = None,
) -> None:
    """Search precision, engine, threads, workers and batches for a target; exit code 4 if it cannot be met here.

    What was measured is remembered in the user's cache folder, so that the same command goes on after an interruption.
    `load` follows the plan where neither precision nor backend is given, and so does a `Front`.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote
    p95_ms
        milliseconds in which 95 of 100 requests are to be answered, from when they were sent
    rate
        requests a second that arrive, whether the ones before were answered or not
    max_drop
        how much a variant may lose against fp32: of the task's metric where the bundle says it, else in equal answers
    input
        texts to measure on, as `headway bench` takes them; none: headway's own support messages
    columns
        names of fields in the file, as text=body
    threads
        processor threads for all workers together; none: all that affinity and cgroup leave
    texts
        how many of the texts, at most
    price
        of this machine for an hour, in any currency: shows what a million requests cost
    """
    for option, value in (
        ("--p95-ms", p95_ms),
        ("--rate", rate),
        ("--price", 1.0 if price is None else price),
    ):
        if not 0 < value < float("inf"):
            raise UsageError(option, f"must be above 0, not {value:g}")
    if not 0 <= max_drop < float("inf"):
        raise UsageError("--max-drop", f"must be at least 0, not {max_drop:g}")
    if texts < 1:
        raise UsageError("--texts", f"must be at least 1, not {texts}")
    bundle = hub.located(bundle)
    files.refuse_unwritable(bundle / tuned.NAME)
    declared, count = Bundle.read(bundle), budget(threads)
    inputs, _ = read_inputs(declared, input, columns, texts)
    target = tuning.Target(p95_ms, rate, max_drop)
    found = tuning.tune(declared, target, count, tuning.journal(bundle, inputs), progress=bar)
    way = found.way
    padded = f", lengths padded to {way.buckets} buckets an octave" if way.buckets else ""
    print(
        f"{way.precision} on {way.backend}, {way.workers} × {way.threads} threads, batches of {way.batch_tokens} tokens, "
        f"{way.front_tokens} taken together{padded}: p95 {shown(found.p95)} ms at {rate:g} requests a second, "
        f"the best of {found.tried} ways"
    )
    if found.highest_rate:
        print(f"highest rate with p95 ≤ {p95_ms:g} ms: {found.highest_rate:.3g} requests a second")
    if price is not None and found.highest_rate:
        print(f"a million requests at that rate: {price * MACHINE_HOURS / found.highest_rate:.4g}")
    if not found.met:
        say(_needed(found, target))
        raise GateError(
            "tuning", way.precision, f"p95 in ms at {rate:g} requests a second", found.p95.value, p95_ms
        )
    plan = tuned.Plan(
        precision=way.precision,
        backend=way.backend,
        threads=way.threads,
        workers=way.workers,
        batch_tokens=way.batch_tokens,
        buckets=way.buckets,
        front_tokens=way.front_tokens,
        p95_ms=p95_ms,
        rate=rate,
        measured_p95_ms=found.p95.value,
        highest_rate=found.highest_rate,
    )
    tuned.write(bundle, declared.seal, count, plan)
    say(f"plan: {bundle / tuned.NAME}; load and Front follow it on this machine")


def _needed(found: tuning.Outcome, target: tuning.Target) -> str:
    """What would be needed to meet the target."""
    if not found.highest_rate:
        return (
            f"at no rate are 95 of 100 requests answered in {target.p95_ms:g} ms here: shorter texts, a smaller model, a "
            "larger --max-drop or a processor with faster 8-bit products are needed, more machines do not help"
        )
    machines = -(-target.rate // found.highest_rate)
    return f"{machines:.0f} such machines, or one with as many times the processors, would hold {target.rate:g} requests a second"
