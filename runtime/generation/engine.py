"""Encoder and decoder graphs in ONNX Runtime on the processor, with caches that the decoder writes in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import BundleError, UnavailableError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ROOM = 64
"""columns by which caches grow"""


class Engine:
    """The opened graphs of one variant of a model. Several threads may use it."""

    def __init__(self, graphs: Mapping[str, Path], threads: int, longest: int | None = None) -> None:
        """Open the graphs by their roles, "decoder" and perhaps "encoder".

        `longest`: tokens that the decoder has positions for, if they are limited.
        Raises UnavailableError or BundleError.
        """
        self.longest = longest
        self.with_encoder = "encoder" in graphs
        self._encoder = _session(graphs["encoder"], threads) if self.with_encoder else None
        self.decoder = _session(graphs["decoder"], threads)
        shapes = {tensor.name: tensor.shape for tensor in self.decoder.get_inputs()}
        self.caches = {name: shape for name, shape in shapes.items() if name.startswith("past.")}
        self.with_positions = "position_ids" in shapes
        self.vocabulary = int(self.decoder.get_outputs()[0].shape[-1])

    def begin(self, sources: Sequence[Sequence[int]], start: int) -> tuple[Decoding, Floats]:
        """Read sources, as the encoder's input or as the decoder's prompts: logits (B, V) of their first tokens.

        `start`: the token that a decoder behind an encoder begins with.
        """
        ids, mask = _padded(sources, left=self._encoder is None)
        if self._encoder is None:
            decoding = Decoding(self, mask, {})
        else:
            names = [tensor.name for tensor in self._encoder.get_outputs()]
            values = self._encoder.run(names, {"input_ids": ids, "attention_mask": mask})
            decoding = Decoding(self, mask, dict(zip(names, values, strict=True)))
            ids = np.full((len(ids), 1), start)
        return decoding, decoding.step(ids)

    def logits(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        """What a decoder alone expects after each token of each text: its logits (T, V)."""
        ids, mask = _padded(texts, left=True)
        found = Decoding(self, mask, {}).read(ids, np.arange(ids.shape[1]))
        return [logits[len(logits) - len(text) :] for logits, text in zip(found, texts, strict=True)]


class Decoding:
    """What the decoder has read of a batch so far: caches that hold the columns of all rows, written in place.

    Rows of one source stand together.
    """

    def __init__(self, engine: Engine, mask: Ints, cross: dict[str, Floats]) -> None:
        """Nothing read yet, a row for each source.

        Args:
            mask: 1 for a token, 0 for padding, of the sources (B, L): an encoder's, or prompts.
            cross: keys and values of an encoder's sources (B, heads, L, head size); else empty.
        """
        self._engine, self._mask, self._cross = engine, mask, cross
        self._source: Ints = np.arange(len(mask))
        """of each row"""
        self._written = 0
        """columns of the caches"""
        self._origin: Ints = np.zeros((len(mask), 0), np.int64)
        """row, column -> the row that wrote what stands there"""
        self._caches = {
            name: np.zeros((len(mask), s[1], 0, s[3]), np.float32) for name, s in engine.caches.items()
        }
        self._bound: dict[str, NDArray[Any]] = {}
        self._binding = engine.decoder.io_binding()

    def step(self, ids: Ints, parents: Ints | None = None) -> Floats:
        """Read more tokens: logits (R, V) after the last one of each row, valid until the next step.

        Args:
            ids: (R, step).
            parents: the row of the last step that each of the rows (R) goes on from, where they are not the same.
        """
        if parents is not None:
            self._arrange(parents)
        return self.read(ids, np.array([ids.shape[1] - 1]))[:, 0]

    def read(self, ids: Ints, logits_at: Ints) -> Floats:
        """Read tokens (R, step): logits (R, kept, V) at some of them, valid until the next."""
        begin, end = self._written, self._written + ids.shape[1]
        if end > self._origin.shape[1]:
            self._move(np.arange(len(ids)), ROOM * -(-end // ROOM))
        self._put("input_ids", ids)
        self._put("logits_at", logits_at)
        self._put("written", np.array(begin))
        if self._engine.with_positions:
            padding = (self._mask == 0).sum(axis=1)[self._source, None]  # all of it on the left
            self._put("position_ids", np.maximum(np.arange(begin, end) - padding, 0))
        shape = (len(ids), len(logits_at), self._engine.vocabulary)
        logits = self._bound.get("logits")
        if logits is None or logits.shape != shape:
            logits = self._bind("logits", np.empty(shape, np.float32), output=True)
        self._engine.decoder.run_with_iobinding(self._binding)
        self._origin[:, begin:end] = np.arange(len(ids))[:, None]
        self._written = end
        return logits

    def _arrange(self, parents: Ints) -> None:
        """Let every row be what another one was."""
        if not np.array_equal(self._source[parents], self._source):
            self._move(parents, self._origin.shape[1])
            return
        changed = np.flatnonzero(parents != np.arange(len(parents)))
        before, written = parents[changed], self._written
        apart = (self._origin[changed, :written] != self._origin[before, :written]).any(axis=0)
        if apart.any():  # rows that come from one another are the same up to here
            begin = int(apart.argmax())
            for held in (*self._caches.values(), self._origin[:, None]):
                held[changed, :, begin:written] = held[before, :, begin:written]

    def _move(self, parents: Ints, room: int) -> None:
        """To caches of other sizes: the rows that go on, and columns for more tokens."""
        written, number = self._written, len(parents)
        for name, held in self._caches.items():
            _, heads, _, size = held.shape
            made = np.zeros((number, heads, room, size), np.float32)  # no NaN may stand in what is masked
            made[:, :, :written] = held[parents, :, :written]
            self._caches[name] = self._bind(name, made)
            self._bind(name.replace("past", "present", 1), made, output=True)
        origin = np.zeros((number, room), np.int64)
        origin[:, :written] = self._origin[parents, :written]
        self._follow(self._source[parents])
        self._origin = origin
        self._bind("attention_mask", self._mask if self._cross else self._seen(room))
        for name, held in self._cross.items():
            self._bind(name, held)

    def _follow(self, source: Ints) -> None:
        """Keep the sources (B) that rows (R) still come from; each row has its own copy where some have more rows."""
        kept, self._source, rows = np.unique(source, return_inverse=True, return_counts=True)
        if self._cross and rows.min() < rows.max():
            kept, self._source = source, np.arange(len(source))
        if not np.array_equal(kept, np.arange(len(self._mask))):
            self._mask = self._mask[kept]
            self._cross = {name: held[kept] for name, held in self._cross.items()}

    def _seen(self, room: int) -> Ints:
        """The mask of each row (R, room): all but its padding, as nothing looks at columns that are not written."""
        seen = np.ones((len(self._source), room), np.int64)
        seen[:, : self._mask.shape[1]] = self._mask[self._source]
        return seen

    def _put(self, name: str, values: Ints) -> None:
        """Give a small input its new values."""
        held = self._bound.get(name)
        if held is None or held.shape != values.shape:
            held = self._bind(name, np.empty(values.shape, np.int64))
        held[...] = values

    def _bind(self, name: str, array: NDArray[Any], output: bool = False) -> NDArray[Any]:
        """Let the graph read or write this very memory."""
        array = np.ascontiguousarray(array) if array.ndim else array
        bind = self._binding.bind_output if output else self._binding.bind_input
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._bound[name] = array
        return array


def _padded(sources: Sequence[Sequence[int]], left: bool) -> tuple[Ints, Ints]:
    """Ids and mask (B, T), padding on one side."""
    length = max(len(source) for source in sources)
    ids = np.zeros((len(sources), length), np.int64)
    mask = np.zeros_like(ids)
    for row, source in enumerate(sources):
        place = slice(length - len(source), length) if left else slice(len(source))
        ids[row, place], mask[row, place] = source, 1
    return ids, mask


def _session(graph: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError("onnxruntime", "pip install 'headway[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it plans for one shape; lengths vary here
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions have no common base
        raise BundleError(graph.parent.parent, f"{graph.name} cannot be opened: {error}") from error
