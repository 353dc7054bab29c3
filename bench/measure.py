"""Measure subjects side by side: fresh processes, in turns, same threads, same inputs, answers checked."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headway.bench import answers as compared
from headway.bench import roofline
from headway.bench.answers import Agreement, Answers
from headway.bench.machine import machine
from headway.bench.peers.base import Wanted, bytes_on_disk, load_peer
from headway.bench.record import Record, Round, Row, Work
from headway.bench.worker import DONE, FIRST, Job, Measured, versions
from headway.core.errors import GateError, MeasurementError
from headway.core.progress import Progress, silent

AGREEMENT = 0.95
"""share of a peer's answers that must equal the first subject's; a peer below that is refused. The bundle's own
variants were proven when they were exported; their share is reported"""
COSINE = 0.995
"""the same where answers are vectors: mean cosine with the first subject's"""
SHARES = (0.25, 0.5, 0.75)
"""of what the first subject answers in a second, as rates of arrival where none are asked for"""
SOURCE = Path(__file__).parents[1]
"""the folder that is `headway`"""
START = (
    "import sys, types; sys.modules['headway'] = headway = types.ModuleType('headway'); "
    "sys.modules['headway.bench'] = headway.bench = types.ModuleType('headway.bench'); "
    "headway.bench.__path__ = [sys.argv.pop()]; headway.__path__ = [sys.argv.pop()]; {apart}"
    "from headway.bench.{module} import main; main()"
)
"""starts a worker in any interpreter, whether headway is installed there or not"""
APART = "sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]; "
"""takes out what finds this state's modules wherever headway.__path__ leads"""


@dataclass(frozen=True)
class SubjectName:
    peer: str
    precision: str
    model: Path

    def __str__(self) -> str:
        return f"{self.peer} {self.precision}"


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    one_by_one: int = 200
    """inputs that are also answered one at a time"""
    rounds: int = 5
    """fresh processes of each subject"""
    seconds: float = 0.0
    """of each rate of arrivals; 0: no load"""
    rates: Sequence[float] = ()
    """arrivals a second; none: `SHARES` of what the first subject answers"""


class _Run(NamedTuple):
    """One process's."""

    round: Round
    versions: dict[str, str]
    agreement: Agreement


def compare(
    task: str,
    subjects: Sequence[SubjectName],
    inputs: Sequence[Any],
    wanted: Wanted,
    plan: Plan,
    *,
    examples: Sequence[Any] = (),
    bundle_seal: str,
    work: Callable[[Answers], Work | None] = lambda answers: None,
    progress: Progress = silent,
) -> Record:
    """Run every subject in every round, taking turns, each time in a fresh process.

    Args:
        inputs: as `answers.given` has them.
        examples: the same with gold answers, where quality is to be measured.
        work: what the inputs ask of any engine, told from the first subject's answers.
    Raises:
        GateError: a peer's answers differ too much.
        MeasurementError: a process ended without a result.
    """
    runs: dict[SubjectName, list[_Run]] = {s: [] for s in subjects}
    turns = [s for _ in range(plan.rounds) for s in subjects]
    quality: dict[SubjectName, dict[str, float]] = {}
    disk: dict[SubjectName, float] = {}
    expected: Answers | None = None
    with tempfile.TemporaryDirectory() as folder:
        models = _prepared(subjects, wanted, Path(folder))
        vectors = str(Path(folder) / "vectors.npy")

        def job(subject: SubjectName, rates: Sequence[float]) -> Job:
            model, one_by_one = str(models[subject]), min(plan.one_by_one, len(inputs))
            return Job(
                subject.peer, model, subject.precision, wanted, list(inputs), one_by_one, list(rates), plan.seconds, vectors
            )  # fmt: skip

        rates = plan.rates if plan.seconds else ()
        if plan.seconds and not rates:
            capacity = _run(subjects[0], job(subjects[0], ()))[0].round.throughput
            rates = [float(f"{share * capacity:.2g}") for share in SHARES]
        for subject in progress(turns, "measuring", len(turns)):
            measured, answers = _run(subject, job(subject, rates))
            expected = answers if expected is None else expected
            agreement = compared.agreement(answers, expected)
            if subject.peer != subjects[0].peer:
                refuse_other_answers(subject, subjects[0], agreement)
            if subject not in quality:
                quality[subject] = compared.quality(task, examples, answers) if examples else {}
                disk[subject] = (
                    bytes_on_disk(load_peer(subject.peer), models[subject], subject.precision) / 1e6
                )
            runs[subject].append(_Run(measured.round, measured.versions, agreement))
    return Record(
        task=task,
        rows=[_row(subject, runs[subject], disk[subject], quality[subject]) for subject in subjects],
        texts=len(inputs),
        one_by_one=min(plan.one_by_one, len(inputs)),
        threads=wanted.threads,
        max_length=wanted.max_length,
        texts_sha256=hashlib.sha256(msgspec.json.encode(list(inputs))).hexdigest(),
        machine=machine(),
        versions=versions(),
        bundle_seal=bundle_seal,
        work=None if expected is None else work(expected),
        peaks=roofline.peaks(wanted.threads),
    )


