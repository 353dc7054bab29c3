"""The thread budget: what is asked for, the affinity mask, the cgroup quota."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headway.core import threads
from headway.core.errors import UsageError


def v1(group: Path, quota: str) -> Path:
    """The root, for a group directly below it."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text(quota)
    (group / "cpu.cfs_period_us").write_text("100000\n")
    return group.parent


def v2(group: Path, content: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(content)


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("200000 100000\n", 2.0),
        ("50000 100000\n", 0.5),
        ("max 100000\n", None),
        ("nonsense", None),
        ("1 2 3", None),
        ("9 0", None),
    ],
)
def test_cgroup_v2(content: str, cpus: float | None, tmp_path: Path) -> None:
    v2(tmp_path, content)
    assert threads.cgroup_cpus(tmp_path, tmp_path / "none") == cpus


@pytest.mark.parametrize(
    ("quota", "cpus"), [("300000\n", 3.0), ("25000\n", 0.25), ("-1\n", None), ("", None)]
)
def test_cgroup_v1(quota: str, cpus: float | None, tmp_path: Path) -> None:
    assert threads.cgroup_cpus(v1(tmp_path / "cpu", quota), tmp_path / "none") == cpus


@pytest.mark.parametrize("own", [None, "", "0::/\n", "0::/../elsewhere\n", "4:memory:/a\n", "\n", "nonsense"])
def test_no_limit(own: str | None, tmp_path: Path) -> None:
    v1(tmp_path / "memory" / "a", "100000")
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert threads.cgroup_cpus(tmp_path, tmp_path / "own") is None


def test_the_least_limit_of_all_groups_above_holds(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("3:cpuset:/b\n2:cpu,cpuacct:/b/c\n0::/a/d\n")
    v2(tmp_path / "a" / "d", "max 100000")
    v2(tmp_path / "b", "100000 100000")  # not this process's
    for folder, content, cpus in (("a/d", "800000 100000", 8.0), ("a", "500000 100000", 5.0)):
        v2(tmp_path / folder, content)
        assert threads.cgroup_cpus(tmp_path, tmp_path / "own") == cpus
    for folder, quota, cpus in (("cpu/b/c", "400000", 4.0), ("cpu/b", "-1", 4.0), ("cpu/b", "300000", 3.0)):
        v1(tmp_path / folder, quota)
        assert threads.cgroup_cpus(tmp_path, tmp_path / "own") == cpus


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


def test_a_real_cgroup() -> None:
    """A process that a limit of 1.5 processors was set for, where the machine lets a test set one."""
    mounted = threads.CGROUP / "cpu"
    group = (mounted if mounted.is_dir() else threads.CGROUP) / f"headway-test-{os.getpid()}"
    limit = {"cpu.cfs_quota_us": "150000"} if mounted.is_dir() else {"cpu.max": "150000 100000"}
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        for name, content in limit.items():
            if not (group / name).is_file():
                pytest.skip(f"cgroups have no {name} here")
            (group / name).write_text(content)
        code = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        code += "from headway.core.threads import cgroup_cpus; print(cgroup_cpus())"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout == "1.5\n"
    except OSError as error:
        pytest.skip(f"no limit can be set here: {error}")
    finally:
        group.rmdir()
