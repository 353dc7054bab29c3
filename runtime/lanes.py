"""Batches on a GPU: padded to one of few shapes, in memory that is taken once, each shape's work one CUDA graph.

A lane holds one batch. While the GPU computes one lane's, the host pads the next into another, so that nothing waits but
the last copy. An engine says what a shape needs (`Form`) and how it is run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UnavailableError
from headway.core.manifest import Graph, Tensor
from headway.cpp_ext import mask, pad
from headway.runtime.backends.base import Outputs
from headway.runtime.cuda import Buffer, Device, Event, Stream
from headway.runtime.cuda import Graph as CudaGraph
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import Place, Shapes

LANES = 2
"""batches on the GPU at once: one is computed while another is padded and copied"""
FORMS = 48
"""shapes that a lane keeps ready, those last used"""

Context = TypeVar("Context")
"""what an engine needs to run a shape"""


@dataclass(frozen=True)
class Tensors:
    """What goes in and out of a graph."""

    declared: Graph
    dtype: Callable[[Tensor], np.dtype[Any]]
    read: tuple[str, ...]
    """outputs that are read; the others need memory, too"""
    pad_id: int
    shapes: Shapes

    def largest(self, tensor: Tensor) -> int:
        """Bytes of an input or output in the shape where it has most."""
        counts = (math.prod(sizes(tensor, self.shapes.most(n), n)) for n in self.shapes.lengths)
        return max(counts) * self.dtype(tensor).itemsize


def sizes(tensor: Tensor, rows: int, length: int) -> tuple[int, ...]:
    """What a declared shape is for so many rows of so many tokens."""
    named = {"batch": rows, "length": length}
    return tuple(named[size] if isinstance(size, str) else size for size in tensor.shape)


class Room(NamedTuple):
    """A tensor's memory, enough for every shape."""

    device: Buffer
    host: NDArray[np.uint8]  # pinned


@dataclass
class Form(Generic[Context]):
    """A shape in a lane: the engine's part, its part of the pinned memory, and the graph of its work."""

    context: Context
    given: dict[str, NDArray[Any]]  # (B, T) each
    found: dict[str, NDArray[Any]]  # (B, …) each
    runs: int = 0
    graph: CudaGraph | None = None
    captures: bool = True
    """False where the engine cannot be captured at that shape"""


class Lane(ABC, Generic[Context]):
    """Runs one batch at a time. Nobody else may use its stream meanwhile."""

    def __init__(self, device: Device, stream: Stream, tensors: Tensors) -> None:
        self.device, self.stream, self.tensors = device, stream, tensors
        self.rooms = {
            tensor.name: Room(device.empty(nbytes), device.pinned(nbytes, np.uint8))
            for tensor in (*tensors.declared.inputs, *tensors.declared.outputs)
            for nbytes in (tensors.largest(tensor),)
        }
        self._forms: OrderedDict[Place, Form[Context]] = OrderedDict()
        self._done: Event | None = None

    @abstractmethod
    def prepared(self, place: Place) -> Context:
        """What the engine needs to run a shape, bound to the rooms' memory."""

    @abstractmethod
    def execute(self, context: Context) -> None:
        """Give the stream a shape's work, from what was uploaded. Raises UnavailableError."""

    def start(self, batch: Ragged, place: Place) -> None:
        """Give the GPU a batch of no more rows and tokens than the place has. `answers` waits for it."""
        form = self._form(place)
        self._fill(form, batch, place)
        self.device.use()
        if form.graph is None and form.captures and form.runs > 0:  # the first run sets the context up
            form.graph = self._captured(form)
        try:
            if form.graph is None:
                self._give(form)
            else:
                self.stream.launch(form.graph)
            form.runs += 1
        finally:
            self._done = self.stream.record()

    def answers(self, place: Place, rows: int) -> Outputs:
        """The outputs that are read (rows, …), of the batch that was started there."""
        self.wait()
        found = self._forms[place].found
        return {name: np.array(found[name][:rows], np.float32) for name in self.tensors.read}

    def wait(self) -> None:
        """Until what was started is done."""
        if self._done is not None:
            self._done.synchronize()

    def _captured(self, form: Form[Context]) -> CudaGraph | None:
        try:
            return self.stream.capture(lambda: self._give(form))
        except UnavailableError:
            form.captures = False
            return None

    def _give(self, form: Form[Context]) -> None:
        for name, array in form.given.items():
            self.stream.upload(array, self.rooms[name].device.pointer)
        self.execute(form.context)
        for name in self.tensors.read:
            self.stream.download(self.rooms[name].device.pointer, form.found[name])

    def _fill(self, form: Form[Context], batch: Ragged, place: Place) -> None:
        """Pad the batch. Rows that are not there see one token, as no row may see none."""
        given = {
            "input_ids": lambda: pad(batch.ids, batch.offsets, place.length, self.tensors.pad_id),
            "attention_mask": lambda: mask(batch.offsets, place.length),
            "token_type_ids": lambda: pad(batch.types, batch.offsets, place.length, 0),
        }
        for name, array in form.given.items():
            array[: len(batch)] = given[name]()
            array[len(batch) :] = 0
            if name == "attention_mask":
                array[len(batch) :, 0] = 1

    def _form(self, place: Place) -> Form[Context]:
        if place not in self._forms:
            declared = self.tensors.declared
            parts = {t.name: self._part(t, place) for t in (*declared.inputs, *declared.outputs)}
            given, found = (
                {t.name: parts[t.name] for t in side} for side in (declared.inputs, declared.outputs)
            )
            self._forms[place] = Form(self.prepared(place), given, found)
        self._forms.move_to_end(place)
        while len(self._forms) > FORMS:
            self._forms.popitem(last=False)
        return self._forms[place]

    def _part(self, tensor: Tensor, place: Place) -> NDArray[Any]:
        """The part of a tensor's pinned memory that a shape uses."""
        shape, kind = sizes(tensor, place.rows, place.length), self.tensors.dtype(tensor)
        return self.rooms[tensor.name].host[: math.prod(shape) * kind.itemsize].view(kind).reshape(shape)


