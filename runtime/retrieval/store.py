"""What an index keeps on disk: files that never change, and a manifest, replaced whole, that names the valid ones."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import files
from headway.core.errors import BundleError, OutputError
from headway.core.manifest import File, inside

NAME = "headway-index.json"
FORMAT = "headway-index-2"
KINDS = ("part-", "graph-", "groups-", "deleted-")
"""what names of an index's files begin with, beside the manifest's"""

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Metric = Literal["cosine", "dot"]
"""how vectors are compared: by the angle between them, or by their inner product, lengths included"""


class Passage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of a part."""

    id: str
    text: str
    truncated: bool = False
    """it was longer than the embedder, and its vector is one of its beginning"""


class Identified(msgspec.Struct, frozen=True):
    """A passage of which only the id is read."""

    id: str


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle whose vectors an index holds."""

    bundle: str
    """a folder, absolute in memory and in an index told from the index's own; or OWNER/NAME@COMMIT"""
    seal: str
    """its manifest's SHA-256"""
    precision: str
    """the variant that made the vectors"""

    def told_from(self, folder: Path) -> Origin:
        """As an index in that folder keeps it, so that both may be moved together."""
        if not Path(self.bundle).is_absolute():
            return self
        return msgspec.structs.replace(self, bundle=f"./{os.path.relpath(self.bundle, folder)}")

    def found_from(self, folder: Path) -> Origin:
        """The other way round."""
        if not self.bundle.startswith("./"):
            return self
        return msgspec.structs.replace(self, bundle=os.path.normpath(folder / self.bundle))


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Passages one after the other. `NAME.jsonl` has a line each, `NAME.offsets` where each line begins, `NAME.f32`
    their vectors: of length 1 where the metric is "cosine"."""

    name: str
    rows: int

    @property
    def files(self) -> tuple[str, str, str]:
        return f"{self.name}.jsonl", f"{self.name}.offsets", f"{self.name}.f32"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One state of an index. Row numbers count through all parts, deleted passages included."""

    embedder: Origin
    corpus: str
    """SHA-256 of what the index was built from"""
    metric: Metric = "cosine"
    dimensions: int = 0
    longest: float = 1.0
    """with the metric "dot", a length that none of the vectors linked in the graph exceeds"""
    parts: list[Part] = []
    graph: str = ""
    """file of the HNSW graph; "" while the index is being built"""
    groups: str = ""
    """file of the first row with an equal vector and of the row of the graph's node, for each row (rows, 2)"""
    deleted: str = ""
    """file of the deleted rows, ascending; "" for none"""
    serial: int = 0
    """number of the next file, so that no name is used twice"""
    files: dict[str, File] = {}
    format: str = FORMAT

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def write(self, folder: Path) -> None:
        """Put this state in the place of the one before, with a seal over its content."""
        content = msgspec.to_builtins(self)
        text = json.dumps(content | {"seal": _seal(content)}, indent=1, ensure_ascii=False) + "\n"
        put(folder, NAME, [text.encode()])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises BundleError if there is none, or it is damaged, or of an unknown format."""
        if not (folder / NAME).is_file():
            raise BundleError(
                folder, f"it is no index: there is no {NAME} in it; `headway index build` writes one"
            )
        try:
            content = json.loads((folder / NAME).read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise BundleError(
                    folder,
                    f"{NAME} has another format than '{FORMAT}', which this version reads; build the index again",
                )
            if content.pop("seal", None) != _seal(content):
                raise BundleError(folder, f"{NAME} was changed after it was written (its seal does not fit)")
            return msgspec.convert(content, cls)
        except (ValueError, RecursionError, OSError) as error:
            raise BundleError(folder, f"{NAME} cannot be read: {error}") from error

    def verify(self, folder: Path, names: Iterable[str]) -> None:
        """Compare files with their sizes and SHA-256. Raises BundleError."""
        for name in names:
            path, declared = inside(folder, name), self.files.get(name)
            try:
                if declared is None or path.stat().st_size != declared.bytes:
                    raise BundleError(folder, f"{name} has not the size that {NAME} says")
                if files.sha256(path) != declared.sha256:
                    raise BundleError(folder, f"{name} was changed: its SHA-256 is not the one in {NAME}")
            except OSError as error:
                raise BundleError(folder, f"{name} cannot be read: {error.strerror}") from error


def _seal(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class _Opened:
    """The files of one part, mapped into memory."""

    lines: NDArray[np.uint8]
    offsets: Rows  # (rows + 1)
    vectors: Vectors  # (rows, D)


class Store:
    """One state of an index, mapped into memory: it stays readable when the index on disk moves on."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises BundleError if a file is missing, damaged or truncated."""
        self.folder, self.manifest = folder, manifest
        manifest.verify(folder, manifest.files)
        self.deleted: Rows = (
            _mapped(folder, manifest.deleted, np.int64) if manifest.deleted else np.zeros(0, np.int64)
        )
        self._parts = [self._opened(part) for part in manifest.parts]
        self._starts = list(accumulate((part.rows for part in manifest.parts), initial=0))
        self.groups: Rows = self._grouped()  # (rows, 2)

    def _opened(self, part: Part) -> _Opened:
        lines, offsets, vectors = part.files
        dimensions = self.manifest.dimensions
        opened = _Opened(
            _mapped(self.folder, lines, np.uint8),
            _mapped(self.folder, offsets, np.int64),
            _mapped(self.folder, vectors, np.float32).reshape(-1, dimensions),
        )
        if len(opened.offsets) != part.rows + 1 or len(opened.vectors) != part.rows:
            raise BundleError(self.folder, f"the files of {part.name} do not fit each other")
        return opened

    def _grouped(self) -> Rows:
        if not self.manifest.groups:
            return np.zeros((0, 2), np.int64)
        groups = _mapped(self.folder, self.manifest.groups, np.int64)
        if groups.size != 2 * self.rows or not ((groups >= 0) & (groups < self.rows)).all():
            raise BundleError(self.folder, f"{self.manifest.groups} does not fit the index's parts")
        return groups.reshape(-1, 2)

    @property
    def rows(self) -> int:
        """Passages, deleted ones included."""
        return self._starts[-1]

    def live(self) -> Rows:
        """Rows that are not deleted, ascending."""
        return np.setdiff1d(np.arange(self.rows, dtype=np.int64), self.deleted, assume_unique=True)

    def passage(self, row: int) -> Passage:
        part, place = self._place(row)
        begin, end = self._parts[part].offsets[place : place + 2]
        return msgspec.json.decode(self._parts[part].lines[begin:end].tobytes(), type=Passage)

    def vectors(self, rows: Sequence[int] | Rows) -> Vectors:
        """(N, D), of any rows."""
        found = np.empty((len(rows), self.manifest.dimensions), np.float32)
        order = np.asarray(rows, np.int64)
        owners = np.searchsorted(self._starts, order, side="right") - 1
        for part in np.unique(owners):
            own = owners == part
            found[own] = self._parts[part].vectors[order[own] - self._starts[part]]
        return found

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """First row and vectors (rows, D) of each part."""
        for start, part in zip(self._starts, self._parts, strict=False):
            yield start, part.vectors

    def lines(self, part: int) -> list[bytes]:
        """The passages of a part as they are written."""
        return self._parts[part].lines.tobytes().splitlines(keepends=True)

    def ids(self) -> dict[str, int]:
        """Row of each passage that is not deleted."""
        dead = set(self.deleted.tolist())
        decoder = msgspec.json.Decoder(Identified)
        numbered = enumerate(line for part in range(len(self._parts)) for line in self.lines(part))
        return {decoder.decode(line).id: row for row, line in numbered if row not in dead}

    def _place(self, row: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return part, row - self._starts[part]


def _mapped(folder: Path, name: str, kind: type[np.generic]) -> NDArray[Any]:
    try:
        return np.memmap(folder / name, kind, mode="r")
    except (OSError, ValueError) as error:
        raise BundleError(folder, f"{name} cannot be read: {error}") from error


def read(folder: Path) -> Store:
    """Open the newest state. Raises BundleError."""
    while True:
        manifest = Manifest.read(folder)
        try:
            return Store(folder, manifest)
        except BundleError:
            if Manifest.read(folder) == manifest:  # else a writer has just dropped this state's files
                raise


def put(folder: Path, name: str, chunks: Iterable[Any]) -> File:
    """Write a file whole: by another name, down to the disk, then renamed."""
    partial = folder / f"{name}.partial"
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
                digest.update(chunk)
                size += memoryview(chunk).nbytes
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, folder / name)
    finally:
        with suppress(OSError):
            partial.unlink()
    return File(bytes=size, sha256=digest.hexdigest())


