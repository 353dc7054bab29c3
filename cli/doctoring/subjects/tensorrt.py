"""TensorRT: which library is chosen, and which engines of a bundle serve here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.subjects import cuda
from headway.core.errors import BundleError

if TYPE_CHECKING:
    from headway.core.manifest import Bundle
    from headway.runtime.tensorrt.stale import Here

SWITCH = "HEADWAY_TENSORRT"
LIBRARIES = {"tensorrt": cuda.TENSORRT, "tensorrt-rtx": cuda.TENSORRT_RTX}
"""packages of each that can be chosen"""
INSTALL = {"tensorrt": "pip install 'headway[tensorrt]'", "tensorrt-rtx": "pip install tensorrt-rtx"}


def findings(environment: Environment) -> Iterator[Finding]:
    chosen = environment.variables.get(SWITCH)
    name = chosen or "tensorrt"
    if name not in LIBRARIES:
        known = " or ".join(LIBRARIES)
        yield Finding("TensorRT", f"{SWITCH} is {name}, which is none: {known} is", f"unset {SWITCH}")
        return
    version = _version(environment, name)
    if chosen and version is None:
        yield Finding("TensorRT", f"{SWITCH} chooses {name}, which is not installed", INSTALL[name])
    elif chosen:
        yield Finding("TensorRT", f"{SWITCH} chooses {name} {version}")
    if environment.bundle is not None and version is not None:
        yield from _engines(environment, environment.bundle, name, version)


def _version(environment: Environment, library: str) -> str | None:
    found = (d.version for name, d in environment.installed.items() if LIBRARIES[library].fullmatch(name))
    version = next(found, None)
    return None if version is None else version.partition(".post")[0]


def _engines(environment: Environment, folder: Path, library: str, version: str) -> Iterator[Finding]:
    """Of each variant that is made for TensorRT whether an engine serves, and which ones are stale."""
    from headway.core.manifest import Bundle
    from headway.runtime.tensorrt import stale

    try:
        declared = Bundle.read(folder)
        known = stale.graphs(folder, declared)
    except BundleError:
        return  # told of the bundle
    here = stale.Here(library, version, cuda.names(environment), cuda.driver(environment) or "")
    build = f"headway engines {quote(str(folder))}"
    serving = set[str]()
    for variant, at, why, remedy in _each(environment, folder, known, here):
        of = f"of {variant}" if variant else "of no variant"
        if why:
            commands = [build, f"{build} --prune"] if variant else [f"{build} --prune"]
            yield Finding("engine", f"{at.name[:12]} {of} {why}", " && ".join(commands) if remedy else "")
        else:
            serving.add(variant)
            yield Finding("engine", f"{at.name[:12]} {of} serves here")
    for name in _missing(declared, serving) if here.gpus else ():
        state = f"none of {name} is built: another engine serves until one is"
        yield Finding("engine", state, f"{build} --precision {quote(name)}")


def _each(
    environment: Environment, folder: Path, known: dict[str, str], here: Here
) -> Iterator[tuple[str, Path, str | None, bool]]:
    """The bundle's engines, in it and in the cache: variant, place, why it does not serve, whether that is mended."""
    from headway.runtime.tensorrt import stale
    from headway.runtime.tensorrt.store import engines

    own = folder / "engines"
    for place in (own, environment.cache / "headway" / "engines"):
        for record, at in engines(place):
            variant = known.get(record.key.graph, "")
            if variant and (why := stale.elsewhere(record.key, here)):
                yield variant, at, why, False
            elif variant:
                why = stale.outlived(record.key, here)
                yield variant, at, why, True
            elif place == own:
                yield "", at, "was built of a graph that the bundle has no more", True


def _missing(declared: Bundle, serving: set[str]) -> list[str]:
    return [n for n, v in declared.variants.items() if v.target == "tensorrt" and n not in serving]
