"""The thread budget: what is asked for, the affinity mask, the cgroup quota."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headway.core import threads
from headway.core.errors import UsageError


def v1(root: Path, quota: str, period: str) -> Path:
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (root / "cpu" / "cpu.cfs_period_us").write_text(period)
    return root


@pytest.mark.parametrize(
    ("content", "cpus"),
    [("200000 100000\n", 2.0), ("50000 100000\n", 0.5), ("150000 100000\n", 1.5), ("max 100000\n", None)],
)
def test_cgroup_v2(content: str, cpus: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert threads.cgroup_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("300000\n", 3.0), ("25000\n", 0.25), ("-1\n", None)])
def test_cgroup_v1(quota: str, cpus: float | None, tmp_path: Path) -> None:
    assert threads.cgroup_cpus(v1(tmp_path, quota, "100000\n")) == cpus


def test_cgroup_v2_comes_first(tmp_path: Path) -> None:
    (v1(tmp_path, "100000", "100000") / "cpu.max").write_text("400000 100000")
    assert threads.cgroup_cpus(tmp_path) == 4.0


@pytest.mark.parametrize("content", [None, "", "nonsense", "1 2 3"])
def test_no_or_unreadable_cgroup_is_no_limit(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert threads.cgroup_cpus(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.5, 1), (2, 4.0, 2), (1, None, 1)],
)
def test_budget_is_the_least_of_all(
    affinity: int, quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "affinity_cpus", lambda: affinity)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: quota)
    assert threads.budget() == expected


def test_what_is_asked_for_is_given() -> None:
    assert threads.budget(7) == 7


@pytest.mark.parametrize("wrong", [0, -1])
def test_no_threads_at_all(wrong: int) -> None:
    with pytest.raises(UsageError, match=f"^--threads: must be at least 1, not {wrong}$"):
        threads.budget(wrong)


def test_affinity_of_a_process() -> None:
    code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    code += "from headway.core.threads import budget; print(budget())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"
