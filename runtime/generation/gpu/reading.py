"""Sources and prompts on a GPU, read at once: the encoder's work, and the decoder's on what it begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.manifest import Graph
from headway.runtime.generation.base import Ints, Tokens
from headway.runtime.generation.gpu.device import Bound, Memory, OnGpu, Place, as_floats, shaped, width

PAST, PRESENT, CROSS = "past.", "present.", "cross."


@dataclass(frozen=True)
class Model:
    """The opened graphs of a model that writes."""

    place: Place
    graphs: Mapping[str, Graph]
    """as declared, by role"""
    decoder: OnGpu
    encoder: OnGpu | None
    longest: int | None
    """tokens that the decoder has positions for, if they are limited"""
    sources: int | None = None
    """at once, at most"""
    rows: int | None = None
    """of all sources at once, at most"""
    judged: int | None = None
    """texts whose every logit is given at once, at most"""

    @property
    def own_mask(self) -> str:
        """The decoder's input that tells of rows' padding."""
        return "attention_mask" if self.encoder is None else "decoder_attention_mask"

    @property
    def vocabulary(self) -> int:
        return next(int(t.shape[-1]) for t in self.graphs["decoder"].outputs if t.name == "logits")

    @property
    def caches(self) -> list[str]:
        """Their names, as inputs."""
        return [t.name for t in self.graphs["decoder"].inputs if t.name.startswith(PAST)]

    @property
    def in_place(self) -> bool:
        """Whether the decoder writes whole caches, and not their new columns alone."""
        return all("room" in t.shape for t in self.graphs["decoder"].outputs if t.name.startswith(PRESENT))

    def nbytes(self, name: str, shape: Sequence[int]) -> int:
        return int(np.prod(shape, dtype=np.int64)) * width(self.decoder.kinds[name])

    def positions(self, columns: Ints, padding: Ints) -> Ints:
        """Places (rows, columns) of tokens in rows that begin behind padding."""
        found: Ints = np.maximum(columns - padding[:, None], 0)
        return found if self.longest is None else np.minimum(found, self.longest - 1)


class Reading:
    """So many sources, or prompts, of one size. What they are is given later, again and again."""

    def __init__(self, model: Model, batch: int, length: int, step: int, kept: int) -> None:
        """
        Args:
            batch: sources.
            length: tokens of a source, for the encoder.
            step: tokens that the decoder reads at once.
            kept: of these, those whose logits are given.
        Raises:
            UnavailableError: the GPU has no room.
        """
        self.model, self.batch, self.length, self.step, self.kept = model, batch, length, step, kept
        named = {"batch": batch, "sources": batch, "length": length, "rows": batch, "step": step, "room": step, "kept": kept}  # fmt: skip
        shapes = shaped(model.graphs["decoder"], named)
        given = [name for name in shapes if model.decoder.kinds[name] == "int64"]
        if model.encoder is not None:
            given.append("source_ids")
        self._shapes = shapes | {"source_ids": (batch, length)}
        host = {name: (self._shapes[name], "int64") for name in given}
        device = {n: 8 * int(np.prod(self._shapes[n])) for n in given}
        device |= {
            n: model.nbytes(n, s) for n, s in shapes.items() if n not in given and not self._aliased(n)
        }
        self.memory = Memory(
            model.place, device, host | {"found": (shapes["logits"], model.decoder.kinds["logits"])}
        )
        self._decoder = model.decoder.prepared({name: self.bound(name) for name in shapes})
        self._encoder: Any = None
        if model.encoder is not None:
            role = {
                t.name: t.name
                for side in ("inputs", "outputs")
                for t in getattr(model.graphs["encoder"], side)
            }
            role["input_ids"] = "source_ids"
            self._encoder = model.encoder.prepared({name: self.bound(own) for name, own in role.items()})

    def _aliased(self, name: str) -> bool:
        return self.model.in_place and name.startswith(PRESENT)

    def bound(self, name: str) -> Bound:
        held = name.replace(PRESENT, PAST, 1) if self._aliased(name) else name
        return Bound(self.memory.at[held], self._shapes[name])

    def written(self, cache: str) -> int:
        """Where the keys or values that were read lie (batch, heads, step, head size)."""
        return self.bound(cache.replace(PAST, PRESENT, 1)).pointer

    def fill(self, sources: Sequence[Tokens], texts: Sequence[Tokens], left: bool) -> Ints:
        """What is read next; the columns before each text (batch). Rows that are not there have one token.

        Args:
            sources: for the encoder.
            texts: for the decoder, padded on the left, or else on the right.
        """
        host, step = self.memory.host, self.step
        lengths = np.ones(self.batch, np.int64)
        lengths[: len(texts)] = [len(text) for text in texts]
        padding = step - lengths if left else np.zeros_like(lengths)
        columns = np.arange(step)
        _put(host["input_ids"], texts, padding)
        host["logits_at"][:] = np.arange(step - self.kept, step)
        host["written"][...] = 0
        if "position_ids" in host:
            host["position_ids"][:] = self.model.positions(columns, padding)
        if self.model.own_mask in host:
            host[self.model.own_mask][:] = (columns >= padding[:, None]) & (
                columns < (padding + lengths)[:, None]
            )
        if self._encoder is not None:
            _put(host["source_ids"], sources, np.zeros_like(lengths))
            seen = np.ones(self.batch, np.int64)
            seen[: len(sources)] = [len(source) for source in sources]
            host["attention_mask"][:] = np.arange(self.length) < seen[:, None]
        return padding

    def give(self) -> None:
        """Give the stream the work."""
        stream = self.model.place.stream
        for name, array in self.memory.host.items():
            if name != "found":
                stream.upload(array, self.memory.at[name])
        if self._encoder is not None:
            assert self.model.encoder is not None
            self.model.encoder.execute(self._encoder)
        self.model.decoder.execute(self._decoder)

    def logits(self) -> NDArray[np.float32]:
        """Do the work: logits (batch, kept, V)."""
        place = self.model.place
        with place.lock:
            place.device.use()
            self.give()
            place.stream.download(self.memory.at["logits"], self.memory.host["found"])
            place.stream.synchronize()
        return as_floats(self.memory.host["found"])


def _put(array: NDArray[Any], rows: Sequence[Tokens], padding: Ints) -> None:
    array[...] = 0
    for row, tokens, first in zip(array, rows, padding.tolist(), strict=False):
        row[first : first + len(tokens)] = tokens
