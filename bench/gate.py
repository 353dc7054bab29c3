"""This code against another state of it, in one run: `python -m headway.bench.gate --help`.

Every subject's process is started in turns with its counterpart's, so that what the machine does at a time hits both.
What is slower beyond chance and the tolerance is measured once more before it counts.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from headway.bench import measure
from headway.bench.compare import Change, in_one_run
from headway.bench.inputs import read_inputs
from headway.bench.peers import baseline
from headway.bench.peers.base import Wanted
from headway.bench.record import Record
from headway.bench.report.tables import shown
from headway.core.errors import GateError
from headway.core.manifest import Bundle
from headway.core.threads import budget

TOLERANCE = 0.1
"""that a busy machine of continuous integration needs"""
JUDGED = ("one text", "time a text, all at once", "memory")
"""not cold start: this tree is imported through an editable install, which takes its time, and the other one is not"""


def main() -> None:
    """Compare speed and memory of every variant; exit code 4 if anything is worse."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.gate", description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--base", type=Path, required=True, help="the other state: the folder that is `headway`"
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    given = parser.parse_args()
    os.environ[baseline.ENVIRONMENT] = str(given.base.resolve())
    found = changes(given.bundle, given.rounds, given.texts, given.tolerance)
    if any(c.verdict == "worse" for c in found):
        print("measuring once more", file=sys.stderr)
        found = changes(given.bundle, 2 * given.rounds, given.texts, given.tolerance)
    worse = [c for c in found if c.verdict == "worse"]
    if worse:
        worst = max(worse, key=lambda c: c.ratio.low)
        what = f"{worst.figure}, this code / the other, at least"
        error = GateError("regression", worst.subject, what, worst.ratio.low, 1 + given.tolerance)
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def changes(bundle: Path, rounds: int, texts: int, tolerance: float) -> list[Change]:
    """Measured, and printed."""
    found = in_one_run(record(bundle, rounds, texts), baseline.NAME, tolerance, JUDGED)
    for change in found:
        print(f"{change.subject}, {change.figure}: {shown(change.ratio, 3)} {change.verdict}", flush=True)
    return found


def record(bundle: Path, rounds: int, texts: int) -> Record:
    """Of both states."""
    declared = Bundle.read(bundle)
    inputs, _ = read_inputs(declared, None, None, texts)
    subjects = [
        measure.SubjectName(peer, variant, bundle)
        for variant in declared.variants
        for peer in ("headway", baseline.NAME)
    ]
    wanted = Wanted(
        task=declared.task, threads=budget(), max_length=declared.max_length, pad_id=declared.pad_id, pooling="",
        labels=declared.labels, settings=declared.settings,
    )  # fmt: skip
    plan = measure.Plan(one_by_one=50, rounds=rounds)
    return measure.compare(declared.task, subjects, inputs, wanted, plan, bundle_seal=declared.seal)


if __name__ == "__main__":
    main()
