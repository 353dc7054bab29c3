"""What a resolution of shared libraries means in words, and the command that brings what is missing."""

from __future__ import annotations

import re
from shlex import quote

from headway.cli.doctoring.distributions import Distribution
from headway.cli.doctoring.loader import Loader, Resolution

DRIVER = "libcuda.so.1"
DRIVER_REMEDY = (
    "install NVIDIA's driver (nvidia-smi shows it), or start the container with docker run --gpus all"
)
WHEELS = {
    "libcudart": "nvidia-cuda-runtime",
    "libnvrtc": "nvidia-cuda-nvrtc",
    "libnvJitLink": "nvidia-nvjitlink",
    "libcublas": "nvidia-cublas",
    "libcublasLt": "nvidia-cublas",
    "libcudnn": "nvidia-cudnn",
    "libcufft": "nvidia-cufft",
    "libcurand": "nvidia-curand",
    "libcusparse": "nvidia-cusparse",
    "libcusolver": "nvidia-cusolver",
}
"""packages by the libraries that they bring"""
ALWAYS_NAMED = ("nvidia-cudnn",)
"""packages whose name holds the version of CUDA after 12 too"""
TENSORRT = ("libnvinfer", "libnvonnxparser")
NAME = re.compile(r"([\w-]+)\.so(?:\.(\d+))?")


def state(loader: Loader, resolved: Resolution) -> str:
    """What was found and what was not."""
    if resolved.broken:
        return f"damaged: {', '.join(p.name for p in resolved.broken)}"
    if resolved.missing:
        return f"cannot load: {', '.join(_missing(loader, name) for name in resolved.missing)} not found"
    if resolved.preloaded:
        return (
            f"{', '.join(resolved.preloaded)} are in packages where the loader does not look: "
            "`import torch` or onnxruntime.preload_dlls() must come first"
        )
    return "all libraries found"


def _missing(loader: Loader, name: str) -> str:
    others = loader.versions(name)
    return f"{name} (here is {', '.join(others)})" if others else name


def remedy(build: Distribution, resolved: Resolution) -> str:
    """The commands that bring what `build` lacks; empty: nothing."""
    if resolved.broken:
        return f"pip install --force-reinstall --no-deps {build.name}=={build.version}"
    if resolved.missing:
        return "; ".join(_commands(build, resolved.missing))
    if resolved.preloaded:
        folders = dict.fromkeys(str(path.parent) for path in resolved.preloaded.values())
        return f"export LD_LIBRARY_PATH={quote(':'.join(folders))}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
    return ""


def _commands(build: Distribution, missing: list[str]) -> list[str]:
    named = {name: NAME.match(name) for name in missing}
    stems = {name: (found[1], found[2] or "") for name, found in named.items() if found}
    said, packages, engines, others = list[str](), list[str](), list[str](), list[str]()
    major = _cuda(build, stems)
    for name, (stem, version) in stems.items():
        if name == DRIVER:
            said.append(DRIVER_REMEDY)
        elif stem in TENSORRT:
            engines.append(f"'tensorrt-cu{major}=={version}.*'")
        elif stem in WHEELS:
            packages.append(_wheel(WHEELS[stem], major, version))
        else:
            others.append(name)
    if packages and {"cuda", "cudnn"} <= set(build.extras()):
        packages = [f"'{build.name}[cuda,cudnn]=={build.version}'"]
    if packages:
        said.append(f"pip install {' '.join(dict.fromkeys(packages))}")
    if engines:
        said.append(f"in an environment of its own: pip install {' '.join(dict.fromkeys(engines))}")
    if others:
        said.append(
            f"find / -name '{others[0]}*' and add its folder to LD_LIBRARY_PATH, or install what brings {', '.join(others)}"
        )
    return said


def _cuda(build: Distribution, stems: dict[str, tuple[str, str]]) -> str:
    """CUDA's major version, by the libraries that carry it in their names."""
    for stem, version in stems.values():
        if stem in ("libcudart", "libcublas", "libcublasLt") and version:
            return version
    return "13" if "cuda" in build.extras() else "12"


def _wheel(package: str, major: str, version: str) -> str:
    """A package that brings a library of a version, for a CUDA: from 13 on most names are without it."""
    name = f"{package}-cu{major}" if major == "12" or package in ALWAYS_NAMED else package
    return f"'{name}=={version}.*'" if version else name
