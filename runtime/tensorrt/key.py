"""What an engine is known by: it fits only the GPU, driver, library and graph that it was built for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from headway.core.errors import BundleError
from headway.core.manifest import Bundle
from headway.runtime.cuda import Device
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt.library import Library
from headway.runtime.tensorrt.ranges import Profile

FORMAT = 1
"""of the folders that engines lie in, and of the way in which they are built"""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to build an engine. Any that fits serves, however it was built."""

    shapes: Shapes
    ranges: list[Profile] = []
    """of a model that writes: profiles, by the inputs' names; none: those of `shapes`"""
    version_compatible: bool = False
    """the engine also runs on later TensorRTs of the same major version; it carries a runtime of its own"""
    strip: bool = False
    """the engine holds no weights; they are put in from the graph whenever it is opened"""
    workspace: int | None = None
    """bytes of the GPU's memory for what a layer needs while it runs, at most; none: TensorRT's own limit"""


class Target(msgspec.Struct, frozen=True):
    """What an engine is to run on."""

    gpu: str
    """its name"""
    capability: tuple[int, int]
    """as (9, 0)"""
    driver: str

    @classmethod
    def of(cls, device: Device) -> Target:
        return cls(device.name, device.capability, device.release)


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Engines with equal keys are the same."""

    graph: str
    """SHA-256 over the graph's files"""
    library: str
    version: str
    """of the library; "11." for all versions of 11 that an engine is compatible with"""
    gpu: str
    """its name; empty: any of that capability"""
    capability: tuple[int, int]
    driver: str
    """empty: any"""
    format: int = FORMAT

    @classmethod
    def of(cls, graph: str, library: Library, target: Target, version_compatible: bool = False) -> Key:
        version = f"{library.version.partition('.')[0]}." if version_compatible else library.version
        gpu, driver = ("", "") if library.portable else (target.gpu, target.driver)
        return cls(
            graph=graph,
            library=library.name,
            version=version,
            gpu=gpu,
            capability=target.capability,
            driver=driver,
        )

    @property
    def name(self) -> str:
        """Of the engine's folder: the same for equal keys, and for no others."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]


def sha256_of_graph(declared: Bundle, folder: Path, name: str) -> str:
    """SHA-256 over what the manifest says of a graph's file and of the weights beside it. Raises BundleError."""
    parts = sorted(file for file in declared.files if file == name or file.startswith(f"{name}."))
    if name not in parts:
        raise BundleError(folder, f"{name} is used but not listed in its manifest")
    lines = [f"{declared.files[part].sha256}  {Path(part).name}\n" for part in parts]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
