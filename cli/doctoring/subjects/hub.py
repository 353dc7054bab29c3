"""The hub and caches: whether models can be fetched by name, and from where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""switches that keep the hub's library off the network"""
DATASETS = "HF_DATASETS_OFFLINE"
MEASURING = "HEADWAY_CACHE"


def findings(environment: Environment) -> Iterator[Finding]:
    switches = [name for name in OFFLINE if environment.is_on(name)]
    folder = Path(environment.variables.get("HF_HUB_CACHE") or environment.hub / "hub")
    models = _models(folder)
    if switches:
        state = f"offline ({', '.join(switches)}): by name only what is in {folder} can be opened: {len(models)} models"
        yield Finding(
            "hub", state, "" if models else f"unset {' '.join(switches)}, or give models as folders"
        )
    else:
        yield Finding("hub", f"{_endpoint(environment)}models and bundles by name are kept in {folder}")
    if environment.is_on(DATASETS) and not switches:
        yield Finding("hub", f"{DATASETS} is on: data sets by name only from the cache", f"unset {DATASETS}")
    if environment.variables.get(MEASURING) == "off":
        yield Finding("choice", f"{MEASURING}=off: precision and engine are chosen by rule, not by measuring")


def _models(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.name.startswith("models--"))
    except OSError:
        return []


def _endpoint(environment: Environment) -> str:
    """The host alone: the address may hold a secret."""
    host = urlsplit(environment.variables.get("HF_ENDPOINT", "")).hostname
    return f"HF_ENDPOINT is {host}; " if host else ""
