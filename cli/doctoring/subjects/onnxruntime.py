"""ONNX Runtime: which build is in use, whether it is whole, and the libraries that its providers would load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from headway.cli.doctoring import builds, libraries
from headway.cli.doctoring.base import Finding, prevents
from headway.cli.doctoring.distributions import Distribution
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.loader import Loader, Resolution

PROVIDERS = {
    "cann": "CANN",
    "cuda": "CUDA",
    "dnnl": "Dnnl",
    "migraphx": "MIGraphX",
    "nv_tensorrt_rtx": "NvTensorRTRTX",
    "openvino": "OpenVINO",
    "qnn": "QNN",
    "rocm": "ROCM",
    "tensorrt": "Tensorrt",
    "vitisai": "VitisAI",
}
"""providers' names by their files'"""
OPENED_LATER = {("cuda", 13): ("libcudnn.so.9",)}
"""libraries that a provider for a CUDA opens when it first needs them"""
SHARED = "libonnxruntime_providers_shared.so"
CODE = re.compile(r"\.(py|pyd|dll|dylib|so(\.[\d.]+)?)$")
SHOWN = 3
"""names of files, of many"""


def findings(environment: Environment) -> Iterator[Finding]:
    found, place = builds.of(environment), builds.folder(environment)
    if place is None and not found:
        return
    whole = [build for build in found if not _lacking(build)]
    if place is None or not found:
        yield _remains(place) if place else _incomplete(found[0])
        return
    if len(found) > 1:
        yield _several(found, whole, place)
    elif not whole:
        yield _incomplete(found[0])
    elif strange := _strangers(found[0], place):
        yield _mixed(found[0], place, strange)
    else:
        yield Finding("onnxruntime", f"{found[0].name} {found[0].version}")
    yield from _providers(environment, (whole or found)[-1], place)


def _lacking(build: Distribution) -> list[str]:
    """Files of its code that are gone, or are another build's."""
    own = {n: size for n, size in build.files().items() if n.startswith(f"{builds.NAME}/") and CODE.search(n)}
    return [name for name, size in own.items() if size is not None and _size(build.site / name) != size]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _strangers(build: Distribution, place: Path) -> list[str]:
    """Files in its folder that it did not bring."""
    listed = build.files()
    there = (p for p in place.rglob("*") if "__pycache__" not in p.parts and p.is_file())
    names = sorted(p.relative_to(build.site).as_posix() for p in there) if place.parent == build.site else []
    return [name for name in names if listed and name not in listed]


def _several(found: list[Distribution], whole: list[Distribution], place: Path) -> Finding:
    named = " and ".join(f"{b.name} {b.version}" for b in found)
    used = builds.said(place, "package_name")
    state = f"{named} are installed into one folder and overwrite each other" + (
        f"; imported is {used}" if used else ""
    )
    remedy = f"pip uninstall -y {' '.join(b.name for b in found)} && pip install 'headway[cpu]'"
    if not whole:
        return prevents("onnxruntime", f"{state}; none of them is whole", remedy, "a whole onnxruntime")
    return Finding("onnxruntime", state, remedy)


def _incomplete(build: Distribution) -> Finding:
    lacking = _lacking(build)
    named = ", ".join(lacking[:SHOWN]) + (" and more" if len(lacking) > SHOWN else "")
    return prevents(
        "onnxruntime",
        f"{build.name} {build.version} is not whole, as after uninstalling another build: gone or changed: {named or 'its folder'}",
        f"pip install --force-reinstall --no-deps {build.name}=={build.version}",
        "a whole onnxruntime",
    )


def _mixed(build: Distribution, place: Path, strange: list[str]) -> Finding:
    named = ", ".join(strange[:SHOWN]) + (" and more" if len(strange) > SHOWN else "")
    return Finding(
        "onnxruntime",
        f"{build.name} {build.version}, with files of another build among its own: {named}",
        f"pip uninstall -y {build.name} && rm -r {quote(str(place))} && pip install {build.name}=={build.version}",
    )


def _remains(place: Path) -> Finding:
    return prevents(
        "onnxruntime",
        f"{place} holds what an uninstalled build left, which Python takes for the package",
        f"rm -r {quote(str(place))} && pip install 'headway[cpu]'",
        "a whole onnxruntime",
    )


def _providers(environment: Environment, build: Distribution, place: Path) -> Iterator[Finding]:
    loader, capi = Loader(environment), place / "capi"
    for file in sorted(capi.glob("onnxruntime_pybind11_state*.so")):
        resolved = loader.resolve(file)
        if resolved.missing or resolved.broken:
            remedy = libraries.remedy(build, resolved)
            yield prevents(
                "CPU provider", libraries.state(loader, resolved), remedy, "onnxruntime's CPU provider"
            )
        else:
            yield Finding("CPU provider", "all libraries found")
    for file in sorted(capi.glob("libonnxruntime_providers_*.so")):
        if file.name != SHARED:
            name = file.stem.removeprefix("libonnxruntime_providers_")
            later = OPENED_LATER.get((name, builds.cuda(environment) or 0), ())
            yield _provider(PROVIDERS.get(name, name), build, loader, loader.resolve(file, later))


def _provider(name: str, build: Distribution, loader: Loader, resolved: Resolution) -> Finding:
    state = libraries.state(loader, resolved)
    return Finding(f"{name} provider", state, libraries.remedy(build, resolved))
