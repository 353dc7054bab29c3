"""What is measured on: processor, limits, clocks, and how busy it was."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from headway.core import hardware, threads

CLOCKS = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def machine() -> dict[str, Any]:
    """By name; None for what the system does not tell."""
    return {
        "processor": hardware.cpu_name(),
        "int8": hardware.has_fast_int8(hardware.cpu_flags()),
        "bf16": hardware.has_fast_bf16(hardware.cpu_flags()),
        "processors": threads.affinity_cpus(),
        "cgroup_processors": threads.cgroup_cpus(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "clock_mhz": _clock(),
        "governor": _read(CLOCKS / "scaling_governor"),
        "busy": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _clock() -> float | None:
    """Of the first processor, now."""
    for line in (_read(hardware.CPUINFO) or "").splitlines():
        if line.startswith("cpu MHz"):
            return float(line.partition(":")[2])
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
