"""Batches on a GPU: laid out in one of few places, in memory that is taken once, each place's work one CUDA graph.

A lane holds one batch. While the GPU computes one lane's, the host lays out the next in another, so that nothing waits
but the last copy. A layout says how a batch lies in memory, an engine what a place needs (`Form`) and how it is run.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UnavailableError
from headway.core.manifest import Graph, Tensor
from headway.runtime import device_arrays
from headway.runtime.backends.base import Outputs
from headway.runtime.cuda import Buffer, Device, Event, Stream
from headway.runtime.cuda import Graph as CudaGraph
from headway.runtime.device_arrays import DeviceArray
from headway.runtime.layouts import Layout, Piece, sizes
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import Place

LANES = 2
"""batches on the GPU at once: one is computed while another is padded and copied"""

Context = TypeVar("Context")
"""what an engine needs to run a shape"""


@dataclass(frozen=True)
class Tensors:
    """What goes in and out of a graph."""

    declared: Graph
    dtype: Callable[[Tensor], np.dtype[Any]]
    read: tuple[str, ...]
    """outputs that are read; the others need memory, too"""
    layout: Layout

    def largest(self, tensor: Tensor) -> int:
        """Bytes of an input or output in the place where it has most."""
        return self.layout.largest(tensor) * self.dtype(tensor).itemsize

    def width(self, tensor: Tensor) -> int:
        """Bytes of an output's numbers of one text, or of one token."""
        return math.prod(size for size in tensor.shape if isinstance(size, int)) * self.dtype(tensor).itemsize

    @property
    def given_back(self) -> list[Tensor]:
        """The outputs that are read."""
        return [tensor for tensor in self.declared.outputs if tensor.name in self.read]


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
        weakref.finalize(self, _finish, stream)  # before its memory is given back

    @abstractmethod
    def prepared(self, place: Place) -> Context:
        """What the engine needs to run a shape, bound to the rooms' memory."""

    @abstractmethod
    def execute(self, context: Context) -> None:
        """Give the stream a shape's work, from what was uploaded. Raises UnavailableError."""

    def start(self, batch: Ragged, place: Place) -> None:
        """Give the GPU a batch of no more than the place has. `answers` waits for it."""
        self.wait()  # for what was delivered, and not waited for
        form = self._form(place)
        self.tensors.layout.fill(form.given, batch, place)
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

    def answers(self, piece: Piece, longest: int) -> Outputs:
        """The outputs that are read (rows, …), of the piece that was started; of tokens (rows, longest, …)."""
        self.wait()
        found, layout = self._forms[piece.place].found, self.tensors.layout
        return {t.name: layout.answer(found[t.name], t, piece.rows, longest) for t in self.tensors.given_back}

    def deliver(self, piece: Piece, longest: int, to: Mapping[str, int]) -> Event:
        """Copy the outputs of the piece that was started to memory of the GPU, (rows, …) or (rows, longest, …)."""
        for tensor in self.tensors.given_back:
            source, width = self.rooms[tensor.name].device.pointer, self.tensors.width(tensor)
            begins = self.tensors.layout.texts(tensor, piece.rows, piece.place)
            if begins is None:
                self.stream.copy(to[tensor.name], source, len(piece.rows) * width)
                continue
            self.stream.clear(to[tensor.name], len(piece.rows) * longest * width)
            for i, (begin, length) in enumerate(
                zip(begins.tolist(), piece.rows.lengths.tolist(), strict=True)
            ):
                self.stream.copy(
                    to[tensor.name] + i * longest * width, source + begin * width, length * width
                )
        self._done = done = self.stream.record()
        return done

    def wait(self) -> None:
        """Until what was started is done."""
        done, self._done = self._done, None
        if done is not None:
            done.synchronize()

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

    def _form(self, place: Place) -> Form[Context]:
        if place not in self._forms:
            declared = self.tensors.declared
            parts = {t.name: self._part(t, place) for t in (*declared.inputs, *declared.outputs)}
            given, found = (
                {t.name: parts[t.name] for t in side} for side in (declared.inputs, declared.outputs)
            )
            self._forms[place] = Form(self.prepared(place), given, found)
        self._forms.move_to_end(place)
        while len(self._forms) > self.tensors.layout.kept:
            self._forms.popitem(last=False)
        return self._forms[place]

    def _part(self, tensor: Tensor, place: Place) -> NDArray[Any]:
        """The part of a tensor's pinned memory that a shape uses."""
        shape, kind = sizes(tensor, place), self.tensors.dtype(tensor)
        return self.rooms[tensor.name].host[: math.prod(shape) * kind.itemsize].view(kind).reshape(shape)


