"""Arrays in a GPU's memory, from and for other libraries, by DLPack: dmlc.github.io/dlpack, data-apis.org/array-api."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UsageError
from headway.cpp_ext import describe, lend
from headway.runtime.cuda import Buffer, Device, Event, Stream
from headway.runtime.ragged import Ragged

KIND = 2
"""DLPack's number of CUDA devices"""
LEGACY, NO_WAIT = 1, -1
"""streams as DLPack numbers them: CUDA's default one, and none, for a consumer that takes care itself"""
GIVEN = ("input_ids", "attention_mask", "token_type_ids")
"""what is taken, each (B, L) int64; the last may be left out"""


class DeviceArray:
    """Float32 numbers in a GPU's memory, which whatever reads `__dlpack__` takes without a copy.

    The memory stays until nobody holds the array, or what was made of it, any more.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], buffer: Buffer, ready: list[Event]) -> None:
        """`ready`: moments by which the numbers are there."""
        self.shape, self.device = shape, device
        self._buffer, self._ready = buffer, ready

    def __dlpack_device__(self) -> tuple[int, int]:
        return KIND, self.device.index

    def __dlpack__(self, *, stream: int | None = None, **wanted: Any) -> object:
        """A capsule. Work that is given to the consumer's `stream` from now on waits for the numbers."""
        if stream != NO_WAIT:
            for event in self._ready:
                self.device.call("cuStreamWaitEvent", LEGACY if stream is None else stream, event.handle, 0)
        lent: Any = lend(self._buffer.pointer, self.shape, *self.__dlpack_device__(), self._buffer)
        return lent.__dlpack__(**wanted)

    def numpy(self) -> NDArray[np.float32]:
        """A copy on the host."""
        found = np.empty(self.shape, np.float32)
        for event in self._ready:
            event.synchronize()
        stream = self.device.stream()
        stream.download(self._buffer.pointer, found)
        stream.synchronize()
        return found


def read(device: Device, stream: Stream, given: Mapping[str, object], longest: int) -> Ragged:
    """A padded batch on a GPU as a ragged one on the host, by a stream that waits for the arrays' own.

    Args:
        longest: tokens that the model takes.
    Raises:
        UsageError: an array that is missing, or not as it should be; named.
    """
    if unknown := sorted(given.keys() - set(GIVEN)):
        raise UsageError(unknown[0], f"is not taken; {', '.join(GIVEN)} are")
    arrays = {name: _read(device, stream, name, given[name]) for name in GIVEN if name in given}
    for name in GIVEN[:2]:
        if name not in arrays:
            raise UsageError(name, "is missing")
    stream.synchronize()
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    for name, array in arrays.items():
        if array.shape != ids.shape:
            raise UsageError(name, f"is {array.shape}, and input_ids {ids.shape}")
    lengths = mask.sum(1)
    there = np.arange(ids.shape[1]) < lengths[:, None]
    if not len(ids) or not lengths.all() or not np.array_equal(mask, there):
        raise UsageError("attention_mask", "must be ones, at least one in a row, and then zeros")
    if lengths.max() > longest:
        raise UsageError("input_ids", f"has {lengths.max()} tokens in a row; the model takes {longest}")
    types = arrays.get("token_type_ids", np.zeros_like(ids))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Ragged(ids[there].astype(np.int32), types[there].astype(np.int32), offsets)


def _read(device: Device, stream: Stream, name: str, array: Any) -> NDArray[np.int64]:
    """Start to copy an array to the host."""
    place = (KIND, device.index)
    try:
        found = tuple(map(int, array.__dlpack_device__()))
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(name, f"is {type(array).__name__}, which has no __dlpack__") from error
    if found != place:
        raise UsageError(name, f"lies on DLPack's device {found}, not on {place}, cuda:{device.index}")
    address, kind, shape, in_order, *_ = describe(array.__dlpack__(stream=stream.pointer))
    if kind != "int64" or len(shape) != 2 or not in_order:
        gaps = "" if in_order else " with gaps"
        raise UsageError(name, f"must be int64 (B, L) without gaps, not {kind} {shape}{gaps}")
    copy = np.empty(shape, np.int64)
    stream.download(address, copy)
    return copy
