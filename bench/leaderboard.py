"""Quality, speed and size of every variant and of PyTorch on every recipe: `python -m headway.bench.leaderboard --help`.

Checkpoints are those of `headway.bench.quality`, bundles those of `headway.bench.precisions`, texts the cases' test sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from headway.bench import measure
from headway.bench.inputs import read_inputs
from headway.bench.peers.base import Wanted
from headway.bench.precisions import labelled_file
from headway.bench.quality import CASES, Case
from headway.bench.record import Record, Row, read
from headway.bench.report.tables import agreement, shown
from headway.core.errors import GateError
from headway.core.manifest import Bundle

HEAD = "| data | subject | quality | same answer | one text, ms | texts/s | disk, MB | memory, MB |\n|---|---|--:|--:|--:|--:|--:|--:|"
ABOUT = (
    "Each data set's rows are of one run, in turns, in {rounds} fresh processes each, on {threads} threads of {processor}; "
    "quality on the texts that were measured, which are few. PyTorch runs in Transformers' pipelines; `evaluate`: in "
    "`headway evaluate`, where a pipeline answers otherwise or there is none.\n"
)


def main() -> None:
    """Measure the bundles that have no record in the folder yet, then write the table of all."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.leaderboard", description=main.__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="the folder of headway.bench.quality and .precisions"
    )
    parser.add_argument("--output", type=Path, required=True, help="file for the table, in Markdown")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", help="a case; may be given several times")
    given = parser.parse_args()
    plan = measure.Plan(one_by_one=100, rounds=given.rounds)
    for case in CASES:
        place = given.work / f"{case.name}-leaderboard.json"
        bundle = given.work / f"{case.name}-bundle"
        if place.exists() or not bundle.is_dir() or (given.only and case.name not in given.only):
            continue
        print(case.name, flush=True)
        found = measured(case, given.work, plan, given.texts, given.threads)
        place.write_bytes(msgspec.json.encode(found))
    given.output.write_text(page(given.work), encoding="utf-8")


def measured(case: Case, work: Path, plan: measure.Plan, texts: int, threads: int) -> Record:
    """Of one case: the bundle's variants, and PyTorch, through Transformers' pipeline where that answers alike."""
    bundle, checkpoint = (work / f"{case.name}-{kind}" for kind in ("bundle", "checkpoint"))
    declared = Bundle.read(bundle)
    collection = work / f"retrieval-test-{case.test}"
    file = str(collection if case.folder == "squad_retrieval" else labelled_file(case, "test", work))
    inputs, gold = read_inputs(declared, file, case.options.get("columns"), texts)
    subjects = [measure.SubjectName("headway", variant, bundle) for variant in declared.variants]
    peers = [measure.SubjectName("torch", "fp32", checkpoint)]
    wanted = Wanted(
        task=declared.task, threads=threads, max_length=declared.max_length, pad_id=declared.pad_id,
        pooling=str(declared.settings.get("pooling", "mean")), labels=declared.labels, settings=declared.settings,
    )  # fmt: skip

    def compared(among: list[measure.SubjectName]) -> Record:
        return measure.compare(
            declared.task, among, inputs, wanted, plan, examples=gold, bundle_seal=declared.seal
        )

    try:
        return compared([*subjects, *peers])
    except GateError as error:  # the pipeline groups tags otherwise, say
        print(f"{case.name}: PyTorch as `headway evaluate` runs it: {error}", flush=True)
        return compared([*subjects, measure.SubjectName("torch", "fp32-evaluate", checkpoint)])


def page(work: Path) -> str:
    """The table of all that was measured."""
    found = {c.name: read(p) for c in CASES if (p := work / f"{c.name}-leaderboard.json").is_file()}
    rows = [_row(name, row) for name, record in found.items() for row in record.rows]
    about = "\n".join(
        {
            ABOUT.format(rounds=len(r.rows[0].rounds), threads=r.threads, processor=r.machine["processor"])
            for r in found.values()
        }
    )
    absent = [case.name for case in CASES if case.name not in found]
    missing = [f"Not measured: {', '.join(absent)}.", ""] if absent else []
    return "\n".join(["# Leaderboard", "", about, *missing, HEAD, *rows, ""])


def _row(name: str, row: Row) -> str:
    quality = next((f"{figure} {value:.4f}" for figure, value in row.quality.items()), "")
    cells = [name, row.subject, quality, agreement(row), shown(row.latency(50)), shown(row.throughput, 0),
             f"{row.disk_mb:.1f}", shown(row.memory_mb, 0)]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
