"""What a subject finds, and the order in which subjects are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from headway.cli.doctoring.environment import Environment
from headway.core import siblings
from headway.core.errors import HeadwayError, UnavailableError

FAMILY = "headway.cli.doctoring.subjects"

ORDER = (
    "processor",
    "threads",
    "memory",
    "disk",
    "kernels",
    "packages",
    "conflicts",
    "onnxruntime",
    "openvino",
    "cuda",
    "tensorrt",
    "hub",
    "bundle",
)
"""the report's order: machine, packages, engines, the rest"""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    state: str
    remedy: str = ""
    """the command that mends it; empty: nothing is to be done"""
    error: HeadwayError | None = None
    """where it prevents work: what the command ends with"""

    @property
    def grade(self) -> str:
        """ "prevents" work, "advice", or "fine"."""
        return "prevents" if self.error else "advice" if self.remedy else "fine"


def prevents(subject: str, state: str, remedy: str, needed: str) -> Finding:
    """A finding without whose remedy nothing goes on; `needed` is what is not available."""
    return Finding(subject, state, remedy, UnavailableError(needed, remedy))


class Subject(Protocol):
    """What each module of this family defines."""

    def findings(self, environment: Environment) -> Iterator[Finding]:
        """What there is to tell of an environment. Reads files that it names, changes and loads nothing."""
        ...


def findings(environment: Environment) -> Iterator[Finding]:
    """All subjects' findings, in order."""
    for name in ORDER:
        yield from cast(Subject, siblings.load(FAMILY, name, "subject")).findings(environment)
