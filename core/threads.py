"""One thread budget: what the affinity mask and the cgroup quota leave to this process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from headway.core.errors import UsageError

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def budget(requested: int | None = None) -> int:
    """Threads that tokenizer, engine and kernels may use together. Raises UsageError if `requested` is below 1."""
    if requested is not None:
        if requested < 1:
            raise UsageError("--threads", f"must be at least 1, not {requested}")
        return requested
    return shared(affinity_cpus(), cgroup_cpus())


def shared(affinity: int, quota: float | None) -> int:
    """Threads for so many processors and so much of their time; a started processor counts whole."""
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def affinity_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_cpus(root: Path = CGROUP, own: Path = OWN_CGROUP) -> float | None:
    """Processors' worth of time that the cgroups (v2 and v1) allow, None for no limit. May be a fraction.

    A limit of any group above the process holds. `own` names its groups, one a line: "0::/path", "4:cpu,cpuacct:/path".
    """
    quotas = (_quota(group) for group in groups(root, own, "cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups that limit a process: v2's, and v1's of one controller ("cpu", "memory").

    In a container they may be mounted as if they were the roots.
    """
    places = {"": PurePosixPath("/"), controller: PurePosixPath("/")}
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or controller in controllers.split(","):
                places[controller if controllers else ""] = PurePosixPath(path)
    for mounted, place in places.items():
        for above in (place, *place.parents):
            yield root / mounted / above.relative_to("/")


def _quota(group: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        micros = int((group / "cpu.cfs_quota_us").read_text())
        return None if micros < 0 else micros / int((group / "cpu.cfs_period_us").read_text())
    return None
