"""What headway's extras need, as its own metadata says, and what of it is installed in which version."""

from __future__ import annotations

from collections.abc import Iterator

from headway.cli.doctoring import builds
from headway.cli.doctoring.base import Finding, prevents
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.versions import Requirement, allows, requirement

OWN = "headway"
LEFT_OUT = ("dev",)
"""extras that users have no need of"""
ENGINES = ("onnxruntime", "openvino")


def findings(environment: Environment) -> Iterator[Finding]:
    needs = requirements(environment)
    if not needs:
        yield Finding(
            "packages", "headway's own metadata is missing", "pip install --force-reinstall --no-deps headway"
        )
    for extra in dict.fromkeys(need.extra for need in needs):
        if extra not in LEFT_OUT:
            yield _extra(environment, extra, [need for need in needs if need.extra == extra])
    if not builds.of(environment) and "openvino" not in environment.installed:
        yield prevents(
            "engine", "none is installed: no bundle runs", "pip install 'headway[cpu]'", "an engine"
        )


def requirements(environment: Environment) -> list[Requirement]:
    """What headway's own metadata asks for, other extras of its own left out."""
    own = environment.installed.get(OWN)
    needs = [requirement(line) for line in own.requires()] if own else []
    return [need for need in needs if need.name != OWN]


def _extra(environment: Environment, extra: str, needs: list[Requirement]) -> Finding:
    have = [
        f"{name} {version}" for need in needs for name, version in [_installed(environment, need)] if version
    ]
    lack = [need.name for need in needs if not _installed(environment, need)[1]]
    wrong = [
        f"{name} {version} (not {need.specifiers})"
        for need in needs
        for name, version in [_installed(environment, need)]
        if version and not allows(need.specifiers, version)
    ]
    subject, remedy = (
        (f"[{extra}]", f"pip install 'headway[{extra}]'") if extra else ("packages", f"pip install {OWN}")
    )
    if wrong:
        return Finding(subject, f"wrong versions: {', '.join(wrong)}", remedy)
    if lack:
        return Finding(subject, f"without {', '.join(lack)}", remedy)
    return Finding(subject, ", ".join(have))


def _installed(environment: Environment, need: Requirement) -> tuple[str, str]:
    """Name and version of what fills a need; of onnxruntime any build does. Empty version: nothing."""
    found = environment.installed.get(need.name)
    if found is None and need.name == builds.NAME:
        found = next(iter(builds.of(environment)), None)
    return (found.name, found.version) if found else (need.name, "")
