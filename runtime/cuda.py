"""One NVIDIA GPU: its memory, streams, events and graphs, by the driver's own calls through `cuda.bindings`.

Importing this file loads nothing, so that machines without a GPU have it, too; only opening a `Device` needs one.
Any thread may call any method, but a stream serves one caller at a time. The calls: docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headway.core.errors import UnavailableError

BINDINGS = "cuda.bindings.driver"
INSTALL = "pip install cuda-bindings, on a machine with an NVIDIA GPU and its driver; or use --device cpu"
RELEASE = Path("/sys/module/nvidia/version")
"""where Linux tells the release of NVIDIA's driver"""
PORTABLE = 1
"""CU_MEMHOSTALLOC_PORTABLE: pinned memory for all contexts"""


def available() -> bool:
    """Whether there is a GPU that a `Device` can be opened on."""
    try:
        return int(Driver().call("cuDeviceGetCount")) > 0
    except UnavailableError:
        return False


class Driver:
    """NVIDIA's driver."""

    def __init__(self) -> None:
        """Raises UnavailableError."""
        try:
            self._calls = importlib.import_module(BINDINGS)
            self.call("cuInit", 0)
        except (
            ImportError,
            RuntimeError,
        ) as error:  # no package; no driver, or an older one than the package
            raise UnavailableError("device 'cuda'", INSTALL) from error

    def call(self, name: str, *arguments: Any) -> Any:
        """What a call gives. Raises UnavailableError, which names the call and the driver's answer."""
        status, *given = getattr(self._calls, name)(*arguments)
        if status.name == "CUDA_ERROR_OUT_OF_MEMORY":
            raise UnavailableError(f"memory for {name}", "end what else uses the GPU, or use smaller batches")
        if status.name != "CUDA_SUCCESS":
            raise UnavailableError(f"device 'cuda' ({name}: {status.name})", "ask headway doctor")
        return given[0] if len(given) == 1 else given

    def constant(self, kind: str, name: str) -> Any:
        """A member of one of the driver's enumerations."""
        return getattr(getattr(self._calls, kind), name)