def put_part(folder: Path, manifest: Manifest, lines: Sequence[bytes], vectors: Vectors) -> Manifest:
    """The state with a part more, of which only the files are written."""
    part = Part(f"part-{manifest.serial:06}", len(lines))
    offsets = np.array(list(accumulate(map(len, lines), initial=0)), np.int64)
    contents = (lines, [offsets.data], [np.ascontiguousarray(vectors, np.float32).data])
    written = {name: put(folder, name, content) for name, content in zip(part.files, contents, strict=True)}
    return msgspec.structs.replace(
        manifest,
        dimensions=vectors.shape[1],
        parts=[*manifest.parts, part],
        serial=manifest.serial + 1,
        files=manifest.files | written,
    )


def put_file(folder: Path, manifest: Manifest, field: str, content: Any) -> Manifest:
    """The state with another file as its `graph`, `groups` or `deleted`, of which only that file is written."""
    name = f"{field}-{manifest.serial:06}"
    kept = {n: f for n, f in manifest.files.items() if n != getattr(manifest, field)}
    kept[name] = put(folder, name, [content])
    changes: dict[str, Any] = {field: name, "serial": manifest.serial + 1, "files": kept}
    return msgspec.structs.replace(manifest, **changes)


def first_parts(manifest: Manifest, count: int) -> Manifest:
    """The state with its first parts alone."""
    parts = manifest.parts[:count]
    kept = {name for part in parts for name in part.files} | {
        manifest.graph,
        manifest.groups,
        manifest.deleted,
    }
    return msgspec.structs.replace(
        manifest, parts=parts, files={n: f for n, f in manifest.files.items() if n in kept}
    )


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove files of other states, and what killed writers left. Who has them open keeps them."""
    for path in folder.iterdir():
        ours = path.name.startswith(KINDS) or path.name == f"{NAME}.partial"
        if ours and path.name not in manifest.files:
            with suppress(OSError):
                path.unlink()


@contextmanager
def writing(folder: Path, shown: Path) -> Iterator[None]:
    """Be the one process that writes. Raises OutputError, naming `shown`, if another does or the disk does not let."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(shown, "another process is writing it") from error
            yield
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError.of(shown, error) from error