class Piece(NamedTuple):
    """A part of a batch that goes through the engine together."""

    rows: Ragged
    place: Place


class Lanes:
    """Several batches at once, one in each lane. Safe to call from several threads."""

    def __init__(self, tensors: Tensors, lanes: Sequence[Lane[Any]]) -> None:
        self._shapes = tensors.shapes
        self._of_tokens = {tensor.name for tensor in tensors.declared.outputs if "length" in tensor.shape}
        self._idle: SimpleQueue[Lane[Any]] = SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        split = [self._pieces(batch) for batch in batches]
        answers = self._answers([piece for pieces in split for piece in pieces])
        return [
            self._joined([next(answers) for _ in pieces], batch)
            for pieces, batch in zip(split, batches, strict=True)
        ]

    def _pieces(self, batch: Ragged) -> list[Piece]:
        """A batch in as few parts as the engine's shapes allow."""
        longest = int(batch.lengths.max())
        most = self._shapes.most(longest)
        parts = [np.arange(at, min(at + most, len(batch))) for at in range(0, len(batch), most)]
        return [Piece(batch.take(part), self._shapes.place(len(part), longest)) for part in parts]

    def _joined(self, answers: list[Outputs], batch: Ragged) -> Outputs:
        longest = int(batch.lengths.max())
        whole = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        return {n: v[:, :longest] if n in self._of_tokens else v for n, v in whole.items()}

    def _answers(self, pieces: list[Piece]) -> Iterator[Outputs]:
        """In order. Takes the lanes that are idle, and waits for one only while it holds none."""
        flying: deque[tuple[Lane[Any], Piece]] = deque()
        try:
            for piece in pieces:
                lane = self._lane(wait=not flying)
                if lane is None:
                    lane, first = flying[0]
                    yield lane.answers(first.place, len(first.rows))
                    flying.popleft()
                flying.append((lane, piece))
                lane.start(piece.rows, piece.place)
            while flying:
                lane, first = flying[0]
                yield lane.answers(first.place, len(first.rows))
                self._idle.put(flying.popleft()[0])
        finally:
            for lane, _ in flying:
                with suppress(UnavailableError):
                    lane.wait()
                self._idle.put(lane)

    def _lane(self, wait: bool) -> Lane[Any] | None:
        try:
            return self._idle.get(block=wait)
        except Empty:
            return None
