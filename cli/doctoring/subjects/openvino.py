"""OpenVINO: its version, and whether its plugin for processors finds its libraries."""

from __future__ import annotations

from collections.abc import Iterator

from headway.cli.doctoring import libraries
from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.loader import Loader

PLUGIN = "openvino/libs/libopenvino_intel_cpu_plugin.so"


def findings(environment: Environment) -> Iterator[Finding]:
    package = environment.installed.get("openvino")
    if package is None:
        return
    plugin, loader = package.site / PLUGIN, Loader(environment)
    resolved = loader.resolve(plugin)
    state, remedy = libraries.state(loader, resolved), libraries.remedy(package, resolved)
    if resolved.missing:
        remedy = f"pip install --force-reinstall {package.name}=={package.version}"
    yield Finding("openvino", f"{package.version}, {state}", remedy)
    if (older := environment.installed.get("openvino-dev")) is not None:
        yield Finding(
            "openvino",
            f"openvino-dev {older.version} belongs to an older openvino and overwrites parts of it",
            f"pip uninstall -y openvino-dev && pip install --force-reinstall {package.name}=={package.version}",
        )
