"""Regressions: a planted slow-down is found, a rerun without a change is not, and records that do not fit are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headway import cpp_ext
from headway.bench import measure
from headway.bench.compare import FIGURES, Change, compare, in_one_run
from headway.bench.peers.base import load_peer
from headway.bench.record import Record, Round, Row
from headway.core.errors import UnavailableError, UsageError
from tests.conftest import Run
from tests.small import small_bundle

NOISE = 0.015
"""standard deviation of a process's speed"""


def recorded(seed: int, slower: float = 1.0, pace: float = 1.0, rounds: int = 5, **changed: Any) -> Record:
    """A record of headway and of a peer, in rounds that share what the machine does just then."""
    random = np.random.default_rng(seed)
    own: list[Round] = []
    peer: list[Round] = []
    for _ in range(rounds):
        mood = pace * float(np.exp(0.05 * random.standard_normal()))
        for found, base in ((own, 5.0 * slower), (peer, 20.0)):
            ms = base * mood * float(np.exp(NOISE * random.standard_normal()))
            latencies = (ms * random.lognormal(0, 0.1, 100)).tolist()
            cold, memory = 0.5 * mood, 100 * float(np.exp(0.002 * random.standard_normal()))
            found.append(Round(cold, latencies, 3000 / ms, {}, memory, True))
    row = {"agreement": 1.0, "least_cosine": None, "disk_mb": 20.0, "quality": {}, "versions": {}}
    rows = [
        Row(subject=name, rounds=found, **row)
        for name, found in (("headway int8", own), ("torch fp32", peer))
    ]
    fields: dict[str, Any] = {
        "task": "text-classification", "rows": rows, "texts": 100, "one_by_one": 100, "threads": 2, "max_length": 64,
        "texts_sha256": "a", "machine": {"processor": "one"}, "versions": {}, "bundle_seal": "s",
    }  # fmt: skip
    return Record(**fields | changed)


def verdicts(changes: list[Change]) -> dict[str, str]:
    return {change.figure: change.verdict for change in changes}


def test_a_slow_down_of_a_tenth_is_found() -> None:
    found = [verdicts(compare(recorded(i), recorded(i + 1000, slower=1.1))) for i in range(60)]
    assert (
        np.mean([f["one text"] == "worse" or f["time a text, all at once"] == "worse" for f in found]) >= 0.9
    )
    ratio = compare(recorded(1), recorded(2, slower=1.1))[0].ratio
    assert ratio.low < 1.1 < ratio.high


def test_no_change_is_no_regression() -> None:
    found = [verdicts(compare(recorded(i), recorded(i + 1000))) for i in range(100)]
    assert np.mean(["worse" in f.values() for f in found]) <= 0.05


def test_a_slower_machine_is_not_a_slower_program() -> None:
    assert "worse" not in verdicts(compare(recorded(1), recorded(2, pace=1.5))).values()
    alone = [msgspec.structs.replace(r, rows=r.rows[:1]) for r in (recorded(1), recorded(2, pace=1.5))]
    assert verdicts(compare(*alone))["one text"] == "worse"


def test_what_became_better_or_cannot_be_told() -> None:
    assert verdicts(compare(recorded(1), recorded(2, slower=0.8)))["one text"] == "better"
    few = verdicts(compare(recorded(1, rounds=2), recorded(2, rounds=2)))
    assert few["one text"] == "unclear"
    assert set(verdicts(compare(recorded(1), recorded(1))).values()) <= {"same", "unclear"}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"threads": 1}, "the records have threads 2 and 1"),
        ({"texts_sha256": "b"}, "the records have other texts"),
        ({"task": "text-ranking"}, "task text-classification and text-ranking"),
        ({"rows": []}, "no subject is in both records"),
    ],
)
def test_records_that_do_not_fit(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        compare(recorded(1), recorded(2, **changed))


def test_other_processors_need_a_peer() -> None:
    a, b = recorded(1), recorded(2, machine={"processor": "two"})
    compare(a, b)
    with pytest.raises(UsageError, match="different processors"):
        compare(a, msgspec.structs.replace(b, rows=b.rows[:1]))
    with pytest.raises(UsageError, match="'snails' is not in both records"):
        compare(a, b, by="snails")
    with pytest.raises(UsageError, match="--rounds 5"):
        compare(recorded(1, rounds=1), recorded(2))


@pytest.mark.parametrize(("slower", "verdict"), [(1.1, "worse"), (0.85, "better")])
def test_two_states_in_one_run(slower: float, verdict: str) -> None:
    """Rounds in which the machine is slow are slow for both."""
    found = []
    for seed in range(40):
        one = recorded(seed, slower=slower)
        random = np.random.default_rng(seed + 7)
        rounds = []
        for ours in one.rows[0].rounds:
            pace = slower * float(np.exp(NOISE * random.standard_normal()))
            latencies = [ms / pace for ms in ours.latencies_ms]
            rounds.append(
                msgspec.structs.replace(ours, latencies_ms=latencies, throughput=ours.throughput * pace)
            )
        base = msgspec.structs.replace(one.rows[0], subject="baseline int8", rounds=rounds)
        changes = in_one_run(msgspec.structs.replace(one, rows=[one.rows[0], base]), "baseline")
        assert [c.figure for c in changes] == list(FIGURES)
        found.append(verdicts(changes))
    assert np.mean([f["one text"] == verdict for f in found]) >= 0.9
    assert {f["memory"] for f in found} == {"same"}


def test_another_state_is_measured_by_its_own_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state whose runtime sleeps: found to be slower, and its answers are still compared."""
    from headway.bench import gate

    for name in ("core", "runtime"):
        shutil.copytree(measure.SOURCE / name, tmp_path / "headway" / name)
    (tmp_path / "headway" / "cpp_ext").mkdir()
    for file in (cpp_ext.__file__, cpp_ext._native.__file__):
        shutil.copy(str(file), tmp_path / "headway" / "cpp_ext")
    slow = tmp_path / "headway" / "runtime" / "pipeline.py"
    code = slow.read_text("utf-8")
    assert code.count("        call = decoders.settings(") == 1
    slow.write_text(
        code.replace("        call = decoders.settings(", "        time.sleep(0.02)\n        call = decoders.settings(")
        .replace("from abc import", "import time\nfrom abc import", 1)
    )  # fmt: skip
    monkeypatch.setenv("HEADWAY_BASELINE", str(tmp_path / "headway"))
    found = gate.changes(small_bundle(tmp_path / "bundle"), 3, 20, 0.1)
    assert verdicts(found)["one text"] == "better"
    monkeypatch.setenv("HEADWAY_BASELINE", str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match="HEADWAY_BASELINE"):
        load_peer("baseline").precisions(tmp_path / "bundle")


def test_the_command(run: Run, tmp_path: Path) -> None:
    for name, record in (("old", recorded(1)), ("same", recorded(3)), ("slow", recorded(2, slower=1.3))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_bytes(msgspec.json.encode(record))
    ran = run("bench", "compare", tmp_path / "old", tmp_path / "same")
    assert ran.code == 0, ran.err
    assert ran.out.count("headway int8") == 4
    ran = run("bench", "compare", tmp_path / "old" / "results.json", tmp_path / "slow")
    assert ran.code == 4
    assert "regression gate: variant headway int8: " in ran.err
    assert run("bench", "compare", tmp_path / "old", tmp_path / "none").code == 3
    assert run("bench", "compare", tmp_path / "old", tmp_path / "same", "--tolerance", -1).code == 2