class Device:
    """A GPU, in the context that all libraries of a process share."""

    def __init__(self, index: int = 0) -> None:
        """`index` counts the GPUs that CUDA_VISIBLE_DEVICES leaves. Raises UnavailableError."""
        self.driver, self._process = Driver(), os.getpid()
        if not 0 <= index < int(self.driver.call("cuDeviceGetCount")):
            raise UnavailableError(f"device 'cuda' number {index}", "choose another; or use --device cpu")
        device = self.driver.call("cuDeviceGet", index)
        self.index = index
        self.name = self.driver.call("cuDeviceGetName", 256, device).rstrip(b"\0").decode()
        self.capability = (self._number(device, "MAJOR"), self._number(device, "MINOR"))
        """as (9, 0)"""
        self.release = _release() or f"for CUDA {self.driver.call('cuDriverGetVersion')}"
        """of NVIDIA's driver, as "580.82.07" """
        self._context = self.driver.call("cuDevicePrimaryCtxRetain", device)  # as long as the process

    def _number(self, device: Any, part: str) -> int:
        name = f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"
        attribute = self.driver.constant("CUdevice_attribute", name)
        return int(self.driver.call("cuDeviceGetAttribute", attribute, device))

    def use(self) -> None:
        """Make it the GPU of the calling thread, for libraries that ask which one that is.

        Raises UnavailableError in a forked child, as CUDA does not survive a fork.
        """
        if os.getpid() != self._process:
            raise UnavailableError(
                "a GPU that was opened before the process forked", "load the bundle after the fork"
            )
        self.driver.call("cuCtxSetCurrent", self._context)

    def call(self, name: str, *arguments: Any) -> Any:
        """A call of the driver on this GPU."""
        self.use()
        return self.driver.call(name, *arguments)

    def free(self) -> int:
        """Bytes of memory that nobody has taken."""
        return int(self.call("cuMemGetInfo")[0])

    def empty(self, nbytes: int) -> Buffer:
        """Memory of the GPU with anything in it. Raises UnavailableError if so much is not free."""
        return Buffer(self, nbytes)

    def pinned(self, shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array of the host's that streams copy from and to while the host goes on."""
        kind, sizes = np.dtype(dtype), (shape,) if isinstance(shape, int) else tuple(shape)
        count = math.prod(sizes)
        address = int(self.call("cuMemHostAlloc", count * kind.itemsize, PORTABLE))
        memory = (ctypes.c_byte * (count * kind.itemsize)).from_address(address)
        weakref.finalize(memory, _give_back, self, "cuMemFreeHost", address)
        return np.frombuffer(memoryview(memory), kind).reshape(sizes)  # all its views keep `memory`

    def stream(self) -> Stream:
        """A queue of work of its own."""
        return Stream(self)


class Buffer:
    """Memory of a GPU; it is given back when nobody holds the object any more."""

    def __init__(self, device: Device, nbytes: int) -> None:
        self.nbytes = nbytes
        self.pointer = int(device.call("cuMemAlloc", max(1, nbytes)))
        weakref.finalize(self, _give_back, device, "cuMemFree", self.pointer)


class Stream:
    """Work that a GPU does in the order in which it was given, while the caller goes on."""

    def __init__(self, device: Device) -> None:
        self.device = device
        flags = device.driver.constant("CUstream_flags", "CU_STREAM_NON_BLOCKING")
        self._handle = device.call("cuStreamCreate", flags)  # waits for no other stream
        self.pointer = int(self._handle)
        weakref.finalize(self, _give_back, device, "cuStreamDestroy", self._handle)

    def upload(self, array: NDArray[Any], pointer: int) -> None:
        """Copy a contiguous array to memory of the GPU. It must stay as it is until then, and be pinned not to wait."""
        assert array.flags.c_contiguous
        self.device.call("cuMemcpyHtoDAsync", pointer, array.ctypes.data, array.nbytes, self._handle)

    def download(self, pointer: int, array: NDArray[Any]) -> None:
        """Fill a contiguous array from memory of the GPU, by the time that the stream is waited for."""
        assert array.flags.c_contiguous
        self.device.call("cuMemcpyDtoHAsync", array.ctypes.data, pointer, array.nbytes, self._handle)

    def clear(self, pointer: int, nbytes: int) -> None:
        """Fill memory of the GPU with zeros."""
        self.device.call("cuMemsetD8Async", pointer, 0, nbytes, self._handle)

    def copy(self, to: int, pointer: int, nbytes: int) -> None:
        """Copy from memory of the GPU to other memory of it."""
        self.device.call("cuMemcpyDtoDAsync", to, pointer, nbytes, self._handle)

    def synchronize(self) -> None:
        """Wait until all work is done. Raises UnavailableError if any of it failed."""
        self.device.call("cuStreamSynchronize", self._handle)

    def record(self) -> Event:
        """The moment when all work given so far is done."""
        return Event(self.device, self._handle)

    def wait(self, event: Event) -> None:
        """Let the work that is given from now on wait for an event of another stream."""
        self.device.call("cuStreamWaitEvent", self._handle, event.handle, 0)

    def capture(self, give: Callable[[], None]) -> Graph:
        """What `give` gives the stream to do, not done but written down, to be done by `launch`."""
        relaxed = self.device.driver.constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_RELAXED")
        self.device.call("cuStreamBeginCapture", self._handle, relaxed)
        try:
            give()
        except BaseException:
            with suppress(UnavailableError):  # of a capture that is broken by then
                self.device.call("cuStreamEndCapture", self._handle)
            raise
        return Graph(self.device, self.device.call("cuStreamEndCapture", self._handle))

    def launch(self, graph: Graph) -> None:
        """Do what was captured, from and to the same memory."""
        self.device.call("cuGraphLaunch", graph.handle, self._handle)


class Event:
    """A moment in the work of a stream."""

    def __init__(self, device: Device, stream: Any) -> None:
        self._device = device
        flags = device.driver.constant("CUevent_flags", "CU_EVENT_DISABLE_TIMING")
        self.handle = device.call("cuEventCreate", flags)
        weakref.finalize(self, _give_back, device, "cuEventDestroy", self.handle)
        device.call("cuEventRecord", self.handle, stream)

    def synchronize(self) -> None:
        """Wait for it."""
        self._device.call("cuEventSynchronize", self.handle)


class Graph:
    """Work that was captured, as one launch."""

    def __init__(self, device: Device, captured: Any) -> None:
        try:
            self.handle = device.call("cuGraphInstantiate", captured, 0)
        finally:
            device.call("cuGraphDestroy", captured)
        weakref.finalize(self, _give_back, device, "cuGraphExecDestroy", self.handle)


def _give_back(device: Device, name: str, what: Any) -> None:
    with suppress(UnavailableError):  # the driver may have gone before, as when the process ends
        device.call(name, what)


def _release() -> str | None:
    try:
        return RELEASE.read_text("ascii").strip()
    except (OSError, ValueError):
        return None
