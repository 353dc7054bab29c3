"""Plans: how to run a bundle on one machine for a target. `headway tune` writes them beside it, `load` reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec

from headway.core import files, hardware
from headway.core.errors import BundleError
from headway.core.manifest import Count

NAME = "plan.json"
FORMAT = "headway-plan-1"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to run a bundle."""

    precision: str
    backend: str
    threads: Count
    """of each worker"""
    workers: Count
    """of a front, each of which answers requests by itself"""
    batch_tokens: Count
    """padded tokens in a batch of the pipeline, at most"""
    buckets: int = 0
    """as `runtime.backends.base.Engine` has them; 0: the engine's own choice"""
    front_tokens: Count
    """tokens of the requests that a worker of a front takes together, about"""
    p95_ms: float
    """that was wanted"""
    rate: float
    """requests a second that were wanted"""
    measured_p95_ms: float
    highest_rate: float
    """requests a second at which the wanted latency was still held"""


class Plans(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    seal: str
    """of the bundle that was tuned"""
    machines: dict[str, Plan]
    """by `machine_key`"""
    format: str = FORMAT


def machine_key(threads: int) -> str:
    """Of this processor with so many threads for all workers together."""
    told = json.dumps([hardware.cpu_name(), sorted(hardware.cpu_flags()), threads])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def read(folder: Path, seal: str, threads: int) -> Plan | None:
    """The plan for this machine; None if there is none for this very bundle. Raises BundleError if it is malformed."""
    found = _read(folder)
    return None if found is None or found.seal != seal else found.machines.get(machine_key(threads))


def write(folder: Path, seal: str, threads: int, plan: Plan) -> None:
    """Add this machine's plan to those beside the bundle. Raises OutputError or UnavailableError."""
    found = _read(folder)
    kept = {} if found is None or found.seal != seal else found.machines
    plans = Plans(seal=seal, machines=kept | {machine_key(threads): plan})
    with files.whole_file(folder / NAME) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(plans)).decode() + "\n")


def _read(folder: Path) -> Plans | None:
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(folder, f"{NAME} cannot be read: {error.strerror}") from error
    try:
        found = msgspec.json.decode(content, type=Plans)
        if found.format != FORMAT:
            raise msgspec.ValidationError(f"format '{found.format}', this version reads {FORMAT}")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(
            folder, f"{NAME} is malformed ({error}); remove it, or run headway tune again"
        ) from error
    return found
