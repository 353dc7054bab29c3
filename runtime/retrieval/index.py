"""A vector index of passages: built in checkpointed parts, searched by an HNSW graph or exactly, changed atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from headway.core import data, files
from headway.core.data import Record
from headway.core.errors import BundleError, InputError, OutputError, UnavailableError, UsageError
from headway.core.progress import Progress, silent
from headway.core.threads import budget
from headway.runtime.fork_safety import ForkSafeLock
from headway.runtime.retrieval import store
from headway.runtime.retrieval.store import Manifest, Origin, Passage, Rows, Store, Vectors

PART = 4096
"""passages in a part, at most: what a killed build loses"""
PART_BYTES = 64 * 2**20
"""bytes of text in a part, about: parts of long passages have fewer"""
BATCH = 512
"""passages that are embedded, and linked in the graph, at a time"""
LINKS = 16
"""edges of a passage in the graph (twice as many in its lowest layer)"""
EXPANSION_BUILD = 128
"""candidates for its edges"""
EXPANSION_SEARCH = 128
"""candidates in a search"""
COMPACT = 0.5
"""share of deleted passages above which an index is written anew without them"""


class Embedder(Protocol):
    """What makes vectors of texts. `headway.runtime.retrieval.BundleEmbedder` does by a bundle."""

    @property
    def origin(self) -> Origin: ...

    def passages(self, records: Sequence[Record]) -> Vectors:
        """(N, D) of the records' texts as passages."""
        ...

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(N, D) of texts as queries."""
        ...


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    id: str
    text: str
    score: float
    """cosine with the query; after a reranker, the probability that the passage is relevant"""


@dataclass(frozen=True)
class _State:
    """What a search reads. Replaced as one, so that a search in another thread sees the old or the new."""

    store: Store
    graph: Any


class Index:
    """An opened index. Searches may run in several threads; another process's changes are seen by opening anew."""

    def __init__(self, folder: Path, opened: Store) -> None:
        self.folder, self._state = folder, _State(opened, _view(opened))
        self._searching = ForkSafeLock()  # the graph has one scratch space a thread number, not a thread

    @classmethod
    def build(
        cls,
        corpus: str | Path,
        embedder: Embedder,
        output: str | Path,
        *,
        columns: Mapping[str, str] | None = None,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Index:
        """Embed a corpus of {"id", "text"} and write an index, which appears whole or not at all.

        A build that was interrupted goes on where it was, and ends with the same bytes.
        Raises DataError for a record that cannot be used, OutputError or UnavailableError where the disk refuses.
        """
        _usearch()
        output = Path(output).absolute()
        files.refuse_taken(output, overwrite)
        count = _check(corpus, columns, (), progress)
        building = output.parent / f".{output.name}.building"
        building.mkdir(exist_ok=True)
        with store.writing(building, output):
            begun = Manifest(embedder=embedder.origin.told_from(output), corpus=_digest(corpus, columns))
            manifest = _resumed(building, output, begun, overwrite)
            if not manifest.graph:
                records = islice(data.read(corpus, columns), manifest.rows, None)
                left = count - manifest.rows
                pairs = progress(_embedded(records, embedder, manifest.dimensions), "embedding", left)
                manifest = _appended(building, manifest, pairs, checkpoint=True)
                manifest = _with_graph(building, manifest, None, 0, progress)
                manifest.write(building)
            store.sweep(building, manifest)
            _move(building, output)
        return cls.open(output)

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Open the newest state. Raises BundleError if it is no index, or damaged."""
        folder = Path(folder).absolute()
        opened = store.read(folder)
        if not opened.manifest.graph:
            raise BundleError(folder, "its build was not finished")
        return cls(folder, opened)

    @property
    def origin(self) -> Origin:
        """The bundle that made the vectors, at its place as seen from where the index is now."""
        return self._state.store.manifest.embedder.found_from(self.folder)

    @property
    def dimensions(self) -> int:
        return self._state.store.manifest.dimensions

    def __len__(self) -> int:
        opened = self._state.store
        return opened.rows - len(opened.deleted)

    def search(self, vectors: Any, k: int = 10, *, exact: bool = False) -> list[list[Hit]]:
        """The passages whose vectors are most similar to each of `vectors` (Q, D), best first.

        `exact` compares with every passage; else the graph is followed, and may rarely miss one.
        """
        if k < 1:
            raise UsageError("--top", f"must be at least 1, not {k}")
        state = self._state
        queries = _checked_queries(vectors, state.store.manifest.dimensions)
        if exact:
            found = _exact(state.store, queries, k)
        else:
            with self._searching:
                found = _near(state, queries, k)
        return [_hits(state.store, query, rows, k) for query, rows in zip(queries, found, strict=True)]

    def passages(self) -> Iterator[Passage]:
        """All that are not deleted, in the order in which they came."""
        opened = self._state.store
        return (opened.passage(int(row)) for row in opened.live())

    def vectors(self) -> Vectors:
        """(N, D), of length 1, in the order of `passages`."""
        opened = self._state.store
        return opened.vectors(opened.live())

    def add(
        self,
        corpus: str | Path,
        embedder: Embedder,
        *,
        columns: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> int:
        """Add a corpus of {"id", "text"}, all of it or nothing; returns the number of passages.

        Raises UsageError for another embedder, DataError for a record that cannot be used or an id that is known.
        """
        self.refuse_other(embedder.origin)

        def change(old: Store) -> Manifest:
            count = _check(corpus, columns, old.ids().keys(), progress)
            added = _embedded(data.read(corpus, columns), embedder, old.manifest.dimensions)
            return _extended(old, progress(added, "embedding", count), progress)

        before = len(self)
        self._change(change)
        return len(self) - before

    def delete(self, ids: Collection[str], *, progress: Progress = silent) -> int:
        """Delete passages, all of them or none; returns their number. Raises UsageError for an id that is not there."""

        def change(old: Store) -> Manifest:
            known = old.ids()
            if unknown := [i for i in ids if i not in known]:
                raise UsageError("--ids", f"the index has no passage '{unknown[0]}'")
            gone = np.array(sorted({known[i] for i in ids}), np.int64)
            deleted = np.union1d(old.deleted, gone)
            if COMPACT * old.rows < len(deleted) < old.rows:
                return _compacted(old, deleted, progress)
            return store.put_file(old.folder, old.manifest, "deleted", deleted.data)

        if isinstance(ids, str) or not ids:
            raise UsageError("--ids", "wants ids of passages")
        self._change(change)
        return len(set(ids))

    def refuse_other(self, origin: Origin) -> None:
        """Raise UsageError unless `origin` is the bundle, and its variant, that made the vectors."""
        ours = self.origin
        if origin.seal != ours.seal:
            raise UsageError(
                "--embedder",
                f"{origin.bundle} is not the bundle that made the index's vectors, {ours.bundle}",
            )
        if origin.precision != ours.precision:
            raise UsageError(
                "--embedder", f"is open as {origin.precision}; the index's vectors are {ours.precision}'s"
            )

    def _change(self, change: Callable[[Store], Manifest]) -> None:
        """Go from the newest state on disk to the one whose files `change` writes, or stay at it."""
        with store.writing(self.folder, self.folder):
            newest = store.read(self.folder)
            self._state = _State(newest, _view(newest))
            try:
                manifest = change(newest)
                manifest.write(self.folder)
            except BaseException:
                store.sweep(self.folder, newest.manifest)
                raise
            store.sweep(self.folder, manifest)
            opened = Store(self.folder, manifest)
            self._state = _State(opened, _view(opened))


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise UnavailableError(
            "usearch, which searches vectors,", "pip install 'headway[retrieval]'"
        ) from error
    return usearch.index


def _view(opened: Store) -> Any:
    """The graph, mapped into memory."""
    path = opened.folder / opened.manifest.graph
    try:
        graph = _usearch().Index.restore(str(path), view=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise BundleError(opened.folder, f"{path.name} cannot be read: {error}") from error
    if graph is None or graph.ndim != opened.manifest.dimensions or len(graph) != opened.rows:
        raise BundleError(opened.folder, f"{path.name} does not fit the index's parts")
    graph.expansion_search = EXPANSION_SEARCH
    return graph


def _check(
    corpus: str | Path, columns: Mapping[str, str] | None, known: Collection[str], progress: Progress
) -> int:
    """The number of records, all of them usable, with ids that are new. Raises DataError at the first that is not."""
    if str(corpus) == "-":
        raise UsageError("CORPUS", "must be a file, because it is read twice")
    seen: set[str] = set()
    for record in progress(data.read(corpus, columns), "checking"):
        own = record.text("id")
        record.text("text")
        if own in seen:
            raise record.error(f"'{own}' occurs twice", "id")
        if own in known:
            raise record.error(f"'{own}' is in the index already", "id")
        seen.add(own)
    return len(seen)


def _digest(corpus: str | Path, columns: Mapping[str, str] | None) -> str:
    """What an interrupted build must have been made of to be continued."""
    named = "".join(f" {ours}={theirs}" for ours, theirs in sorted((columns or {}).items()))
    return files.sha256_of_data(Path(corpus)) + named


def _resumed(building: Path, output: Path, begun: Manifest, overwrite: bool) -> Manifest:
    """The state that an interrupted build of the same left, without what is damaged; else `begun`."""
    try:
        left = Manifest.read(building)
    except BundleError:
        return begun
    if (left.embedder, left.corpus) != (begun.embedder, begun.corpus):
        if not overwrite:
            raise OutputError(
                output, "a build of another corpus or embedder was interrupted; give --overwrite to drop it"
            )
        return begun
    whole = 0
    with suppress(BundleError):
        for part in left.parts:
            left.verify(building, part.files)
            whole += 1
        left.verify(building, left.files)
        return left
    return msgspec.structs.replace(store.first_parts(left, whole), graph="", serial=whole)


def _embedded(
    records: Iterator[Record], embedder: Embedder, dimensions: int
) -> Iterator[tuple[bytes, Vectors]]:
    """The line and the vector (D), of length 1, of each record; `dimensions` is 0 where any D will do."""
    while batch := list(islice(records, BATCH)):
        vectors = _unit(embedder.passages(batch))
        if dimensions and vectors.shape[1] != dimensions:
            raise UsageError(
                "--embedder", f"makes {vectors.shape[1]} numbers a text, the index has {dimensions}"
            )
        for record, vector in zip(batch, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise record.error("its vector is not finite", "text")
            line = msgspec.json.encode(Passage(record.text("id"), record.text("text")))
            yield line + b"\n", vector


def _unit(vectors: Vectors) -> Vectors:
    long = vectors.astype(np.float64)
    return np.asarray(long / np.maximum(np.linalg.norm(long, axis=-1, keepdims=True), 1e-12), np.float32)


def _appended(
    folder: Path, manifest: Manifest, pairs: Iterator[tuple[bytes, Vectors]], checkpoint: bool = False
) -> Manifest:
    """The state with parts more; `checkpoint`: written to disk after each of them."""
    for lines, vectors in _parts(pairs):
        manifest = store.put_part(folder, manifest, lines, vectors)
        if checkpoint:
            manifest.write(folder)
    return manifest


def _parts(pairs: Iterator[tuple[bytes, Vectors]]) -> Iterator[tuple[list[bytes], Vectors]]:
    """Lines and vectors (rows, D) of one part after the other."""
    lines: list[bytes] = []
    vectors: list[Vectors] = []
    size = 0
    for line, vector in pairs:
        lines.append(line)
        vectors.append(vector)
        size += len(line)
        if len(lines) == PART or size >= PART_BYTES:
            yield lines, np.stack(vectors)
            lines, vectors, size = [], [], 0
    if lines:
        yield lines, np.stack(vectors)


def _with_graph(folder: Path, manifest: Manifest, graph: Any, first: int, progress: Progress) -> Manifest:
    """The state with its rows from `first` on linked in the graph: in order, by one thread, so always the same."""
    opened = Store(folder, manifest)
    graph = graph if graph is not None else _empty_graph(manifest.dimensions)
    for rows in progress(
        [np.arange(i, min(i + BATCH, opened.rows)) for i in range(first, opened.rows, BATCH)], "linking"
    ):
        graph.add(rows.astype(np.uint64), opened.vectors(rows), threads=1)
    return store.put_file(folder, manifest, "graph", graph.save())


def _empty_graph(dimensions: int) -> Any:
    return _usearch().Index(
        ndim=dimensions,
        metric="ip",
        dtype="f16",
        connectivity=LINKS,
        expansion_add=EXPANSION_BUILD,
        expansion_search=EXPANSION_SEARCH,
    )


def _extended(old: Store, pairs: Iterator[tuple[bytes, Vectors]], progress: Progress) -> Manifest:
    """The state with more passages. A last part that is not full is written anew with them."""
    manifest, last = old.manifest, len(old.manifest.parts) - 1
    if manifest.parts[last].rows < PART:
        start = old.rows - manifest.parts[last].rows
        kept = zip(old.lines(last), old.vectors(range(start, old.rows)), strict=True)
        manifest, pairs = store.first_parts(manifest, last), chain(kept, pairs)
    manifest = _appended(old.folder, manifest, pairs)
    graph = _usearch().Index.restore(str(old.folder / manifest.graph), view=False)
    return _with_graph(old.folder, manifest, graph, old.rows, progress)


def _compacted(old: Store, deleted: Rows, progress: Progress) -> Manifest:
    """The state written anew without the deleted rows."""
    fresh = msgspec.structs.replace(old.manifest, parts=[], graph="", deleted="", files={})
    gone = set(deleted.tolist())
    numbered = enumerate(line for part in range(len(old.manifest.parts)) for line in old.lines(part))
    kept = ((line, old.vectors([row])[0]) for row, line in numbered if row not in gone)
    return _with_graph(old.folder, _appended(old.folder, fresh, kept), None, 0, progress)


def _move(building: Path, output: Path) -> None:
    replaced = output.parent / f".{output.name}.replaced-{os.getpid()}"
    if output.exists():
        os.rename(output, replaced)
    os.rename(building, output)
    shutil.rmtree(replaced, ignore_errors=True)


def _checked_queries(vectors: Any, dimensions: int) -> Vectors:
    try:
        queries = np.asarray(vectors, np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(0, "wants vectors of numbers") from error
    if queries.ndim != 2 or queries.shape[1] != dimensions:
        raise InputError(0, f"wants vectors (Q, {dimensions}), not {queries.shape}")
    for place in np.flatnonzero(~np.isfinite(queries).all(axis=1)):
        raise InputError(int(place), "is not finite")
    return _unit(queries)


def _exact(opened: Store, queries: Vectors, k: int) -> list[Rows]:
    """Rows of the k best of each query, by comparing with all."""
    scores = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start, vectors in opened.blocks():
        own = np.arange(start, start + len(vectors), dtype=np.int64)
        similar = queries @ vectors.T  # (Q, rows)
        similar[:, np.isin(own, opened.deleted, assume_unique=True)] = -np.inf
        scores = np.hstack([scores, similar])
        rows = np.hstack([rows, np.broadcast_to(own, similar.shape)])
        best = np.argsort(-scores, axis=1, kind="stable")[:, : 2 * k]  # more, as these scores are rounded
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return [own[np.isfinite(s)] for own, s in zip(rows, scores, strict=True)]


def _near(state: _State, queries: Vectors, k: int) -> list[Rows]:
    """Rows near each query, of which k or more (if there are) are not deleted, by the graph."""
    opened = state.store
    found: list[Rows] = [np.zeros(0, np.int64) for _ in queries]
    todo, fetch = np.arange(len(queries)), min(2 * k, opened.rows)
    while len(todo):
        matches = state.graph.search(queries[todo], fetch, threads=min(budget(), len(todo)))
        counts = np.atleast_1d(matches.counts) if hasattr(matches, "counts") else [len(matches.keys)]
        short = []
        for i, keys, count in zip(todo, matches.keys.reshape(len(todo), -1), counts, strict=True):
            rows = keys[:count].astype(np.int64)
            found[i] = rows[~np.isin(rows, opened.deleted)]
            if len(found[i]) < k:
                short.append(i)
        if fetch == opened.rows:
            break
        todo, fetch = np.array(short, np.int64), min(4 * fetch, opened.rows)
    return found


def _hits(opened: Store, query: Vectors, rows: Rows, k: int) -> list[Hit]:
    """The k best of `rows`, by cosines in 64 bits, which do not depend on how the rows were found."""
    scores = np.einsum("nd,d->n", opened.vectors(rows).astype(np.float64), query.astype(np.float64))
    best = np.lexsort((rows, -scores))[:k]
    passages = [opened.passage(int(row)) for row in rows[best]]
    return [Hit(p.id, p.text, float(s)) for p, s in zip(passages, scores[best], strict=True)]
