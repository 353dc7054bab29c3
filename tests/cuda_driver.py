"""NVIDIA's driver played on the host: work is done when a stream is waited for and not before, as late as a GPU may be."""

# ruff: noqa: N802

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from headway.runtime import cuda

Work = Callable[[], None]


class Status(Enum):
    """What a call answers."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


OK, WRONG = Status.CUDA_SUCCESS, Status.CUDA_ERROR_INVALID_VALUE
LEGACY = 1
"""CUDA's default stream"""
MAJOR, MINOR = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR"


class Driver:
    """What `headway.runtime.cuda` uses of `cuda.bindings.driver`. Wrong use is answered as the driver does."""

    CUdevice_attribute = SimpleNamespace(**{MAJOR: 0, MINOR: 1})
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(
        self, name: str = "Made Up GPU", capability: tuple[int, int] = (9, 0), memory: int = 1 << 30
    ) -> None:
        self.name, self.capability, self.memory = name, capability, memory
        self.blocks: dict[int, Any] = {}
        """of the GPU's memory, by address"""
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.events: dict[int, tuple[int, threading.Event]] = {}
        """the stream of each, and what is set when it is reached"""
        self.launches = self.instantiated = 0
        self._numbers, self._lock, self._thread = (
            iter(range(16, sys.maxsize)),
            threading.RLock(),
            threading.local(),
        )

    def give(self, stream: Any, work: Work) -> Status:
        """Put work into a stream, or into what it captures."""
        with self._lock:
            if int(stream) == LEGACY:  # always there
                self.streams.setdefault(LEGACY, [])
            if int(stream) not in self.streams:
                return WRONG
            self.capturing.get(int(stream), self.streams[int(stream)]).append(work)
            return OK

    def held(self) -> int:
        """Bytes of the GPU's memory that are taken."""
        return sum(len(block) for block in self.blocks.values())

    def inside(self, address: int, nbytes: int) -> bool:
        """Whether so many bytes from an address on are memory of the GPU that somebody has taken."""
        with self._lock:
            return any(a <= address and address + nbytes <= a + len(b) for a, b in self.blocks.items())

    def current(self) -> bool:
        """Whether the calling thread has a context."""
        return getattr(self._thread, "context", 0) == 1

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        return (OK,)

    def cuDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, 13000

    def cuDeviceGetCount(self) -> tuple[Any, ...]:
        return OK, 1

    def cuDeviceGet(self, index: int) -> tuple[Any, ...]:
        return (OK, 0) if index == 0 else (WRONG, None)

    def cuDeviceGetName(self, most: int, device: int) -> tuple[Any, ...]:
        return OK, self.name.encode().ljust(most, b"\0")

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Any, ...]:
        return OK, self.capability[attribute]

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        return OK, 1

    def cuCtxSetCurrent(self, context: int) -> tuple[Any, ...]:
        self._thread.context = context
        return (OK,)

    def cuMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self.memory - self.held(), self.memory

    def cuMemAlloc(self, nbytes: int) -> tuple[Any, ...]:
        if not self.current():
            return Status.CUDA_ERROR_INVALID_CONTEXT, None
        with self._lock:
            if self.held() + nbytes > self.memory:
                return Status.CUDA_ERROR_OUT_OF_MEMORY, None
            return OK, self._taken(self.blocks, nbytes)

    def cuMemFree(self, address: int) -> tuple[Any, ...]:
        return (OK if self.blocks.pop(address, None) is not None else WRONG,)

    def cuMemHostAlloc(self, nbytes: int, flags: int) -> tuple[Any, ...]:
        return OK, self._taken(self.pinned, nbytes)

    def cuMemFreeHost(self, address: int) -> tuple[Any, ...]:
        return (OK if self.pinned.pop(address, None) is not None else WRONG,)

    def _taken(self, kind: dict[int, Any], nbytes: int) -> int:
        block = (ctypes.c_byte * nbytes)(*(b"\x5a" * min(nbytes, 64)))  # anything
        kind[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def cuMemcpyHtoDAsync(self, to: int, of: int, nbytes: int, stream: int) -> tuple[Any, ...]:
        if not self.inside(to, nbytes):
            return (Status.CUDA_ERROR_ILLEGAL_ADDRESS,)
        return (self.give(stream, lambda: self._copy(to, of, nbytes)),)

    def cuMemcpyDtoHAsync(self, to: int, of: int, nbytes: int, stream: int) -> tuple[Any, ...]:
        if not self.inside(of, nbytes):
            return (Status.CUDA_ERROR_ILLEGAL_ADDRESS,)
        return (self.give(stream, lambda: self._copy(to, of, nbytes)),)

    def cuMemsetD8Async(self, to: int, value: int, nbytes: int, stream: int) -> tuple[Any, ...]:
        if not self.inside(to, nbytes):
            return (Status.CUDA_ERROR_ILLEGAL_ADDRESS,)
        return (self.give(stream, lambda: ctypes.memset(to, value, nbytes) and None),)

    def cuMemcpyDtoDAsync(self, to: int, of: int, nbytes: int, stream: int) -> tuple[Any, ...]:
        if not self.inside(of, nbytes) or not self.inside(to, nbytes):
            return (Status.CUDA_ERROR_ILLEGAL_ADDRESS,)
        return (self.give(stream, lambda: self._copy(to, of, nbytes)),)

    def _copy(self, to: int, of: int, nbytes: int) -> None:
        ctypes.memmove(to, of, nbytes)

    def cuStreamCreate(self, flags: int) -> tuple[Any, ...]:
        if not self.current():
            return Status.CUDA_ERROR_INVALID_CONTEXT, None
        number = next(self._numbers)
        self.streams[number] = []
        return OK, number

    def cuStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return (OK if self.streams.pop(stream, None) is not None else WRONG,)

    def cuStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        with self._lock:
            if stream in self.capturing:
                return (Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
            return (self._do(stream, len(self.streams[stream])),)

    def _do(self, stream: int, count: int) -> Status:
        """The first pieces of a stream's work."""
        for _ in range(count):
            self.streams[stream].pop(0)()
        return OK

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        if stream in self.capturing:
            return (Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        self.capturing[stream] = []
        return (OK,)

    def cuStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        work = self.capturing.pop(stream, None)
        return (WRONG, None) if work is None else (OK, work)

    def cuGraphInstantiate(self, captured: list[Work], flags: int) -> tuple[Any, ...]:
        with self._lock:
            number = next(self._numbers)
            self.graphs[number] = list(captured)
            self.instantiated += 1
            return OK, number

    def cuGraphDestroy(self, captured: list[Work]) -> tuple[Any, ...]:
        captured.clear()
        return (OK,)

    def cuGraphExecDestroy(self, graph: int) -> tuple[Any, ...]:
        return (OK if self.graphs.pop(graph, None) is not None else WRONG,)

    def cuGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:
        work = self.graphs[graph]
        with self._lock:
            self.launches += 1
        return (self.give(stream, lambda: [each() for each in work] and None),)

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:
        number = next(self._numbers)
        return OK, number

    def cuEventDestroy(self, event: int) -> tuple[Any, ...]:
        return (OK if self.events.pop(event, None) is not None else WRONG,)

    def cuEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        mark = threading.Event()
        self.events[event] = stream, mark
        return (self.give(stream, mark.set),)

    def cuEventSynchronize(self, event: int) -> tuple[Any, ...]:
        return (self._until(*self.events[event]),)

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        moment = self.events[event]  # of an event that may be destroyed by then
        return (self.give(stream, lambda: self._until(*moment) and None),)

    def _until(self, stream: int, mark: threading.Event) -> Status:
        with self._lock:
            while not mark.is_set():
                self._do(stream, 1)
            return OK


def installed(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Driver:
    """The driver that `headway.runtime.cuda` finds from now on."""
    driver = Driver(**changes)
    monkeypatch.setitem(sys.modules, cuda.BINDINGS, driver)  # type: ignore[arg-type]  # plays a module
    monkeypatch.setattr(cuda, "RELEASE", cuda.RELEASE / "none")
    return driver
