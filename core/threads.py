"""One thread budget: what the affinity mask and the cgroup quota leave to this process."""

from __future__ import annotations

import math
import os
from pathlib import Path

from headway.core.errors import UsageError

CGROUP = Path("/sys/fs/cgroup")


def budget(requested: int | None = None) -> int:
    """Threads that tokenizer, engine and kernels may use together. Raises UsageError if `requested` is below 1."""
    if requested is not None:
        if requested < 1:
            raise UsageError("--threads", f"must be at least 1, not {requested}")
        return requested
    quota = cgroup_cpus()
    return affinity_cpus() if quota is None else max(1, min(affinity_cpus(), math.ceil(quota)))


def affinity_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_cpus(root: Path = CGROUP) -> float | None:
    """Processors' worth of time that the cgroup (v2, then v1) allows, None for no limit. May be a fraction."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        micros = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return None if micros < 0 else micros / int((root / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
