"""Small parts of benchmarks: energy counters, the machine, the leaderboard's page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headway.bench import energy, leaderboard
from headway.bench.machine import machine
from headway.bench.quality import CASES
from tests.test_bench_compare import recorded


def test_energy_is_that_of_whole_packages(tmp_path: Path) -> None:
    assert energy.joules(tmp_path / "none") is None
    for zone, micro in (
        ("intel-rapl:0", 2_000_000),
        ("intel-rapl:1", 3_000_000),
        ("intel-rapl:0:0", 900_000),
    ):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{micro}\n")
    assert energy.joules(tmp_path) == 5
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("?")
    assert energy.joules(tmp_path) is None


def test_the_machine_says_what_it_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("headway.core.hardware.CPUINFO", tmp_path / "none")
    found = machine()
    assert found["clock_mhz"] is None
    assert found["processors"] >= 1
    (tmp_path / "none").write_text("processor : 0\ncpu MHz\t\t: 2445.5\n")
    assert machine()["clock_mhz"] == 2445.5


def test_the_leaderboard_has_a_row_for_every_subject_that_was_measured(tmp_path: Path) -> None:
    assert "|---|" in leaderboard.page(tmp_path)
    for case, seed in ((CASES[0], 1), (CASES[3], 2)):
        (tmp_path / f"{case.name}-leaderboard.json").write_bytes(msgspec.json.encode(recorded(seed)))
    text = leaderboard.page(tmp_path)
    assert f"Not measured: {CASES[1].name}, {CASES[2].name}, {CASES[4].name}," in text
    for case in (CASES[0], CASES[3]):
        for subject in ("headway int8", "torch fp32"):
            assert f"| {case.name} | {subject} |" in text
    assert "of one run, in turns, in 5 fresh processes each, on 2 threads of one" in text
