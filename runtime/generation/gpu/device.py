"""What graphs of models that write need on a GPU: tensors with names and places, memory in one piece, few sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headway.core.manifest import Graph, Tensor
from headway.runtime.cuda import Device, Stream
from headway.runtime.fork_safety import ForkSafeLock

STORED: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,  # its bits, as numpy has no such type
    "int64": np.int64,
}
"""types of tensors, by what the host holds them in"""
ALIGNED = 256
"""bytes at whose multiples tensors begin"""


class Bound(NamedTuple):
    """Where a tensor lies, and its shape."""

    pointer: int
    shape: tuple[int, ...]


class OnGpu(Protocol):
    """An opened graph on a GPU."""

    @property
    def kinds(self) -> Mapping[str, str]:
        """Type of each input and output, one of STORED."""
        ...

    def prepared(self, tensors: Mapping[str, Bound]) -> Any:
        """What it takes to run the graph on these inputs and outputs."""
        ...

    def execute(self, context: Any) -> None:
        """Give the stream the work. Raises UnavailableError."""
        ...


@dataclass(frozen=True)
class Place:
    """A GPU, and the stream that all work of a model goes through, one caller at a time."""

    device: Device
    stream: Stream
    lock: ForkSafeLock
    """that one thread may take several times"""
    cuda: Any
    """headway.cpp_ext.cuda"""

    @classmethod
    def on(cls, device: Device, cuda: Any) -> Place:
        return cls(device, device.stream(), ForkSafeLock(RLock), cuda)


class Memory:
    """Arrays of a GPU and of the host, by name, each side in one piece that begins as zeros."""

    def __init__(
        self, place: Place, device: Mapping[str, int], host: Mapping[str, tuple[tuple[int, ...], str]]
    ) -> None:
        """
        Args:
            device: bytes of each array of the GPU.
            host: shape and type, one of STORED, of each array of the host's.
        Raises:
            UnavailableError: so much is not free.
        """
        counts = {name: math.prod(shape) * width(kind) for name, (shape, kind) in host.items()}
        at, nbytes = _places(device.items())
        host_at, host_bytes = _places(counts.items())
        self.buffer = place.device.empty(nbytes)
        self.nbytes = nbytes
        self.at = {name: self.buffer.pointer + offset for name, offset in at.items()}
        with place.lock:
            place.stream.clear(self.buffer.pointer, nbytes)  # what is masked must not be infinite
        whole = place.device.pinned(max(1, host_bytes), np.uint8)
        self.host: dict[str, NDArray[Any]] = {}
        for name, (shape, kind) in host.items():
            part = whole[host_at[name] : host_at[name] + counts[name]].view(STORED[kind])
            self.host[name] = part.reshape(shape)
            self.host[name][...] = 0


def _places(sizes: Iterable[tuple[str, int]]) -> tuple[dict[str, int], int]:
    """Offset of each, and the bytes of all."""
    found, end = dict[str, int](), 0
    for name, nbytes in sizes:
        found[name] = end
        end += -(-nbytes // ALIGNED) * ALIGNED
    return found, end


def width(kind: str) -> int:
    """Bytes of a number."""
    return np.dtype(STORED[kind]).itemsize


def shaped(graph: Graph, named: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each input and output, its named dimensions being so large."""
    return {t.name: sizes(t, named) for t in (*graph.inputs, *graph.outputs)}


def sizes(tensor: Tensor, named: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(named[size] if isinstance(size, str) else size for size in tensor.shape)


def rounded(count: int, least: int) -> int:
    """The first of `least` · 1, 2, 3, 4, 6, 8, 12 … that is enough, so that shapes are few."""
    octave = least
    while octave < count:
        if 2 * least <= octave and octave * 3 // 2 >= count:
            return octave * 3 // 2
        octave *= 2
    return octave


def as_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers as the host holds them, in fp32."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
