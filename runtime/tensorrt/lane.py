"""An engine at work: on one stream, in memory that is taken once, by one CUDA graph for each shape.

For each shape a lane has an execution context of its own, as TensorRT wants it of contexts that are captured, and all
of them share the memory for what layers hand on, as only one runs at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headway.core.errors import UnavailableError
from headway.core.manifest import Graph, Tensor
from headway.cpp_ext import mask, pad
from headway.runtime.backends.base import Outputs
from headway.runtime.cuda import Buffer, Device
from headway.runtime.cuda import Graph as CudaGraph
from headway.runtime.ragged import Ragged
from headway.runtime.tensorrt.library import Library
from headway.runtime.tensorrt.shapes import Place, Shapes

FORMS = 48
"""shapes that a lane keeps ready, those last used"""


@dataclass(frozen=True)
class Opened:
    """An engine on a GPU."""

    library: Library
    device: Device
    engine: Any
    shapes: Shapes
    declared: Graph
    """what the graph takes and gives"""
    read: tuple[str, ...]
    """outputs that are read; the others need memory, too"""
    pad_id: int
    _lock: Lock = field(default_factory=Lock)

    def context(self) -> Any:
        """A new execution context without memory of its own. Raises UnavailableError."""
        strategy = self.library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self.device.use()
        with self._lock:
            made = self.engine.create_execution_context(strategy)
        if made is None:
            raise UnavailableError(
                "memory for a TensorRT context", "use smaller batches, or fewer models at once"
            )
        return made

    def dtype(self, tensor: Tensor) -> np.dtype[Any]:
        kind = self.library.module.nptype(self.engine.get_tensor_dtype(tensor.name))
        return np.dtype(cast(DTypeLike, kind))

    def largest(self, tensor: Tensor) -> int:
        """Bytes of an input or output in the shape where it has most."""
        counts = (math.prod(_sizes(tensor, self.shapes.most(n), n)) for n in self.shapes.lengths)
        return max(counts) * self.dtype(tensor).itemsize


def _sizes(tensor: Tensor, rows: int, length: int) -> tuple[int, ...]:
    """What a declared shape is for so many rows of so many tokens."""
    named = {"batch": rows, "length": length}
    return tuple(named[size] if isinstance(size, str) else size for size in tensor.shape)


@dataclass
class Form:
    """A shape in a lane: its context, its part of the pinned memory, and the graph of its work."""

    context: Any
    given: dict[str, NDArray[Any]]  # (B, T) each
    found: dict[str, NDArray[Any]]  # (B, …) each
    runs: int = 0
    graph: CudaGraph | None = None
    captures: bool = True
    """False where TensorRT cannot be captured at that shape"""


class Room(NamedTuple):
    """A tensor's memory, enough for every shape."""

    device: Buffer
    host: NDArray[np.uint8]  # pinned


class Lane:
    """Runs one batch at a time."""

    def __init__(self, opened: Opened) -> None:
        self._opened, self._stream = opened, opened.device.stream()
        self._scratch = opened.device.empty(int(opened.engine.device_memory_size_v2))
        self._rooms = {
            tensor.name: Room(opened.device.empty(nbytes), opened.device.pinned(nbytes, np.uint8))
            for tensor in (*opened.declared.inputs, *opened.declared.outputs)
            for nbytes in (opened.largest(tensor),)
        }
        self._forms: OrderedDict[Place, Form] = OrderedDict()

    def start(self, batch: Ragged, place: Place) -> None:
        """Give the GPU a batch of no more rows and tokens than the place has. `answers` waits for it."""
        form = self._form(place)
        self._fill(form, batch, place)
        self._opened.device.use()
        if form.graph is None and form.captures and form.runs > 0:  # the first run sets the context up
            form.graph = self._captured(form)
        if form.graph is None:
            self._give(form)
        else:
            self._stream.launch(form.graph)
        form.runs += 1

    def answers(self, place: Place, rows: int) -> Outputs:
        """The outputs that are read (rows, …), of the batch that was started there."""
        self.wait()
        found = self._forms[place].found
        return {name: np.array(found[name][:rows], np.float32) for name in self._opened.read}

    def wait(self) -> None:
        """Until nothing runs any more."""
        self._stream.synchronize()

    def _captured(self, form: Form) -> CudaGraph | None:
        try:
            return self._stream.capture(lambda: self._give(form))
        except UnavailableError:
            form.captures = False
            return None

    def _give(self, form: Form) -> None:
        for name, array in form.given.items():
            self._stream.upload(array, self._rooms[name].device.pointer)
        if not form.context.execute_async_v3(self._stream.pointer):
            raise UnavailableError(
                "a TensorRT engine's answer", "ask headway doctor, or use another --backend"
            )
        for name in self._opened.read:
            self._stream.download(self._rooms[name].device.pointer, form.found[name])

    def _fill(self, form: Form, batch: Ragged, place: Place) -> None:
        """Pad the batch. Rows that are not there see one token, as no row may see none."""
        given = {
            "input_ids": lambda: pad(batch.ids, batch.offsets, place.length, self._opened.pad_id),
            "attention_mask": lambda: mask(batch.offsets, place.length),
            "token_type_ids": lambda: pad(batch.types, batch.offsets, place.length, 0),
        }
        for name, array in form.given.items():
            array[: len(batch)] = given[name]()
            array[len(batch) :] = 0
            if name == "attention_mask":
                array[len(batch) :, 0] = 1

    def _form(self, place: Place) -> Form:
        if place not in self._forms:
            self._forms[place] = self._made(place)
        self._forms.move_to_end(place)
        while len(self._forms) > FORMS:
            self._forms.popitem(last=False)
        return self._forms[place]

    def _made(self, place: Place) -> Form:
        opened, context = self._opened, self._opened.context()
        context.set_device_memory(self._scratch.pointer, self._scratch.nbytes)
        context.set_optimization_profile_async(place.profile, self._stream.pointer)
        self.wait()
        inputs, outputs = opened.declared.inputs, opened.declared.outputs
        assert all(context.set_input_shape(tensor.name, (place.rows, place.length)) for tensor in inputs)
        for name, room in self._rooms.items():
            context.set_tensor_address(name, room.device.pointer)
        given = {tensor.name: self._part(tensor, place) for tensor in inputs}
        return Form(context, given, {t.name: self._part(t, place) for t in outputs})

    def _part(self, tensor: Tensor, place: Place) -> NDArray[Any]:
        """The part of a tensor's pinned memory that a shape uses."""
        sizes, kind = _sizes(tensor, place.rows, place.length), self._opened.dtype(tensor)
        return self._rooms[tensor.name].host[: math.prod(sizes) * kind.itemsize].view(kind).reshape(sizes)
