"""Free memory: what the machine has and what the cgroups leave of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment
from headway.core import threads

NEEDED = 2e9
"""bytes that one training or export of a small model takes"""


def findings(environment: Environment) -> Iterator[Finding]:
    left = free(environment)
    if left is None:
        return
    limited = left == _group(environment)
    by = " (by a cgroup's limit)" if limited else ""
    yield Finding("memory", f"{left / 1e9:.1f} GB free{by}", "" if left >= NEEDED else _remedy(limited))


def _remedy(limited: bool) -> str:
    more = "docker run --memory 8g …" if limited else "ps aux --sort=-rss | head, and end what takes it"
    return f"{more}; or headway train --batch-size 4"


def free(environment: Environment) -> int | None:
    """Bytes that this process may still take. None: nobody tells."""
    known = (_machine(environment.proc / "meminfo"), _group(environment))
    return min((count for count in known if count is not None), default=None)


def _machine(meminfo: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _group(environment: Environment) -> int | None:
    """What the tightest of the process's groups leaves."""
    groups = threads.groups(environment.cgroup, environment.own_cgroup, "memory")
    return min((left for group in groups if (left := _left(group)) is not None), default=None)


def _left(group: Path) -> int | None:
    for limit, used, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):
            most = (group / limit).read_text().strip()
            if most == "max":  # v1 writes a number about 2⁶³, which is never the least
                return None
            taken = int((group / used).read_text()) - _statistic(group / "memory.stat", idle)
            return max(0, int(most) - taken)
    return None


def _statistic(file: Path, name: str) -> int:
    """Bytes of files that the kernel only keeps in mind, and gives up before anything fails."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
