"""A decoder's steps on a GPU: a token for each row, caches that are written in place and that rows take over."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from headway.runtime.generation.base import Ints
from headway.runtime.generation.gpu.device import ALIGNED, Bound, Memory, shaped, width
from headway.runtime.generation.gpu.reading import CROSS, PAST, PRESENT, Reading

COUNTED = ALIGNED // 8
"""numbers that `written` has room for, so that positions behind it begin where a tensor may"""


class Alike(NamedTuple):
    """Caches of one shape, which are taken over in one launch."""

    names: list[str]
    heads: int
    bytes: int
    """of a column"""


class Steps:
    """Caches of so many rows and columns, and a step that reads one token more in each row."""

    def __init__(self, reading: Reading, rows: int, room: int, ids: int | None = None) -> None:
        """
        Args:
            reading: of the sources, of which each has equally many rows, side by side.
            room: columns of the caches.
            ids: where the GPU has the tokens of a step (rows); none: in the own memory, as `input_ids`.
        Raises:
            UnavailableError: the GPU has no room.
        """
        model = self._model = reading.model
        self.rows, self.room, self._reading = rows, room, reading
        named = {
            "sources": reading.batch,
            "length": reading.length,
            "rows": rows,
            "step": 1,
            "room": room,
            "kept": 1,
        }
        self._shapes = shaped(model.graphs["decoder"], named)
        self._groups = self._alike()
        counts = (COUNTED + rows) * 8
        given = ["logits_at", *([model.own_mask] if model.own_mask in self._shapes else [])]
        device = {name: 8 * int(np.prod(self._shapes[name])) for name in given}
        device |= {
            "counters": counts,
            "input_ids": 8 * rows,
            "parents": 8 * rows,
            "itself": 8 * rows,
            "one": 8,
        }
        pointers = {
            f"{what}{i}": 8 * len(group.names)
            for i, group in enumerate(self._groups)
            for what in ("own", "new", "other")
        }
        device |= pointers
        for name, shape in self._shapes.items():
            if name.startswith((PAST, PRESENT, "logits")) and name != "logits_at" and not self._aliased(name):
                device[name] = model.nbytes(name, shape)
        host: dict[str, tuple[tuple[int, ...], str]] = {n: (self._shapes[n], "int64") for n in given}
        host |= {"counters": ((COUNTED + rows,), "int64"), "input_ids": ((rows,), "int64")}
        host |= {n: ((device[n] // 8,), "int64") for n in ("parents", "itself", "one", *pointers)}
        host["found"] = (self._shapes["logits"], model.decoder.kinds["logits"])
        self.memory = Memory(model.place, device, host)
        self._ids = ids or self.memory.at["input_ids"]
        self._fill()
        self._context: Any = model.decoder.prepared({name: self.bound(name) for name in self._shapes})

    def _alike(self) -> list[Alike]:
        found: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in self._model.caches:
            _, heads, _, size = self._shapes[name]
            found[heads, size * width(self._model.decoder.kinds[name])].append(name)
        return [Alike(names, *key) for key, names in found.items()]

    def _aliased(self, name: str) -> bool:
        return self._model.in_place and name.startswith(PRESENT)

    def _fill(self) -> None:
        """What stays the same."""
        host = self.memory.host
        host["itself"][:], host["one"][:], host["logits_at"][:] = np.arange(self.rows), 1, 0
        for i, group in enumerate(self._groups):
            host[f"own{i}"][:] = [self.bound(name).pointer for name in group.names]
            host[f"new{i}"][:] = [self.bound(name.replace(PAST, PRESENT, 1)).pointer for name in group.names]
            host[f"other{i}"][:] = [self._reading.written(name) for name in group.names]

    def bound(self, name: str) -> Bound:
        shape, at = self._shapes[name], self.memory.at
        if name == "input_ids":
            return Bound(self._ids, shape)
        if name == "written":
            return Bound(at["counters"], shape)
        if name == "position_ids":
            return Bound(at["counters"] + 8 * COUNTED, shape)
        if name.startswith(CROSS) or (name not in at and not self._aliased(name)):
            return Bound(self._reading.bound(name).pointer, shape)
        return Bound(at[name.replace(PRESENT, PAST, 1) if self._aliased(name) else name], shape)

    def begin(self, written: int, padding: Ints) -> None:
        """Tell what is written, with so many columns of padding before each row, and give the stream the copies."""
        host, model = self.memory.host, self._model
        self.count(written, padding)
        if model.own_mask in host:
            host[model.own_mask][:] = np.arange(self.room) >= padding[:, None]

    def count(self, written: int, padding: Ints) -> None:
        counters = self.memory.host["counters"]
        counters[:COUNTED] = written
        counters[COUNTED:] = self._model.positions(np.array([written]), padding)[:, 0]

    def upload(self, *names: str) -> None:
        """Arrays of the host, all of them if none is named; those that the GPU gives are left out."""
        for name in names or [n for n in self.memory.host if n not in ("found", "input_ids", "parents")]:
            self._model.place.stream.upload(self.memory.host[name], self.memory.at[name])

    def spread(self, parents: int) -> None:
        """Take over what the sources' reading has written, of the row that each row is told."""
        self._copy("other", parents, self._reading.step)

    def take_over(self, steps: Steps, parents: int) -> None:
        """Take over the caches of other steps of the same sources, of which nothing may be asked any more."""
        for i, group in enumerate(self._groups):
            self.memory.host[f"other{i}"][:] = [steps.bound(name).pointer for name in group.names]
            self.upload(f"other{i}")
        self._copy("other", parents, steps.room)

    def follow(self, parents: int) -> None:
        """Let every row be what another one was; who is followed must follow itself."""
        self._copy("own", parents, self.room)

    def _copy(self, of: str, parents: int, columns: int) -> None:
        at, place = self.memory.at, self._model.place
        for i, group in enumerate(self._groups):
            shape = (len(group.names), self.rows, group.heads, columns, self.room, group.bytes)
            place.cuda.follow(
                at[f"{of}{i}"], at[f"own{i}"], parents, at["counters"], shape, stream=place.stream.pointer
            )

    def give(self) -> None:
        """Read the tokens: logits, and caches with one column more."""
        self._model.decoder.execute(self._context)
        if self._model.in_place:
            return
        at, place = self.memory.at, self._model.place
        for i, group in enumerate(self._groups):
            shape = (len(group.names), self.rows, group.heads, 1, self.room, group.bytes)
            place.cuda.follow(
                at[f"new{i}"],
                at[f"own{i}"],
                at["itself"],
                at["one"],
                shape,
                at["counters"],
                place.stream.pointer,
            )

    def advance(self) -> None:
        """Count the column that was written."""
        place = self._model.place
        place.cuda.advance(self.memory.at["counters"], COUNTED + self.rows, 1, place.stream.pointer)
