"""Tuning: it finds the way that measures fastest, keeps to what may be lost, and leaves a plan that is followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.bench import tune as tuning
from headway.bench.record import Load
from headway.bench.tune import Target, tune, ways
from headway.bench.tune_worker import Way
from headway.core import files
from headway.core.errors import BundleError, MeasurementError, OutputError, UsageError
from headway.core.manifest import Bundle
from headway.runtime import load, tuned
from headway.runtime.front import Front
from tests.conftest import Run
from tests.small import small_bundle, texts

TARGET = Target(p95_ms=20, rate=50, max_drop=0.01)


class Machine:
    """Serves requests in an exact time, which depends on how: as a measurement would find it."""

    def __init__(self, best: Way, ms: float = 5.0) -> None:
        self.best, self.ms, self.asked = best, ms, list[Way]()

    def __call__(self, way: Way, rates: Sequence[float], seconds: float) -> list[Load]:
        self.asked.append(way)
        if way.backend == "openvino" and way.precision == "int8":
            raise MeasurementError("openvino int8", "cannot be opened")
        names = self.best.__struct_fields__
        wrong = sum(getattr(way, name) != getattr(self.best, name) for name in names)
        return [self._load(rate, self.ms * (1 + wrong)) for rate in rates]

    @staticmethod
    def _load(rate: float, ms: float) -> Load:
        busy = rate * ms / 1000
        latencies = (ms / max(1 - busy, 0.01) * np.ones(200)).tolist()
        return Load(rate, latencies, 0 if busy < 1 else 10, 1.0)


@pytest.fixture
def declared(tmp_path: Path) -> Bundle:
    """With int8 that loses next to nothing, and int4 that loses a lot."""
    made = Bundle.read(small_bundle(tmp_path / "bundle"))
    full = made.variants["fp32"]
    lossy = {"int8": 0.995, "int4-weights": 0.9}
    variants = {
        n: msgspec.structs.replace(full, precision=n, parity={"agreement": a}) for n, a in lossy.items()
    }
    return msgspec.structs.replace(made, variants={"fp32": full, **variants})


def test_what_may_be_tried(declared: Bundle) -> None:
    found = ways(declared, TARGET, 4)
    assert {w.precision for w in found} == {"fp32", "int8"}
    assert {(w.threads, w.workers) for w in found} == {(1, 4), (2, 2), (4, 1)}
    assert {w.precision for w in ways(declared, Target(20, 50, 0.2), 1)} == {"fp32", "int8", "int4-weights"}
    only = msgspec.structs.replace(declared, variants={"int4-weights": declared.variants["int4-weights"]})
    with pytest.raises(UsageError, match=r"--max-drop: no variant of the bundle loses 0.01 or less"):
        ways(only, TARGET, 1)


def test_quality_counts_where_it_was_measured(declared: Bundle) -> None:
    measured = {
        name: msgspec.structs.replace(v, quality={"accuracy": accuracy})
        for (name, v), accuracy in zip(declared.variants.items(), (0.9, 0.8, 0.92), strict=True)
    }
    known = msgspec.structs.replace(declared, variants=measured)
    assert tuning.drop(known, "int8") == pytest.approx(0.1)
    assert tuning.drop(known, "int4-weights") == pytest.approx(-0.02)
    assert tuning.drop(declared, "int4-weights") == pytest.approx(0.1)


@pytest.mark.parametrize(
    "best",
    [
        Way("int8", "onnxruntime", 1, 2, 256, 8192),
        Way("fp32", "onnxruntime", 2, 1, 1024, 2048),
        Way("fp32", "openvino", 2, 1, 512, 256),
        Way("fp32", "openvino", 1, 2, 512, 2048, buckets=16),
    ],
)
def test_the_fastest_way_is_found(best: Way, declared: Bundle) -> None:
    machine = Machine(best)
    found = tune(declared, TARGET, 2, machine)
    assert found.way == best
    assert found.met
    assert found.p95.value == pytest.approx(5 / (1 - 0.25))
    assert found.highest_rate == pytest.approx(150, rel=0.06)  # where 5 / (1 - 0.005 rate) is 20 ms
    assert found.tried == len(set(machine.asked))


def test_a_target_that_cannot_be_met(declared: Bundle) -> None:
    best = Way("int8", "onnxruntime", 2, 1, 512, 2048)
    found = tune(declared, TARGET, 2, Machine(best, ms=18))
    assert not found.met
    assert found.highest_rate == pytest.approx(5.5, rel=0.15)  # where 18 / (1 - 0.018 rate) is 20 ms
    none = tune(declared, TARGET, 2, Machine(best, ms=30))
    assert (none.met, none.highest_rate) == (False, 0)


def test_where_nothing_runs(declared: Bundle) -> None:
    def fails(way: Way, rates: Sequence[float], seconds: float) -> list[Load]:
        raise MeasurementError("it", "no")

    with pytest.raises(MeasurementError, match="none could be measured"):
        tune(declared, TARGET, 1, fails)


def test_an_interrupted_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_bundle(tmp_path / "bundle")
    asked: list[Any] = []

    def measured(job: Any) -> list[Load]:
        asked.append(job)
        return [Load(rate, [float(len(asked))], 0, 1.0) for rate in job.rates]

    monkeypatch.setattr(tuning, "_in_fresh_process", measured)
    way = Way("fp32", "onnxruntime", 1, 1, 512, 2048)
    first = tuning.Journal(folder, ["a"], tmp_path / "journal")
    found = [first(way, [5.0], 1.0), first(way, [5.0], 1.0), first(way, [6.0], 1.0)]
    assert len(asked) == 3  # a repetition is measured again
    again = tuning.Journal(folder, ["a"], tmp_path / "journal")
    assert [again(way, [5.0], 1.0), again(way, [5.0], 1.0), again(way, [6.0], 1.0)] == found
    assert len(asked) == 3
    tuning.Journal(folder, ["b"], tmp_path / "journal")(way, [5.0], 1.0)
    assert len(asked) == 4
    monkeypatch.setenv("HEADWAY_CACHE", "off")
    assert tuning.journal(folder, ["a"])._place is None


def plan(**changed: Any) -> tuned.Plan:
    fields: dict[str, Any] = {
        "precision": "fp32", "backend": "onnxruntime", "threads": 1, "workers": 2, "batch_tokens": 77,
        "front_tokens": 99, "buckets": 4, "p95_ms": 20.0, "rate": 50.0, "measured_p95_ms": 10.0, "highest_rate": 90.0,
    }  # fmt: skip
    return tuned.Plan(**fields | changed)


def test_load_and_front_follow_the_plan(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "bundle")
    seal = Bundle.read(folder).seal
    tuned.write(folder, seal, 2, plan())
    tuned.write(folder, seal, 3, plan(batch_tokens=55))
    pipe: Any = load(folder, threads=2)
    assert (pipe.precision, pipe.engine, pipe.batch_tokens) == ("fp32", "onnxruntime", 77)
    assert pipe.following.plan == plan()
    assert pipe._backend._threads == 2  # many texts at once
    front = Front(pipe)
    worker: Any = front._pipe
    assert (front._count, front._batch_tokens, worker._backend._threads) == (2, 99, 1)
    assert (worker.precision, worker.batch_tokens) == ("fp32", 77)
    assert Front(pipe, workers=1)._pipe is pipe
    assert load(folder, threads=2, batch_tokens=11).batch_tokens == 11
    for other in (load(folder, threads=1), load(folder, threads=2, precision="fp32")):
        assert other.following is None
    some = texts(40)

    async def main() -> list[Any]:
        async with front:
            return list(await asyncio.gather(*map(front, some)))

    assert [r.label for r in asyncio.run(main())] == [r.label for r in pipe(some)]


def test_a_plan_for_another_bundle_or_machine_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_bundle(tmp_path / "bundle")
    seal = Bundle.read(folder).seal
    tuned.write(folder, "b" * 64, 1, plan())
    assert load(folder, threads=1).following is None
    tuned.write(folder, seal, 1, plan())
    assert tuned.read(folder, seal, 1) == plan()
    monkeypatch.setattr("headway.core.hardware.cpu_name", lambda: "another")
    assert load(folder, threads=1).following is None


@pytest.mark.parametrize(
    "content",
    ["", "[", "{}", '{"seal": "a", "machines": {}, "format": "headway-plan-9"}', "[" * 5000, '{"seal": 3}'],
)
def test_a_malformed_plan(content: str, tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "bundle")
    (folder / "plan.json").write_text(content)
    with pytest.raises(BundleError, match=r"plan\.json is malformed"):
        load(folder, threads=1)


def test_a_plan_that_names_what_the_bundle_lacks(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "bundle")
    tuned.write(folder, Bundle.read(folder).seal, 1, plan(precision="int3"))
    with pytest.raises(UsageError, match="int3"):
        load(folder, threads=1)


def test_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_bundle(tmp_path / "bundle")
    monkeypatch.setattr(tuning, "SECONDS", 0.1)
    monkeypatch.setattr(tuning, "BATCHES", (512,))
    monkeypatch.setattr(tuning, "TOGETHER", (2048,))
    monkeypatch.setattr(tuning, "STEPS", 1)
    monkeypatch.setattr(tuning, "engines_for", lambda device: ["onnxruntime"])
    monkeypatch.setenv("HEADWAY_CACHE", "off")
    asked = ("tune", folder, "--rate", 20, "--threads", 1, "--texts", 9, "--price", 3.6)
    ran = run(*asked, "--p95-ms", 5000)
    assert ran.code == 0, ran.err
    assert "fp32 on onnxruntime, 1 × 1 threads" in ran.out
    assert "highest rate with p95 ≤ 5000 ms" in ran.out
    assert "a million requests at that rate" in ran.out
    (found,) = json.loads((folder / "plan.json").read_text())["machines"].values()
    assert (found["precision"], found["rate"]) == ("fp32", 20)
    assert load(folder, threads=1).following is not None
    (folder / "plan.json").unlink()
    ran = run(*asked, "--p95-ms", 0.0001)
    assert ran.code == 4
    assert "more machines do not help" in ran.err
    assert "tuning gate: variant fp32: p95 in ms at 20 requests a second" in ran.err
    assert not (folder / "plan.json").exists()
    wrong = {"--p95-ms": 0, "--rate": -1, "--texts": 0, "--price": 0, "--max-drop": -1}
    for option, value in wrong.items():
        given = {"--p95-ms": 5, "--rate": 5} | {option: value}
        assert run("tune", folder, *(part for pair in given.items() for part in pair)).code == 2


def test_a_place_that_cannot_be_written_is_told_before_measuring(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise OutputError(path, "read-only")

    monkeypatch.setattr(files, "refuse_unwritable", refused)
    monkeypatch.delattr(tuning, "tune")
    ran = run("tune", small_bundle(tmp_path / "bundle"), "--p95-ms", 5, "--rate", 5)
    assert (ran.code, "plan.json: read-only" in ran.err) == (OutputError.exit_code, True)