def _prepared(subjects: Sequence[SubjectName], wanted: Wanted, folder: Path) -> dict[SubjectName, Path]:
    """What each subject opens."""
    models = {}
    for place, subject in enumerate(subjects):
        own = folder / str(place)
        own.mkdir()
        models[subject] = load_peer(subject.peer).prepared(subject.model, subject.precision, wanted, own)
    return models


def _run(subject: SubjectName, job: Job) -> tuple[Measured, Answers]:
    """The figures, with seconds from process start to first answer, and the answers."""
    begin = time.perf_counter()
    peer = load_peer(subject.peer)
    home = getattr(peer, "home", None)
    command = started(peer.interpreter(), "worker", SOURCE if home is None else home())
    with tempfile.TemporaryFile() as words, tempfile.TemporaryFile() as given:
        given.write(msgspec.json.encode(job))
        given.seek(0)
        with _process(command, stdin=given, stdout=subprocess.PIPE, stderr=words) as worker:
            assert worker.stdout is not None
            cold = 0.0
            for line in worker.stdout:
                if line.startswith(FIRST.encode()):
                    cold = time.perf_counter() - begin
                elif line.startswith(DONE.encode()):
                    found = msgspec.json.decode(line[len(DONE) :], type=Measured)
                    done = msgspec.structs.replace(found.round, cold_start_s=cold)
                    answers = found.answers or np.load(job.vectors, allow_pickle=False)
                    return msgspec.structs.replace(found, round=done), answers
        words.seek(0)
        last_words = words.read().decode(errors="replace").strip().splitlines()[-1:]
    raise MeasurementError(str(subject), " ".join(last_words))


@contextmanager
def _process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is waited for where the block ends well, and ended where it does not."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def started(interpreter: str, module: str, home: Path = SOURCE) -> list[str]:
    """The command for `main` of a module of headway.bench; `home`: what is `headway` there, but for headway.bench."""
    start = START.format(module=module, apart="" if home == SOURCE else APART)
    return [interpreter, "-c", start, str(home), str(SOURCE / "bench")]


def refuse_other_answers(subject: SubjectName, first: SubjectName, agreement: Agreement) -> None:
    """Raise GateError if a peer's answers are too few of the first subject's."""
    name, limit = ("agreement", AGREEMENT) if agreement.least is None else ("mean cosine", COSINE)
    if not agreement.figure >= limit:  # what is no number is refused too
        raise GateError("benchmark", str(subject), f"{name} with {first}", agreement.figure, limit)


def _row(subject: SubjectName, runs: Sequence[_Run], disk_mb: float, quality: dict[str, float]) -> Row:
    agreement, here = min(run.agreement for run in runs), versions()
    return Row(
        subject=str(subject),
        rounds=[run.round for run in runs],
        agreement=agreement.figure,
        least_cosine=agreement.least,
        disk_mb=disk_mb,
        quality=quality,
        versions={k: v for k, v in runs[0].versions.items() if here.get(k) != v},
    )
