"""How a batch lies in a GPU's memory: padded to a few lengths, or end to end; and in which places it is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headway.core.manifest import Tensor
from headway.cpp_ext import mask, pad
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import SHORTEST, TOKENS, Place, Shapes

INPUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "input_ids": ("int64", ("tokens",)),
    "token_type_ids": ("int64", ("tokens",)),
    "positions": ("int64", ("tokens",)),
    "starts": ("int64", ("tokens",)),
    "firsts": ("int64", ("batch",)),
    "bounds": ("int32", ("bounds",)),
    "places": ("int32", ("batch", "longest")),
}
"""what a graph without padding may take: of each token its place in its text, and where that text starts; of each text
its first token, and where texts begin and end; the places of all tokens in a padded batch, then those of the padding"""
LONG = 256
"""tokens of the longest text that such a graph is told of, at least: from here on no kernel of ONNX Runtime pads"""
PLACES = 1 << 18
"""texts times the tokens of the longest, at most"""
TEXTS = 8
"""texts of a place, at least; those that are not there take no time"""
EIGHTHS = 8
"""steps between a number of tokens and its double"""


class Piece(NamedTuple):
    """A part of a batch that goes through the engine together."""

    rows: Ragged
    place: Place


class Layout(Protocol):
    """What lanes ask of a way to lay out batches."""

    pads: bool
    """whether a batch's time depends on how alike its lengths are"""
    longest: int
    """tokens that the model takes"""
    kept: int
    """places that a lane keeps ready, those last used"""

    def largest(self, tensor: Tensor) -> int:
        """Elements of an input or output in the place where it has most."""
        ...

    def pieces(self, batch: Ragged) -> list[Piece]:
        """A batch in as few parts as the places allow."""
        ...

    def fill(self, given: Mapping[str, NDArray[Any]], batch: Ragged, place: Place) -> None:
        """Write the graph's inputs of a batch, which has no more than the place."""
        ...

    def answer(self, found: NDArray[Any], tensor: Tensor, batch: Ragged, longest: int) -> NDArray[np.float32]:
        """An output (B, …) of a batch, from what the graph gave; of tokens (B, longest, …)."""
        ...

    def texts(self, tensor: Tensor, batch: Ragged, place: Place) -> NDArray[np.int64] | None:
        """Where in an output of tokens each text begins, in tokens (B); None: the output is of texts."""
        ...


def sizes(tensor: Tensor, place: Place) -> tuple[int, ...]:
    """What a declared shape is in a place."""
    named = {
        "batch": place.rows, "length": place.length, "tokens": place.tokens, "bounds": place.rows + 1,
        "longest": place.length,
    }  # fmt: skip
    return tuple(named[size] if isinstance(size, str) else size for size in tensor.shape)


class Padded:
    """Texts side by side, as long as the place is (B, T)."""

    pads = True
    kept = 48

    def __init__(self, shapes: Shapes, pad_id: int) -> None:
        self.shapes, self.longest, self._pad_id = shapes, shapes.longest, pad_id

    def largest(self, tensor: Tensor) -> int:
        places = (self.shapes.place(self.shapes.most(n), n) for n in self.shapes.lengths)
        return max(math.prod(sizes(tensor, place)) for place in places)

    def pieces(self, batch: Ragged) -> list[Piece]:
        longest = int(batch.lengths.max())
        most = self.shapes.most(longest)
        parts = [np.arange(at, min(at + most, len(batch))) for at in range(0, len(batch), most)]
        return [Piece(batch.take(part), self.shapes.place(len(part), longest)) for part in parts]

    def fill(self, given: Mapping[str, NDArray[Any]], batch: Ragged, place: Place) -> None:
        """Rows that are not there see one token, as no row may see none."""
        made = {
            "input_ids": lambda: pad(batch.ids, batch.offsets, place.length, self._pad_id),
            "attention_mask": lambda: mask(batch.offsets, place.length),
            "token_type_ids": lambda: pad(batch.types, batch.offsets, place.length, 0),
        }
        for name, array in given.items():
            array[: len(batch)] = made[name]()
            array[len(batch) :] = 0
            if name == "attention_mask":
                array[len(batch) :, 0] = 1

    def answer(self, found: NDArray[Any], tensor: Tensor, batch: Ragged, longest: int) -> NDArray[np.float32]:
        rows = found[: len(batch)]
        return np.array(rows[:, :longest] if "length" in tensor.shape else rows, np.float32)

    def texts(self, tensor: Tensor, batch: Ragged, place: Place) -> NDArray[np.int64] | None:
        return np.arange(len(batch)) * place.length if "length" in tensor.shape else None


