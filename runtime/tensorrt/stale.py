"""Why an engine does not serve, or no longer: another graph, library, GPU or driver than it was built for."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from headway.core.manifest import Bundle
from headway.runtime.tensorrt.key import FORMAT, Key, sha256_of_graph


class Here(NamedTuple):
    """What engines must fit; empty: it is not known, and not asked for."""

    library: str
    version: str
    gpus: Collection[str] = ()
    """names"""
    driver: str = ""


def graphs(bundle: Path, declared: Bundle) -> dict[str, str]:
    """Variants by the SHA-256 of their graphs. Raises BundleError."""
    return {
        sha256_of_graph(declared, bundle, graph): name
        for name, variant in declared.variants.items()
        for graph in variant.graphs.values()
    }


def outlived(key: Key, here: Here) -> str | None:
    """Why an engine for a GPU that is here serves no more. None: it does, or is for another GPU or library."""
    if key.library != here.library or (key.gpu and key.gpu not in here.gpus):
        return None
    if key.format != FORMAT:
        return "was built by another version of headway"
    if not _runs(key.version, here.version):
        return f"was built by {key.library} {key.version}, here is {here.version}"
    if key.driver and here.driver and key.driver != here.driver:
        return f"was built with driver {key.driver}, here is {here.driver}"
    return None


def elsewhere(key: Key, here: Here) -> str | None:
    """Why an engine serves on other machines alone."""
    if key.library != here.library:
        return f"is of {key.library}, here is {here.library}"
    if key.gpu and key.gpu not in here.gpus:
        return f"is for {key.gpu}"
    return None


def _runs(built: str, here: str) -> bool:
    """Whether a version opens what another one built: "11." stands for all of 11."""
    return here.startswith(built) if built.endswith(".") else here == built
