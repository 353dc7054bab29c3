"""The backend interface: what every engine must offer. One file per engine beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from headway.core import siblings
from headway.core.manifest import Graph
from headway.runtime.devices import place
from headway.runtime.ragged import Ragged

FAMILY = "headway.runtime.backends"

Outputs = dict[str, NDArray[np.float32]]
"""the graph's outputs by name, each (B, …), in the order of the batch's rows"""


class Backend(Protocol):
    """One opened graph on one device."""

    @property
    def pads(self) -> bool:
        """Whether a batch takes as long as its longest text for each; False: only its tokens count."""
        ...

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        """Outputs of each batch, in order. Whether and how to pad, and how to use the threads, is its own matter.

        A row's outputs never depend on the other rows. Safe to call from several threads at once.
        """
        ...


class Engine(Protocol):
    """What each module of this family defines."""

    DEVICES: tuple[str, ...]
    """kinds of device that it runs on: "cpu", "cuda" """
    TARGET: str
    """`--target` of the variants that are made for it"""
    PACKAGE: str
    """the module that it needs"""
    BUCKETS: tuple[int, ...]
    """lengths from one power of two to the next that it may pad to, its own choice first; empty: it takes any length"""

    def open_graph(
        self,
        graph: Path,
        declared: Graph,
        read: Sequence[str],
        pad_id: int,
        device: str,
        threads: int,
        buckets: int = 0,
    ) -> Backend:
        """Open a verified ONNX file on exactly this device, to read the outputs of these names.

        `buckets`: one of `BUCKETS`; 0, and where there are none: the engine's own choice.

        Raises UnavailableError or BundleError.
        """
        ...


def load_engine(name: str) -> Engine:
    """The engine of that name. Raises UsageError."""
    return cast(Engine, siblings.load(FAMILY, name, "--backend"))


def engines_for(device: str) -> list[str]:
    """Names of the engines that run on a device. Raises UsageError if there is no such device."""
    kind = place(device).kind
    return [name for name in siblings.names(FAMILY) if kind in load_engine(name).DEVICES]
