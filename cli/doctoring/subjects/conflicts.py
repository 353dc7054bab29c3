"""Packages that do not go together: what one asks of another and does not get, and what a broken-off pip left."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from headway.cli.doctoring import distributions
from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.distributions import Distribution
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.subjects import packages
from headway.cli.doctoring.versions import Requirement, allows, requirement

PEERS = {
    "optimum-onnx": "headway exports without it; as a peer it is measured in an environment of its own",
    "optimum-intel": "headway runs OpenVINO without it",
}
"""packages whose pins are known not to fit, and why nobody needs them here"""


def findings(environment: Environment) -> Iterator[Finding]:
    own = {need.name for need in packages.requirements(environment)} | {packages.OWN}
    for package in environment.installed.values():
        if package.name == packages.OWN:
            continue  # the extras tell
        for need in _needs(package):
            there = environment.installed.get(need.name)
            if there and own & {package.name, need.name} and not allows(need.specifiers, there.version):
                yield _conflict(package, need, there, own)
    for path in distributions.remains(environment.site):
        yield Finding("conflict", f"{path.name} was left by a broken-off pip", f"rm -r {quote(str(path))}")


def _needs(package: Distribution) -> Iterator[Requirement]:
    """What a package needs in any case."""
    for line in package.requires():
        try:
            need = requirement(line)
        except ValueError:
            continue
        if not need.extra and not need.conditional:
            yield need


def _conflict(package: Distribution, need: Requirement, there: Distribution, own: set[str]) -> Finding:
    state = f"{package.name} {package.version} wants {need}, and {there.version} is installed"
    if package.name in PEERS:
        return Finding("conflict", f"{state}; {PEERS[package.name]}", f"pip uninstall -y {package.name}")
    if package.name not in own:
        return Finding(
            "conflict", state, f"pip install --upgrade {package.name}, or pip uninstall -y {package.name}"
        )
    return Finding("conflict", state, f"pip install '{need}'")
