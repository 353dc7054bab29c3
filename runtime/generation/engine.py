"""Encoder and decoder graphs in ONNX Runtime on the processor, with the caches between their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import BundleError, UnavailableError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class State:
    """What the decoder has read so far, row by row."""

    mask: Ints
    """1 for a token, 0 for padding: of the source (R, length), or of all that a decoder alone has read (R, past)"""
    past: dict[str, Floats]
    """keys and values (R, heads, past, head size) by the decoder's input"""
    cross: dict[str, Floats]
    """of the source (R, heads, length, head size); empty without an encoder"""

    def rows(self, chosen: Ints) -> State:
        """The state of some rows, in their order; one may be chosen several times."""
        if len(chosen) == len(self.mask) and (chosen == np.arange(len(chosen))).all():
            return self
        past = {name: held[chosen] for name, held in self.past.items()}
        cross = {name: held[chosen] for name, held in self.cross.items()}
        return State(self.mask[chosen], past, cross)


class Engine:
    """The opened graphs of one variant of a model."""

    def __init__(self, graphs: Mapping[str, Path], threads: int, longest: int | None = None) -> None:
        """Open the graphs by their roles, "decoder" and perhaps "encoder".

        `longest`: tokens that the decoder has positions for, if they are limited.
        Raises UnavailableError or BundleError.
        """
        self.longest = longest
        self.with_encoder = "encoder" in graphs
        self._encoder = _session(graphs["encoder"], threads) if self.with_encoder else None
        self._decoder = _session(graphs["decoder"], threads)
        shapes = {tensor.name: tensor.shape for tensor in self._decoder.get_inputs()}
        self._past = {name: shape for name, shape in shapes.items() if name.startswith("past.")}
        self._with_positions = "position_ids" in shapes
        self._outputs = [tensor.name for tensor in self._decoder.get_outputs()]
        self.vocabulary = int(self._decoder.get_outputs()[0].shape[-1])

    def begin(self, sources: Sequence[Sequence[int]], start: int) -> tuple[Floats, State]:
        """Read sources, as the encoder's input or as the decoder's prompts: logits (B, V) of their first tokens.

        `start`: the token that a decoder behind an encoder begins with.
        """
        ids, mask = _padded(sources, left=self._encoder is None)
        if self._encoder is None:
            return self.step(ids, self._unread(mask[:, :0], {}), mask)
        names = [tensor.name for tensor in self._encoder.get_outputs()]
        values = self._encoder.run(names, {"input_ids": ids, "attention_mask": mask})
        state = self._unread(mask, dict(zip(names, values, strict=True)))
        return self.step(np.full((len(ids), 1), start), state)

    def step(self, ids: Ints, state: State, mask: Ints | None = None) -> tuple[Floats, State]:
        """Read more tokens (R, step), with a mask where some are padding: logits (R, V) after the last one."""
        logits, state = self._run(ids, state, mask, np.array([ids.shape[1] - 1]))
        return logits[:, 0], state

    def logits(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        """What a decoder alone expects after each token of each text: its logits (T, V)."""
        ids, mask = _padded(texts, left=True)
        found, _ = self._run(ids, self._unread(mask[:, :0], {}), mask, np.arange(ids.shape[1]))
        return [logits[len(logits) - len(text) :] for logits, text in zip(found, texts, strict=True)]

    def _unread(self, mask: Ints, cross: dict[str, Floats]) -> State:
        shapes = {name: (len(mask), heads, 0, size) for name, (_, heads, _, size) in self._past.items()}
        return State(mask, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, cross)

    def _run(self, ids: Ints, state: State, mask: Ints | None, logits_at: Ints) -> tuple[Floats, State]:
        """Logits (R, kept, V) at some of the new tokens."""
        if self._encoder is None:
            read = np.concatenate([state.mask, np.ones_like(ids) if mask is None else mask], axis=1)
            state = replace(state, mask=read)
        feeds = {"input_ids": ids, "attention_mask": state.mask, "logits_at": logits_at}
        if self._with_positions:
            positions = np.maximum(state.mask.cumsum(axis=1) - 1, 0)
            feeds["position_ids"] = positions[:, -ids.shape[1] :]
        logits, *present = self._decoder.run(self._outputs, {**feeds, **state.past, **state.cross})
        return logits, replace(state, past=dict(zip(self._past, present, strict=True)))


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
