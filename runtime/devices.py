"""Names of devices: "cpu", "cuda" (the first GPU that CUDA_VISIBLE_DEVICES leaves), "cuda:1"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from headway.core.errors import UsageError

NAME = re.compile(r"(cpu|cuda)(?::(\d{1,4}))?")


class Place(NamedTuple):
    """A device."""

    kind: str
    number: int


def place(device: str) -> Place:
    """Raises UsageError."""
    found = NAME.fullmatch(device)
    if found is None or (found[1] == "cpu" and found[2] is not None):
        raise UsageError("--device", f"unknown '{device}'; wants cpu, cuda, or cuda:1")
    return Place(found[1], int(found[2] or 0))


def places(devices: str | Sequence[str]) -> list[str]:
    """One device, or several GPUs, each once. Raises UsageError."""
    names = [devices] if isinstance(devices, str) else list(devices)
    found = [place(name) for name in names]
    if not names or len(set(found)) < len(found) or (len(found) > 1 and any(p.kind == "cpu" for p in found)):
        raise UsageError("--device", f"wants one device, or several GPUs, not {', '.join(names) or 'none'}")
    return names
