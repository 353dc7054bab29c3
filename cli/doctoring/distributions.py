"""What is installed, read off the folders beside the packages: no package is imported, and few files are opened."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Distribution:
    """An installed package; `info` is its .dist-info folder."""

    name: str
    """normalised: small letters, one hyphen"""
    version: str
    info: Path

    @property
    def site(self) -> Path:
        return self.info.parent

    def files(self) -> dict[str, int | None]:
        """Its files below `site`, with their bytes where those were recorded. Empty: it kept no list."""
        try:
            with (self.info / "RECORD").open(encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.reader(stream) if row]
        except (OSError, ValueError, csv.Error):
            return {}
        return {row[0]: int(row[2]) if len(row) > 2 and row[2].isdecimal() else None for row in rows}

    def requires(self) -> list[str]:
        """Its requirements as it wrote them."""
        return self._fields("Requires-Dist")

    def extras(self) -> list[str]:
        return self._fields("Provides-Extra")

    def _fields(self, name: str) -> list[str]:
        found = []
        with suppress(OSError), (self.info / "METADATA").open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if not line.strip():  # the description follows
                    break
                key, _, value = line.partition(":")
                if key == name:
                    found.append(value.strip())
        return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(site: Iterable[Path]) -> dict[str, Distribution]:
    """Distributions by name; of several of one name the first that Python would find."""
    found: dict[str, Distribution] = {}
    for folder in site:
        for info in sorted(_infos(folder)):
            name, _, version = info.stem.rpartition("-")
            if name and not name.startswith("~"):
                found.setdefault(normalised(name), Distribution(normalised(name), version, info))
    return found


def remains(site: Iterable[Path]) -> list[Path]:
    """What a broken-off pip left: folders that begin with a tilde."""
    return sorted(path for folder in site for path in _listed(folder) if path.name.startswith("~"))


def _infos(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if path.suffix == ".dist-info"]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