class PaddingFree:
    """Texts end to end (N). What is missing to the place's tokens are texts of their own, behind the others."""

    pads = False
    kept = 128

    def __init__(self, longest: int, tokens: int = TOKENS) -> None:
        """
        Args:
            longest: tokens that the model takes.
            tokens: in a batch, at most (one text may be longer).
        """
        self.longest, self._tokens = longest, max(longest, tokens)

    def largest(self, tensor: Tensor) -> int:
        lengths = {self._bound(n) for n in (1 << i for i in range(self.longest.bit_length() + 1))}
        places = (Place(0, _double(max(TEXTS, PLACES // n), 1), n, self._steps[-1]) for n in lengths)
        return max(math.prod(sizes(tensor, place)) for place in places)

    def pieces(self, batch: Ragged) -> list[Piece]:
        """Texts in the order given, until a place is full."""
        bounds, lengths, at = batch.offsets, batch.lengths, 0
        found = []
        while at < len(batch):
            end = max(at + 1, int(np.searchsorted(bounds, bounds[at] + self._tokens, side="right")) - 1)
            longest = self._bound(int(lengths[at:end].max()))
            end = min(end, at + max(1, PLACES // longest - self._spare(longest)))
            part = batch.take(np.arange(at, end))
            found.append(Piece(part, self.place(part)))
            at = end
        return found

    def place(self, batch: Ragged) -> Place:
        """Where a batch goes, which has no more than one place."""
        count, longest = len(batch.ids), self._bound(int(batch.lengths.max()))
        tokens = next(step for step in self._steps if step >= count)
        texts = len(batch) + -(-(tokens - count) // longest)
        return Place(0, _double(texts, TEXTS), longest, tokens)

    def fill(self, given: Mapping[str, NDArray[Any]], batch: Ragged, place: Place) -> None:
        values = arranged(batch, place)
        for name, array in given.items():
            array[...] = values[name]

    def answer(self, found: NDArray[Any], tensor: Tensor, batch: Ragged, longest: int) -> NDArray[np.float32]:
        if "tokens" not in tensor.shape:
            return np.array(found[: len(batch)], np.float32)
        padded = np.zeros((len(batch), longest, *found.shape[1:]), np.float32)
        padded[mask(batch.offsets, longest).astype(bool)] = found[: len(batch.ids)]
        return padded

    def texts(self, tensor: Tensor, batch: Ragged, place: Place) -> NDArray[np.int64] | None:
        return batch.offsets[:-1] if "tokens" in tensor.shape else None

    @cached_property
    def _steps(self) -> tuple[int, ...]:
        """Tokens of the places: 16, 32 … 128, 144 …, eight to an octave, so that less than an eighth is added."""
        steps = {SHORTEST * i for i in range(1, EIGHTHS + 1)}
        octave = SHORTEST * EIGHTHS
        while octave < self._tokens:
            steps |= {octave + octave // EIGHTHS * i for i in range(1, EIGHTHS + 1)}
            octave *= 2
        return (*sorted(step for step in steps if step < self._tokens), self._tokens)

    def _bound(self, length: int) -> int:
        return _double(length, LONG)

    def _spare(self, longest: int) -> int:
        """Texts of what is missing to a place, at most."""
        return -(-max(SHORTEST, self._tokens // EIGHTHS) // longest)


def arranged(batch: Ragged, place: Place) -> dict[str, NDArray[Any]]:
    """All inputs of a graph without padding."""
    ends = [*range(len(batch.ids), place.tokens, place.length), place.tokens]  # of texts that are not there
    bounds = np.full(place.rows + 1, place.tokens, np.int64)
    bounds[: len(batch)] = batch.offsets[:-1]
    bounds[len(batch) : len(batch) + len(ends)] = ends
    lengths = np.diff(bounds)
    starts = np.repeat(bounds[:-1], lengths)
    positions = np.arange(place.tokens) - starts
    places = np.repeat(np.arange(place.rows) * place.length, lengths) + positions
    empty = np.ones(place.rows * place.length, np.bool_)
    empty[places] = False
    return {
        "input_ids": _filled(batch.ids, place.tokens),
        "token_type_ids": _filled(batch.types, place.tokens),
        "positions": positions,
        "starts": starts,
        "firsts": np.where(lengths > 0, bounds[:-1], 0),
        "bounds": bounds,
        "places": np.concatenate([places, np.flatnonzero(empty)]).reshape(place.rows, place.length),
    }


def _filled(flat: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """So many numbers, zeros behind those that are there."""
    whole = np.zeros(count, np.int32)
    whole[: len(flat)] = flat
    return whole


def _double(count: int, least: int) -> int:
    """The first of `least`, 2 · `least`, 4 · `least` … that is enough."""
    return least << max(0, (-(-count // least) - 1).bit_length())
