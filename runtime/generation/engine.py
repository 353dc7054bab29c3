"""Encoder and decoder graphs in ONNX Runtime on the processor, with caches that the decoder writes in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core import files
from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle
from headway.core.search import Search
from headway.cpp_ext import follow
from headway.runtime.fork_safety import PerProcess
from headway.runtime.generation.base import Floats, Found, Ints, Tokens
from headway.runtime.generation.sources import NOTHING, Read, Sources

ROOM = 64
"""columns by which caches grow"""
SOURCES = "sources"
"""the decoder's name of a dimension that is as large as there are sources, and not as rows"""
HALVES = ("tensor(float16)", "tensor(bfloat16)")
"""ONNX Runtime's names of types that caches have on a GPU"""
LENGTH = {2: 1, 4: 2}
"""where the length of sources is, in their mask (B, L) and in their keys and values (B, heads, L, head size)"""


def open_writer(
    folder: Path, declared: Bundle, graphs: Mapping[str, Path], device: str, threads: int, kept: int
) -> Engine:
    """Open verified graphs, by role."""
    return Engine(graphs, threads, declared.longest, kept)


class Engine:
    """The opened graphs of one variant of a model. Several threads may use it."""

    def __init__(
        self, graphs: Mapping[str, Path], threads: int, longest: int | None = None, kept: int = 0
    ) -> None:
        """Open the graphs by their roles, "decoder" and perhaps "encoder".

        Args:
            longest: tokens that the decoder has positions for, if they are limited.
            kept: sources, or prompts, whose keys and values are kept, those last used.
        Raises:
            UnavailableError: ONNX Runtime is not installed, or the caches are made for a GPU.
            BundleError: a graph cannot be opened.
        """
        self.longest, self.threads = longest, threads
        self._kept = Sources(kept) if kept else None
        self.with_encoder = "encoder" in graphs
        self._sessions = {r: PerProcess(partial(_session, graph, threads)) for r, graph in graphs.items()}
        for session in self._sessions.values():
            session()
        self._on_one_thread = PerProcess(partial(_on_one_thread, graphs, longest, self._kept), shared=True)
        self._workers = PerProcess(partial(ThreadPoolExecutor, threads, thread_name_prefix="headway-write"))
        shapes = {tensor.name: tensor.shape for tensor in self.decoder.get_inputs()}
        if "written" not in shapes:
            problem = "its caches are not written in place, as this version does it; export it again"
            raise BundleError(graphs["decoder"].parent.parent, f"{graphs['decoder'].name}: {problem}")
        held = [t for t in _tensors(self.decoder) if t.name.startswith(("past.", "present."))]
        if any(tensor.type in HALVES or tensor.shape[2] != "room" for tensor in held):
            name = f"{graphs['decoder'].parent.name}, whose caches are made for a GPU, on a processor"
            raise UnavailableError(name, "choose another --precision, or export with --target cpu")
        self.caches = {name: shape for name, shape in shapes.items() if name.startswith("past.")}
        self.with_positions = "position_ids" in shapes
        self.own_mask = "decoder_attention_mask" if self.with_encoder else "attention_mask"
        """the input that tells of rows' padding"""
        self.joinable = self.own_mask in shapes
        """rows that have read more and less may go on together"""
        self.shares = any(shape[0] == SOURCES for shape in shapes.values() if shape)
        """rows of a source may read the same copy of its keys and values"""
        self.vocabulary = int(self.decoder.get_outputs()[0].shape[-1])

    @property
    def decoder(self) -> Any:
        """The session of this process."""
        return self._sessions["decoder"]()

    @property
    def _encoder(self) -> Any:
        return self._sessions["encoder"]() if self.with_encoder else None

    @property
    def on_one_thread(self) -> Engine:
        """The same: of several threads, each works on a part of a batch, without waiting for the others."""
        return self._on_one_thread()

    @property
    def workers(self) -> ThreadPoolExecutor:
        """As many as there are threads, of this process."""
        return self._workers()

    def begin(self, sources: Sequence[Sequence[int]], start: int) -> tuple[Decoding, Floats]:
        """Read sources, as the encoder's input or as the decoder's prompts: logits (B, V) of their first tokens.

        `start`: the token that a decoder behind an encoder begins with.
        """
        if not self.with_encoder:
            return self._begin_prompts(sources)
        decoding = Decoding(self, self._read(sources), np.zeros(len(sources), np.int64))
        return decoding, decoding.step(np.full((len(sources), 1), start))

    def _begin_prompts(self, prompts: Sequence[Sequence[int]]) -> tuple[Decoding, Floats]:
        """Read what is not kept of prompts."""
        known = [(0, NOTHING) if self._kept is None else self._kept.beginning(p) for p in prompts]
        new = max(len(p) - min(n, len(p) - 1) for p, (n, _) in zip(prompts, known, strict=True))
        ids, _ = _padded([p[-new:] for p in prompts], left=True)
        old = [max(len(p) - new, 0) for p in prompts]
        padding = np.array([max(new - len(p), 0) + max(old) - o for p, o in zip(prompts, old, strict=True)])
        decoding = Decoding(self, {}, padding)
        if max(old):
            decoding.resume([read for _, read in known], old)
        logits = decoding.step(ids)
        if self._kept is not None:
            for row, prompt in enumerate(prompts):
                self._kept.put(prompt, decoding.read_by(row))
        return decoding, logits

    def _read(self, sources: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
        """The encoder's keys and values (B, heads, L, head size), and the mask (B, L), of sources."""
        ids, mask = _padded(sources, left=False)
        if self._kept is None:
            return self._encode(ids, mask)
        held = [self._kept.get(source) for source in sources]
        new = [i for i, read in enumerate(held) if read is None]
        if new:
            length = max(len(sources[i]) for i in new)
            values = self._encode(ids[new, :length], mask[new, :length])
            for place, i in enumerate(new):
                read = {n: v[place, :, : len(sources[i])] for n, v in values.items() if v.ndim == 4}
                self._kept.put(sources[i], read)
                held[i] = read
        rows = [read or {} for read in held]
        return {n: _stacked([r[n][None] for r in rows], 2) for n in rows[0]} | {"attention_mask": mask}

    def _encode(self, ids: Ints, mask: Ints) -> dict[str, NDArray[Any]]:
        encoder = self._encoder
        names = [tensor.name for tensor in encoder.get_outputs()]
        values = encoder.run(names, {"input_ids": ids, "attention_mask": mask})
        return dict(zip(names, values, strict=True)) | {"attention_mask": mask}

    def search(
        self, sources: Sequence[Tokens], settings: Search, begun: Sequence[tuple[Tokens, int]]
    ) -> list[list[Found]] | None:
        """None: the processor chooses."""
        return None

    def before(self, sources: Sequence[Tokens], targets: Sequence[Tokens], start: int) -> Iterator[Floats]:
        """Logits (B, some, V) before the tokens of targets, given their sources, each valid until the next."""
        decoding, first = self.begin(sources, start)
        yield first[:, None]
        longest = max(map(len, targets))
        ids = np.zeros(
            (len(targets), longest - 1), np.int64
        )  # what comes after a target changes nothing in it
        for row, target in zip(ids, targets, strict=True):
            row[: len(target) - 1] = target[:-1]
        if longest > 1:
            yield decoding.read(ids, np.arange(longest - 1))

    def logits(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        """What a decoder alone expects after each token of each text: its logits (T, V)."""
        ids, mask = _padded(texts, left=True)
        decoding = Decoding(self, {}, (mask == 0).sum(axis=1))
        found = decoding.read(ids, np.arange(ids.shape[1]))
        return [logits[len(logits) - len(text) :] for logits, text in zip(found, texts, strict=True)]


class Decoding:
    """What the decoder has read of a batch so far: caches that hold the columns of all rows, written in place.

    Rows of one source stand together. A row may begin behind columns of padding.
    """

    def __init__(self, engine: Engine, sources: Mapping[str, NDArray[Any]], padding: Ints) -> None:
        """Nothing read yet, a row for each source.

        Args:
            sources: behind an encoder, inputs by name: keys and values of its sources (B, heads, L, head size), and
                their mask (B, L), 1 for a token; else none.
            padding: columns before the first token of each row (B).
        """
        self._engine, self._sources, self._padding = engine, dict(sources), padding
        self._source: Ints = np.arange(len(padding))
        """of each row"""
        self._written = 0
        """columns of the caches"""
        self._origin: Ints = np.zeros((len(padding), 0), np.int64)
        """row, column -> the row that wrote what stands there"""
        self._caches = {
            name: np.zeros((len(padding), s[1], 0, s[3]), np.float32) for name, s in engine.caches.items()
        }
        self._bound: dict[str, NDArray[Any]] = {}
        self._decoder = engine.decoder  # after a fork the engine has another
        self._binding = self._decoder.io_binding()

    def __len__(self) -> int:
        """Rows."""
        return len(self._source)

    def step(self, ids: Ints, parents: Ints | None = None) -> Floats:
        """Read more tokens: logits (R, V) after the last one of each row, valid until the next step.

        Args:
            ids: (R, step).
            parents: the row of the last step that each of the rows (R) goes on from, where they are not the same.
        """
        if parents is not None:
            self._follow(parents, ids.shape[1])
        return self.read(ids, np.array([ids.shape[1] - 1]))[:, 0]

    def read(self, ids: Ints, logits_at: Ints) -> Floats:
        """Read tokens (R, step): logits (R, kept, V) at some of them, valid until the next."""
        if self._written + ids.shape[1] > self._origin.shape[1]:
            self._move(np.arange(len(ids)), ids.shape[1])
        begin, end = self._written, self._written + ids.shape[1]
        self._put("input_ids", ids)
        self._put("logits_at", logits_at)
        self._put("written", np.array(begin))
        if self._engine.with_positions:
            self._put("position_ids", np.maximum(np.arange(begin, end) - self._padding[:, None], 0))
        shape = (len(ids), len(logits_at), self._engine.vocabulary)
        logits = self._bound.get("logits")
        if logits is None or logits.shape != shape:
            logits = self._bind("logits", np.empty(shape, np.float32), output=True)
        self._decoder.run_with_iobinding(self._binding)
        self._origin[:, begin:end] = np.arange(len(ids))[:, None]
        self._written = end
        return logits

    def join(self, other: Decoding) -> None:
        """Take in the rows of another decoding, behind the own ones. Nothing may be asked of it any more.

        Those that have read less begin behind padding from now on: for engines that are `joinable`.
        """
        rows, sources = len(self), len(np.unique(self._source))
        later, earlier = self._written, other._written
        self._written = max(later, earlier)
        ends = (self._written - later, self._written - earlier)
        self._padding = np.concatenate([self._padding + ends[0], other._padding + ends[1]])
        self._source = np.concatenate([self._source, other._source + sources])
        self._origin = _stacked([self._origin[:, :later], rows + other._origin[:, :earlier]], 1, front=True)
        for name, held in self._caches.items():
            both = [held[:, :, :later], other._caches[name][:, :, :earlier]]
            self._caches[name] = _stacked(both, 2, front=True)
        for name, held in self._sources.items():
            self._sources[name] = _stacked([held, other._sources[name]], LENGTH[held.ndim])

    def resume(self, read: Sequence[Read], columns: Sequence[int]) -> None:
        """Begin behind so many first tokens of each row, which were read before."""
        self._written = max(columns)
        rows = np.arange(len(self))
        self._origin = np.repeat(rows[:, None], self._written, axis=1)
        for name, held in self._caches.items():
            parts = [r[name][None, :, :n] if n else held[:1] for r, n in zip(read, columns, strict=True)]
            self._caches[name] = _stacked(parts, 2, front=True)

    def read_by(self, row: int) -> Read:
        """Keys and values of all tokens of a row (heads, T, head size)."""
        columns = slice(int(self._padding[row]), self._written)
        return {name: held[row, :, columns] for name, held in self._caches.items()}

    def _follow(self, parents: Ints, new: int) -> None:
        """Let every row be what another one was, with room for so many new tokens."""
        same = len(parents) == len(self) and np.array_equal(self._source[parents], self._source)
        if same and np.array_equal(parents[parents], parents):
            follow(list(self._caches.values()), self._origin, parents, self._written)
        else:
            self._move(parents, new)

    def _move(self, parents: Ints, new: int) -> None:
        """To caches of other sizes: the rows that go on, and columns for so many new tokens."""
        spare = int(self._padding[parents].min())
        kept = slice(spare, self._written)
        self._written -= spare
        self._padding = self._padding[parents] - spare
        written, room = self._written, ROOM * -(-(self._written + new) // ROOM)
        for name, held in self._caches.items():
            _, heads, _, size = held.shape
            made = np.zeros(
                (len(parents), heads, room, size), np.float32
            )  # no NaN may stand in what is masked
            made[:, :, :written] = held[parents, :, kept]
            self._caches[name] = self._bind(name, made)
            self._bind(name.replace("past", "present", 1), made, output=True)
        origin = np.zeros((len(parents), room), np.int64)
        origin[:, :written] = self._origin[parents, kept]
        self._origin = origin
        if self._engine.joinable:
            seen = np.arange(room) >= self._padding[:, None]  # nothing looks at columns that are not written
            self._bind(self._engine.own_mask, seen.astype(np.int64))
        self._keep_sources(self._source[parents])

    def _keep_sources(self, source: Ints) -> None:
        """Keep those that rows (R) still come from; each row reads its own copy where some have more rows."""
        kept, self._source, rows = np.unique(source, return_inverse=True, return_counts=True)
        alike = self._engine.shares and rows.min() == rows.max()
        shared = slice(None) if alike else self._source
        for name, held in self._sources.items():
            if len(kept) < len(held):
                self._sources[name] = held[kept]
            self._bind(name, self._sources[name][shared])

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


def _tensors(session: Any) -> list[Any]:
    return [*session.get_inputs(), *session.get_outputs()]


def _stacked(parts: Sequence[NDArray[Any]], axis: int, front: bool = False) -> NDArray[Any]:
    """Rows of all parts; along an axis zeros stand behind, or in front of, the shorter ones."""
    longest = max(part.shape[axis] for part in parts)
    filled = []
    for part in parts:
        missing = longest - part.shape[axis]
        widths = [(0, 0)] * part.ndim
        widths[axis] = (missing, 0) if front else (0, missing)
        filled.append(np.pad(part, widths))
    return np.concatenate(filled)


def _padded(sources: Sequence[Sequence[int]], left: bool) -> tuple[Ints, Ints]:
    """Ids and mask (B, T), padding on one side."""
    length = max(len(source) for source in sources)
    ids = np.zeros((len(sources), length), np.int64)
    mask = np.zeros_like(ids)
    for row, source in enumerate(sources):
        place = slice(length - len(source), length) if left else slice(len(source))
        ids[row, place], mask[row, place] = source, 1
    return ids, mask


def _on_one_thread(graphs: Mapping[str, Path], longest: int | None, kept: Sources | None) -> Engine:
    found = Engine(graphs, 1, longest)
    found._kept = kept
    return found


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
        with files.in_utf8(graph) as name:
            return onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions have no common base
        raise BundleError(graph.parent.parent, f"{graph.name} cannot be opened: {error}") from error