class Lanes:
    """Several batches at once, one in each lane. Safe to call from several threads."""

    def __init__(self, tensors: Tensors, lanes: Sequence[Lane[Any]]) -> None:
        self.layout = tensors.layout
        self._tensors, self._device = tensors, lanes[0].device
        self._idle: SimpleQueue[Lane[Any]] = SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)

    @property
    def pads(self) -> bool:
        return self.layout.pads

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        self._device.use()  # raises in a forked child, where a lane of another thread would never be idle
        split = [(self.layout.pieces(batch), int(batch.lengths.max())) for batch in batches]
        answers = self._answers([(piece, longest) for pieces, longest in split for piece in pieces])
        return [_joined([next(answers) for _ in pieces]) for pieces, _ in split]

    def run_device(self, given: Mapping[str, object] | Ragged) -> dict[str, DeviceArray]:
        """As `run`, of one batch, with outputs that stay in the GPU's memory and are not waited for.

        `given`: where it lies there, too, padded (B, L); the token ids come to the host once, as lengths decide how a
        batch is run. Raises UsageError, naming the array, for one that is not as it should be.
        """
        self._device.use()
        batch = given
        if not isinstance(batch, Ragged):
            batch = device_arrays.read(self._device, self._device.stream(), batch, self.layout.longest)
        longest, pieces = int(batch.lengths.max()), self.layout.pieces(batch)
        arrays, ready = dict[str, tuple[tuple[int, ...], Buffer]](), list[Event]()
        for tensor in self._tensors.given_back:
            of_tokens = self.layout.texts(tensor, pieces[0].rows, pieces[0].place) is not None
            own = tuple(size for size in tensor.shape if isinstance(size, int))
            shape = (len(batch), *((longest,) if of_tokens else ()), *own)
            arrays[tensor.name] = (
                shape,
                self._device.empty(math.prod(shape) * self._tensors.dtype(tensor).itemsize),
            )
        at = 0
        for piece in pieces:
            lane = self._idle.get()
            try:
                lane.start(piece.rows, piece.place)
                to = {n: b.pointer + at * b.nbytes // len(batch) for n, (_, b) in arrays.items()}
                ready.append(lane.deliver(piece, longest, to))
            finally:
                self._idle.put(lane)
            at += len(piece.rows)
        return {n: DeviceArray(self._device, shape, buffer, ready) for n, (shape, buffer) in arrays.items()}

    def _answers(self, pieces: list[tuple[Piece, int]]) -> Iterator[Outputs]:
        """In order. Takes the lanes that are idle, and waits for one only while it holds none."""
        flying: deque[tuple[Lane[Any], Piece, int]] = deque()
        try:
            for piece, longest in pieces:
                lane = self._lane(wait=not flying)
                if lane is None:
                    lane, first, to = flying[0]
                    yield lane.answers(first, to)
                    flying.popleft()
                flying.append((lane, piece, longest))
                lane.start(piece.rows, piece.place)
            while flying:
                lane, first, to = flying[0]
                yield lane.answers(first, to)
                self._idle.put(flying.popleft()[0])
        finally:
            for lane, *_ in flying:
                with suppress(UnavailableError):
                    lane.wait()
                self._idle.put(lane)

    def _lane(self, wait: bool) -> Lane[Any] | None:
        try:
            return self._idle.get(block=wait)
        except Empty:
            return None


def _finish(stream: Stream) -> None:
    with suppress(UnavailableError):  # the driver may have gone before
        stream.synchronize()


def _joined(answers: list[Outputs]) -> Outputs:
    """The answers of a batch's pieces, in one."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
