"""Versions and requirements, as far as findings need them: numbers alone; what is not understood is no complaint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

from headway.cli.doctoring.distributions import normalised

NUMBER = re.compile(r"v?(?:\d+!)?(\d+(?:\.\d+)*)")
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*\(?([^;)]*)\)?\s*(?:;\s*(.*))?")
CLAUSE = re.compile(r"(===|~=|==|!=|<=|>=|<|>)\s*([^\s]+)")
EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class Requirement:
    """One line of a package's requirements."""

    name: str
    specifiers: str
    """as ">=2.11,<2.14"; empty: any version"""
    extra: str
    """the extra that it belongs to; empty: none"""
    conditional: bool
    """whether more than an extra decides about it"""

    def __str__(self) -> str:
        return f"{self.name}{self.specifiers}"


def number(version: str) -> tuple[int, ...]:
    """The release of a version: "2.13.0+cpu" is (2, 13, 0). Empty if it has none."""
    found = NUMBER.match(version)
    return tuple(map(int, found[1].split("."))) if found else ()


def requirement(line: str) -> Requirement:
    """Read a requirement. Raises ValueError if it is none."""
    found = REQUIREMENT.fullmatch(line.strip())
    if found is None:
        raise ValueError(f"no requirement: {line!r}")
    marker = found[4] or ""
    extra = EXTRA.fullmatch(marker.strip())
    return Requirement(
        name=normalised(found[1]),
        specifiers=found[3].strip(),
        extra=extra[1] if extra else "",
        conditional=bool(marker) and extra is None,
    )


def allows(specifiers: str, version: str) -> bool:
    """Whether a version is within all of them."""
    clauses = CLAUSE.findall(specifiers.replace(",", " "))
    return all(_holds(operator, wanted, version) for operator, wanted in clauses)


def _holds(operator: str, wanted: str, version: str) -> bool:
    have, want = number(version), number(wanted)
    if not have or not want:
        return True
    sign = _compared(have, want)
    match operator:
        case "==" if wanted.endswith(".*"):
            return _compared(have[: len(want)], want) == 0
        case "!=" if wanted.endswith(".*"):
            return _compared(have[: len(want)], want) != 0
        case "~=":
            return sign >= 0 and _compared(have[: len(want) - 1], want[:-1]) == 0
        case "==":
            return sign == 0
        case "!=":
            return sign != 0
        case "<":
            return sign < 0
        case ">":
            return sign > 0
        case "<=":
            return sign <= 0
        case ">=":
            return sign >= 0
    return True


def _compared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    for x, y in zip_longest(a, b, fillvalue=0):
        if x != y:
            return 1 if x > y else -1
    return 0
