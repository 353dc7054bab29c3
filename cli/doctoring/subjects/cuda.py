"""NVIDIA's driver, CUDA, cuDNN and TensorRT: versions, and which of them do not go together.

Least drivers: docs.nvidia.com/deploy/cuda-compatibility, "minor version compatibility".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from headway.cli.doctoring import builds, libraries
from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.loader import Loader
from headway.cli.doctoring.versions import number

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""the first driver that runs programs made for a major version of CUDA"""
UNKNOWN = "of unknown version"
VERSION = re.compile(r"Module\b.*?\s(\d{3,}(?:\.\d+)+)")
LIBRARY = re.compile(r"libcuda\.so\.(\d{3,}(?:\.\d+)+)")
TORCH_CUDA = re.compile(r"^cuda\b[^=\n]*= ['\"](\d+)", re.MULTILINE)
TENSORRT = re.compile(r"tensorrt(-cu(\d+))?(-libs|-bindings)?")
TENSORRT_RTX = re.compile(r"tensorrt-rtx(-cu\d+)?(-libs|-bindings)?")


def findings(environment: Environment) -> Iterator[Finding]:
    loader, made_for = Loader(environment), _made_for(environment)
    running, (library, compatibility) = driver(environment), _library(loader)
    if running is None and library is None:
        yield Finding("GPU", "no NVIDIA driver")
        if builds.cuda(environment):
            unused = "onnxruntime is built for CUDA, and nothing here can use that"
            yield Finding("GPU", unused, libraries.DRIVER_REMEDY)
    else:
        by = f", by a compatibility package as {library}" if compatibility else ""
        yield Finding("GPU", f"{_models(environment)}, driver {running or library}{by}")
        if running and not compatibility:
            yield from _library_of(running, library)
        yield from _too_old(library or str(running), made_for)
    yield from _versions(environment, loader)
    yield from _mismatches(environment, made_for, gpu=bool(running or library))


def _library_of(driver: str, library: str | None) -> Iterator[Finding]:
    if library is None:
        state = f"the driver is loaded, but {libraries.DRIVER} is not here, as in a container without it"
        yield Finding("GPU", state, "docker run --gpus all …")
    elif library not in (driver, UNKNOWN):
        state = f"the kernel runs driver {driver}, its library is {library}: it was updated since"
        yield Finding("GPU", state, "sudo reboot")


def _too_old(version: str, made_for: dict[str, int]) -> Iterator[Finding]:
    for name, major in made_for.items():
        least = LEAST_DRIVER.get(major)
        if version != UNKNOWN and least and number(version)[0] < least:
            yield Finding(
                "GPU",
                f"{name} is made for CUDA {major}, which needs driver {least} or newer, not {version}",
                f"install NVIDIA's driver {least} or newer, or a {name} made for CUDA {_newest(version)}",
            )


def _newest(driver: str) -> str:
    able = [major for major, least in LEAST_DRIVER.items() if least <= number(driver)[0]]
    return str(max(able)) if able else "10 or older"


def _versions(environment: Environment, loader: Loader) -> Iterator[Finding]:
    """What is here, by the packages' versions or the files' names."""
    installed = environment.installed
    tensorrt = [f"{d.name} {d.version}" for name, d in installed.items() if name.startswith("tensorrt")]
    wheels = [f"{d.name} {d.version}" for name, d in installed.items() if name.startswith("nvidia-cudnn")]
    runtimes = loader.versions("libcudart")
    files = [*runtimes, *(loader.versions("libcudnn") if not wheels else [])]
    here = [*files, *wheels, *(tensorrt or loader.versions("libnvinfer"))]
    if here:
        yield Finding("CUDA", ", ".join(here))


def _mismatches(environment: Environment, made_for: dict[str, int], gpu: bool) -> Iterator[Finding]:
    torch, engine = made_for.get("torch"), builds.cuda(environment)
    if torch and engine and torch != engine:
        yield Finding(
            "CUDA",
            f"torch is made for CUDA {torch} and onnxruntime for CUDA {engine}: `import torch` does not load what onnxruntime needs",
            "pip install 'onnxruntime-gpu[cuda,cudnn]'"
            if engine >= 13
            else "pip install --upgrade onnxruntime-gpu",
        )
    package = environment.installed.get("torch")
    if gpu and package and torch is None:
        yield Finding(
            "CUDA",
            f"torch {package.version} is made for processors alone: training leaves the GPU idle",
            "pip uninstall -y torch && pip install 'headway[train]', from an index whose torch is made for CUDA",
        )
    parts = {d.version for name, d in environment.installed.items() if TENSORRT.fullmatch(name)}
    kinds = {found[2] for name in environment.installed if (found := TENSORRT.fullmatch(name)) and found[2]}
    names = " ".join(name for name in environment.installed if TENSORRT.fullmatch(name))
    if len(parts) > 1 or len(kinds) > 1:
        newest, major = max(parts, key=number), max(kinds, default="13")
        yield Finding(
            "TensorRT",
            f"parts of several TensorRTs: {names} in versions {', '.join(sorted(parts))}",
            f"pip uninstall -y {names} && pip install tensorrt-cu{major}=={newest}",
        )


def driver(environment: Environment) -> str | None:
    """The kernel's."""
    try:
        found = VERSION.search((environment.proc / "driver" / "nvidia" / "version").read_text())
    except OSError:
        return None
    return found[1] if found else None


def _library(loader: Loader) -> tuple[str | None, bool]:
    """Of the library that programs load; and whether it is a compatibility package's, meant for older kernels."""
    path = loader.find(libraries.DRIVER)
    if path is None:
        return None, False
    found = LIBRARY.fullmatch(path.resolve().name)
    return (found[1] if found else UNKNOWN), "compat" in path.parts


def _models(environment: Environment) -> str:
    found = names(environment)
    return ", ".join(f"{found.count(name)} × {name}" for name in dict.fromkeys(found)) or "an NVIDIA GPU"


def names(environment: Environment) -> list[str]:
    """Of the GPUs."""
    found: list[str] = []
    for file in sorted((environment.proc / "driver" / "nvidia" / "gpus").glob("*/information")):
        lines = file.read_text(errors="replace").splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found


def _made_for(environment: Environment) -> dict[str, int]:
    """The major version of CUDA that each package was made for."""
    made: dict[str, int] = {}
    if (engine := builds.cuda(environment)) is not None:
        made["onnxruntime"] = engine
    torch = environment.installed.get("torch")
    if torch and (major := _torch(torch.site / "torch" / "version.py")) is not None:
        made["torch"] = major
    for name in environment.installed:
        if (found := TENSORRT.fullmatch(name)) and found[2]:
            made["tensorrt"] = int(found[2])
    return made


def _torch(version: Path) -> int | None:
    try:
        found = TORCH_CUDA.search(version.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found else None
