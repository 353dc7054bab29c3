"""Where the dynamic loader would find a shared library, by the rules of ld.so(8), and whether it would at all.

The cache's layout is that of glibc's dl-cache.h, "new format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from headway.cli.doctoring import elf
from headway.cli.doctoring.environment import Environment

MAGIC = b"glibc-ld.so.cache1.1"
HEAD = struct.Struct("<20sII20x")
ENTRY = struct.Struct("<iIIIQ")
IN_PACKAGES = ("nvidia/*/lib", "tensorrt_libs", "tensorrt_cu*_libs", "torch/lib")
"""folders of packages whose libraries `import torch` or onnxruntime.preload_dlls() loads; the loader does not search them"""


@dataclass
class Resolution:
    """What became of the libraries that a file needs, and of what those need."""

    found: dict[str, Path] = field(default_factory=dict)
    preloaded: dict[str, Path] = field(default_factory=dict)
    """in packages, so found only if something has loaded them before"""
    missing: list[str] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    """files that are no whole shared libraries"""


class Loader:
    """The loader of an environment's processes."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def resolve(self, file: Path, also: Sequence[str] = ()) -> Resolution:
        """Look for all that a file needs, and for what it opens later."""
        resolution = Resolution()
        waiting: list[tuple[Path, tuple[str, ...], tuple[Path, ...]]] = [(file, tuple(also), ())]
        while waiting:
            path, more, inherited = waiting.pop(0)
            try:
                library = elf.read(path)
            except ValueError:
                resolution.broken.append(path)
                continue
            before = (*_origin(library, library.rpath), *inherited)
            after = _origin(library, library.runpath)
            for name in dict.fromkeys((*library.needed, *more)):
                if name in resolution.found or name in resolution.preloaded or name in resolution.missing:
                    continue
                if (place := self._loaded.get(name)) is not None:
                    resolution.found[name] = place
                elif (place := self._own(name, before, after)) is not None:
                    resolution.found[name] = place
                    waiting.append((place, (), before))
                elif (place := self._system(name)) is not None:
                    resolution.found[name] = place
                elif (place := _first(self._packaged, name)) is not None:
                    resolution.preloaded[name] = place
                    waiting.append((place, (), before))
                else:
                    resolution.missing.append(name)
        return resolution

    def find(self, name: str) -> Path | None:
        """Where a library of this name is, for whatever looks for it."""
        return self._own(name, (), ()) or self._system(name) or _first(self._packaged, name)

    def versions(self, name: str) -> list[str]:
        """Names of the other versions of a library that are here: of libcudart.so.12 also libcudart.so.13."""
        stem = f"{name.partition('.so')[0]}.so"
        folders = (*self._path, *self._environment.libraries, *self._packaged)
        names = {p.name for folder in folders for p in _glob(folder, f"{stem}.*")}
        names |= {other for other in self._cache if other.startswith(f"{stem}.")}
        return sorted(n for n in names if n != name and n.count(".") == 2)

    def _own(self, name: str, before: Sequence[Path], after: Sequence[Path]) -> Path | None:
        return _first((*before, *self._interpreter, *self._path, *after), name)

    def _system(self, name: str) -> Path | None:
        if (path := self._cache.get(name)) is not None and path.is_file():
            return path
        return _first(self._environment.libraries, name)

    @cached_property
    def _path(self) -> tuple[Path, ...]:
        given = self._environment.variables.get("LD_LIBRARY_PATH", "")
        return tuple(Path(p) for p in given.replace(";", ":").split(":") if p)

    @cached_property
    def _interpreter(self) -> tuple[Path, ...]:
        """Folders that Python's own file adds for all that it loads."""
        try:
            path = self._environment.interpreter.resolve()
            library = elf.read(path)
        except (OSError, ValueError):
            return ()
        return _origin(library, library.rpath)

    @cached_property
    def _packaged(self) -> tuple[Path, ...]:
        return tuple(
            folder
            for site in self._environment.site
            for pattern in IN_PACKAGES
            for folder in _glob(site, pattern)
        )

    @cached_property
    def _loaded(self) -> dict[str, Path]:
        """Libraries of this process, which the loader takes again by their names."""
        try:
            lines = (self._environment.proc / "self" / "maps").read_text().splitlines()
        except OSError:
            return {}
        paths = (Path(line.split(maxsplit=5)[5]) for line in lines if "/" in line)
        return {path.name: path for path in paths if ".so" in path.name}

    @cached_property
    def _cache(self) -> dict[str, Path]:
        try:
            return dict(cached(self._environment.linker_cache.read_bytes()))
        except (OSError, ValueError, struct.error):
            return {}


def cached(content: bytes) -> Iterator[tuple[str, Path]]:
    """Names and places in an ld.so.cache. Raises ValueError or struct.error if it is none."""
    content = content[content.index(MAGIC) :]
    _, count, _ = HEAD.unpack_from(content)
    for i in range(count):
        _, key, value, _, _ = ENTRY.unpack_from(content, HEAD.size + i * ENTRY.size)
        yield _text(content, key), Path(_text(content, value))


def _text(content: bytes, place: int) -> str:
    return content[place : content.index(b"\0", place)].decode()


def _origin(library: elf.Library, folders: Sequence[str]) -> tuple[Path, ...]:
    here = str(library.path.parent)
    return tuple(Path(f.replace("${ORIGIN}", here).replace("$ORIGIN", here)) for f in folders)


def _first(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
