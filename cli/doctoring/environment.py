"""The facts that findings are made of: where this machine says what it is, and what is installed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from headway.cli.doctoring import distributions
from headway.cli.doctoring.distributions import Distribution
from headway.core import threads

TRUE = ("1", "ON", "YES", "TRUE")
"""what a switch is set to, in any case"""


@dataclass(frozen=True)
class Disk:
    """A folder that is written to."""

    use: str
    path: Path | None
    """None: there is none"""
    free: int
    """bytes"""
    writable: bool = True


@dataclass(frozen=True)
class Kernels:
    """The compiled extension: the instruction set in use, and all that could be."""

    level: str = ""
    levels: tuple[str, ...] = ()
    problem: str = ""
    """why it does not load"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Tests give folders of their own; `here` gives this machine's."""

    site: tuple[Path, ...]
    """folders of installed packages, in the order of Python's search"""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """never shown whole: there are secrets among them"""
    proc: Path = Path("/proc")
    cgroup: Path = threads.CGROUP
    linker_cache: Path = Path("/etc/ld.so.cache")
    libraries: tuple[Path, ...] = (Path("/lib64"), Path("/usr/lib64"), Path("/lib"), Path("/usr/lib"))
    """folders that the loader searches in the end"""
    interpreter: Path = Path("/nonexistent")
    affinity: int = 1
    """processors"""
    processors: int = 1
    """of the machine"""
    kernels: Kernels = Kernels()
    disks: tuple[Disk, ...] = ()
    bundle: Path | None = None

    @cached_property
    def installed(self) -> dict[str, Distribution]:
        """Distributions by normalised name."""
        return distributions.installed(self.site)

    @property
    def own_cgroup(self) -> Path:
        return self.proc / "self" / "cgroup"

    @property
    def quota(self) -> float | None:
        """Processors' worth of time that cgroups allow; None: no limit."""
        return threads.cgroup_cpus(self.cgroup, self.own_cgroup)

    @property
    def budget(self) -> int:
        """Threads that headway uses."""
        return threads.shared(self.affinity, self.quota)

    def is_on(self, switch: str) -> bool:
        return self.variables.get(switch, "").upper() in TRUE

    @property
    def cache(self) -> Path:
        """The user's folder for what can be made again."""
        return _expanded(self.variables.get("XDG_CACHE_HOME") or "~/.cache")

    @property
    def hub(self) -> Path:
        """The hub's folder: HF_HOME or what stands for it."""
        own = self.variables.get("HF_HOME")
        return _expanded(own) if own else self.cache / "huggingface"


def here(bundle: Path | None = None) -> Environment:
    """This machine and this Python."""
    known = Environment(
        site=tuple(dict.fromkeys(Path(p) for p in sys.path if p and Path(p).is_dir())),
        variables=dict(os.environ),
        interpreter=Path(sys.executable),
        affinity=threads.affinity_cpus(),
        processors=os.cpu_count() or 1,
        kernels=_kernels(),
        bundle=bundle,
    )
    places = {"working folder": _working(), "cache": known.hub, "temporary": _temporary()}
    return replace(known, disks=tuple(_disk(use, path) for use, path in places.items()))


def describe_python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _working() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was deleted
        return None


def _temporary() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # none can be written
        return None


def _disk(use: str, path: Path | None) -> Disk:
    try:
        existing = next(p for p in (path, *path.parents) if p.exists()) if path else None
        if existing is not None:
            return Disk(use, path, shutil.disk_usage(existing).free, os.access(existing, os.W_OK))
    except (
        OSError,
        StopIteration,
    ):  # a relative one in a folder that was deleted, or one that may not be seen
        return Disk(use, path, 0, writable=False)
    return Disk(use, None, 0, writable=False)


def _kernels() -> Kernels:
    try:
        from headway import cpp_ext
    except ImportError as error:
        return Kernels(problem=str(error))
    return Kernels(cpp_ext.level(), tuple(cpp_ext.levels()))


def _expanded(path: str) -> Path:
    with suppress(RuntimeError):  # nobody's home
        return Path(path).expanduser()
    return Path(path)
