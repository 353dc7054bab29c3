"""Builds of ONNX Runtime: packages of several names that put their files into one folder."""

from __future__ import annotations

import re
from pathlib import Path

from headway.cli.doctoring.distributions import Distribution
from headway.cli.doctoring.environment import Environment

NAME = "onnxruntime"
STARTS = (NAME, "ort-")
FIRST = f"{NAME}/__init__.py"
"""a file that each build has, and onnxruntime-genai or -extensions have not"""


def of(environment: Environment) -> list[Distribution]:
    """The builds that are installed."""
    named = [d for name, d in environment.installed.items() if name.startswith(STARTS)]
    return [d for d in named if FIRST in (d.files() or (FIRST if d.name == NAME else ()))]


def folder(environment: Environment) -> Path | None:
    """Where the files of all builds lie; None: there are none."""
    places = (site / NAME for site in environment.site)
    return next((place for place in places if place.is_dir() and any(place.iterdir())), None)


def said(place: Path, key: str) -> str:
    """What the files say of themselves, under "package_name" or "cuda_version"; empty: nothing."""
    try:
        content = (place / "capi" / "build_and_package_info.py").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(rf"^{key} = ['\"]([^'\"]*)['\"]", content, re.MULTILINE)
    return found[1] if found else ""


def cuda(environment: Environment) -> int | None:
    """The major version of CUDA that the build in use was made for; None: for none."""
    place = folder(environment)
    major = said(place, "cuda_version").partition(".")[0] if place else ""
    return int(major) if major.isdecimal() else None
