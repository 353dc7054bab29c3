"""A vector index of passages: built in checkpointed parts, searched by an HNSW graph or exactly, changed atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import data, files
from headway.core.data import Record
from headway.core.errors import BundleError, InputError, OutputError, UsageError
from headway.core.progress import Progress, silent
from headway.runtime.fork_safety import ForkSafeLock
from headway.runtime.retrieval import graph as graphs
from headway.runtime.retrieval import store
from headway.runtime.retrieval.graph import Grouping, unit
from headway.runtime.retrieval.store import Manifest, Metric, Origin, Passage, Rows, Store, Vectors

PART = 4096
"""passages in a part, at most: what a killed build loses"""
PART_BYTES = 64 * 2**20
"""bytes of text in a part, about: parts of long passages have fewer"""
BATCH = 512
"""passages that are embedded at a time"""
ROUNDING = 1e-4
"""what scores in 32 bits may be wrong by, relative to the vectors' lengths: above 1,024 x 2^-24, the bound of 1,024 products"""
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
class Embedded:
    """What an embedder made of texts."""

    vectors: Vectors  # (N, D)
    truncated: NDArray[np.bool_]
    """(N): which texts were longer than the model, so that their vectors are those of their beginnings"""


@runtime_checkable
class TruncatingEmbedder(Embedder, Protocol):
    """An embedder that says which texts it cut. What an index keeps and a search tells comes from here."""

    def embed_passages(self, records: Sequence[Record]) -> Embedded: ...

    def embed_queries(self, texts: Sequence[str]) -> Embedded: ...


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    id: str
    text: str
    score: float
    """cosine with the query, or inner product; after a reranker, the probability that the passage is relevant"""
    truncated: bool = False
    """a part of the passage was not read: its end when it was embedded, or when the reranker read it with the query"""


@dataclass(frozen=True)
class _State:
    """What a search reads. Replaced as one, so that a search in another thread sees the old or the new."""

    store: Store
    graph: Any
    grouping: Grouping

    @classmethod
    def of(cls, opened: Store) -> _State:
        return cls(opened, graphs.opened(opened), Grouping(opened.groups, opened.live()))


class Index:
    """An opened index. Searches may run in several threads; another process's changes are seen by opening anew."""

    def __init__(self, folder: Path, opened: Store) -> None:
        self.folder, self._state = folder, _State.of(opened)
        self._searching = ForkSafeLock()  # the graph has one scratch space a thread number, not a thread

    @classmethod
    def build(
        cls,
        corpus: str | Path,
        embedder: Embedder,
        output: str | Path,
        *,
        columns: Mapping[str, str] | None = None,
        split: str | None = None,
        metric: str | None = None,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Index:
        """Embed a corpus of {"id", "text"} and write an index, which appears whole or not at all.

        A build that was interrupted goes on where it was, and ends with the same bytes.

        Args:
            split: of a folder of the datasets library that has several.
            metric: "cosine", or "dot" for the inner product of vectors whose lengths matter. None: the embedder's
                `similarity`, or cosine if it has none.
        Raises:
            UsageError: another metric.
            DataError: a record that cannot be used.
            OutputError, UnavailableError: the disk refuses.
        """
        graphs.library()
        comparing = _metric(metric if metric is not None else str(getattr(embedder, "similarity", "cosine")))
        output = Path(output).absolute()
        files.refuse_taken(output, overwrite)
        count = _check(corpus, columns, split, (), progress)
        building = output.parent / f".{output.name}.building"
        files.make_parents(output)
        building.mkdir(exist_ok=True)
        with store.writing(building, output):
            begun = Manifest(
                embedder=embedder.origin.told_from(output),
                corpus=_digest(corpus, columns, split),
                metric=comparing,
            )
            manifest = _resumed(building, output, begun, overwrite)
            if not manifest.graph:
                records = islice(data.read_split(corpus, columns, split), manifest.rows, None)
                left = count - manifest.rows
                pairs = progress(_embedded(records, embedder, manifest), "embedding", left)
                manifest = _appended(building, manifest, pairs, checkpoint=True)
                manifest = _with_graph(building, manifest, None, progress)
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

    @property
    def metric(self) -> Metric:
        return self._state.store.manifest.metric

    def __len__(self) -> int:
        opened = self._state.store
        return opened.rows - len(opened.deleted)

    def search(self, vectors: Any, k: int = 10, *, exact: bool = False) -> list[list[Hit]]:
        """The passages whose vectors are most similar to each of `vectors` (Q, D), best first.

        Equally similar ones come in the order in which they were added. `exact` compares with every passage in 32 bits.
        Else up to `graph.FLAT` groups of (nearly) equal vectors are compared in 16 bits, of which twice `k` are compared
        again; where there are more groups, the graph is followed, which may miss some.
        """
        if k < 1:
            raise UsageError("--top", f"must be at least 1, not {k}")
        state = self._state
        queries = _checked_queries(vectors, state.store.manifest)
        if exact:
            found = _exact(state, queries, k)
        else:
            with self._searching:
                found = _near(state, queries, k)
        return [_hits(state, query, distinct, k) for query, distinct in zip(queries, found, strict=True)]

    def passages(self) -> Iterator[Passage]:
        """All that are not deleted, in the order in which they came."""
        opened = self._state.store
        return (opened.passage(int(row)) for row in opened.live())

    def count_truncated(self) -> int:
        """How many passages were longer than the embedder and were cut. Reads all of them."""
        return sum(passage.truncated for passage in self.passages())

    def vectors(self) -> Vectors:
        """(N, D), of length 1 whatever the metric, in the order of `passages`."""
        opened = self._state.store
        vectors = opened.vectors(opened.live())
        return unit(vectors) if self.metric == "dot" else vectors

    def add(
        self,
        corpus: str | Path,
        embedder: Embedder,
        *,
        columns: Mapping[str, str] | None = None,
        split: str | None = None,
        progress: Progress = silent,
    ) -> int:
        """Add a corpus of {"id", "text"}, all of it or nothing; returns the number of passages.

        Raises UsageError for another embedder, DataError for a record that cannot be used or an id that is known.
        """
        self.refuse_other(embedder.origin)

        def change(old: Store) -> Manifest:
            count = _check(corpus, columns, split, old.ids().keys(), progress)
            added = _embedded(data.read_split(corpus, columns, split), embedder, old.manifest)
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
            self._state = _State.of(newest)
            try:
                manifest = change(newest)
                manifest.write(self.folder)
            except BaseException:
                store.sweep(self.folder, newest.manifest)
                raise
            store.sweep(self.folder, manifest)
            self._state = _State.of(Store(self.folder, manifest))


def _metric(name: str) -> Metric:
    for metric in get_args(Metric):
        if name == metric:
            return metric  # type: ignore[no-any-return]
    raise UsageError(
        "--embedder",
        f"its vectors are compared by '{name}'; an index compares by {' or '.join(get_args(Metric))}",
    )


def _check(
    corpus: str | Path,
    columns: Mapping[str, str] | None,
    split: str | None,
    known: Collection[str],
    progress: Progress,
) -> int:
    """The number of records, all of them usable, with ids that are new. Raises DataError at the first that is not."""
    if str(corpus) == "-":
        raise UsageError("CORPUS", "must be a file, because it is read twice")
    seen: set[str] = set()
    for record in progress(data.read_split(corpus, columns, split), "checking"):
        own = record.text("id")
        record.text("text")
        if own in seen:
            raise record.error(f"'{own}' occurs twice", "id")
        if own in known:
            raise record.error(f"'{own}' is in the index already", "id")
        seen.add(own)
    return len(seen)


def _digest(corpus: str | Path, columns: Mapping[str, str] | None, split: str | None) -> str:
    """What an interrupted build must have been made of to be continued."""
    named = "".join(f" {ours}={theirs}" for ours, theirs in sorted((columns or {}).items()))
    return files.sha256_of_data(Path(corpus)) + named + (f" of {split}" if split is not None else "")


def _resumed(building: Path, output: Path, begun: Manifest, overwrite: bool) -> Manifest:
    """The state that an interrupted build of the same left, without what is damaged; else `begun`."""
    try:
        left = Manifest.read(building)
    except BundleError:
        return begun
    made_of = [(m.embedder, m.corpus, m.metric) for m in (left, begun)]
    if made_of[0] != made_of[1]:
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
    return _unlinked(store.first_parts(left, whole), serial=whole)


def _unlinked(manifest: Manifest, **changes: Any) -> Manifest:
    """The state without its graph and groups."""
    dropped = (manifest.graph, manifest.groups)
    kept = {n: f for n, f in manifest.files.items() if n not in dropped}
    changes = {"graph": "", "groups": "", "longest": 1.0, "files": kept, **changes}
    return msgspec.structs.replace(manifest, **changes)


def _embedded(
    records: Iterator[Record], embedder: Embedder, manifest: Manifest
) -> Iterator[tuple[bytes, Vectors]]:
    """The line and the vector (D) of each record, as many numbers as the index has (if it has any vector)."""
    while batch := list(islice(records, BATCH)):
        made = _embed(embedder, batch)
        vectors = unit(made.vectors) if manifest.metric == "cosine" else made.vectors
        if manifest.dimensions and vectors.shape[1] != manifest.dimensions:
            raise UsageError(
                "--embedder",
                f"makes {vectors.shape[1]} numbers a text, the index has {manifest.dimensions}",
            )
        for record, vector, truncated in zip(batch, vectors, made.truncated.tolist(), strict=True):
            if not np.isfinite(vector).all():
                raise record.error("its vector is not finite", "text")
            line = msgspec.json.encode(Passage(record.text("id"), record.text("text"), truncated))
            yield line + b"\n", vector


def _embed(embedder: Embedder, records: Sequence[Record]) -> Embedded:
    if isinstance(embedder, TruncatingEmbedder):
        return embedder.embed_passages(records)
    return Embedded(embedder.passages(records), np.zeros(len(records), np.bool_))


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


def _with_graph(folder: Path, manifest: Manifest, old: Store | None, progress: Progress) -> Manifest:
    """The state with its rows in the graph. `old`: a state of its first rows, whose graph is extended."""
    bare = _unlinked(manifest)
    opened = Store(folder, bare)
    longest = 1.0
    if manifest.metric == "dot":
        longest = max(float(np.linalg.norm(v.astype(np.float64), axis=1).max()) for _, v in opened.blocks())
        if old is not None and longest > old.manifest.longest:
            old = None  # the graph has all vectors relative to the longest
        longest = old.manifest.longest if old is not None else longest
    bare = msgspec.structs.replace(bare, longest=longest)
    graph, groups = graphs.linked(opened, bare, old, progress)
    return store.put_file(folder, store.put_file(folder, bare, "graph", graph), "groups", groups.data)


def _extended(old: Store, pairs: Iterator[tuple[bytes, Vectors]], progress: Progress) -> Manifest:
    """The state with more passages. A last part that is not full is written anew with them."""
    manifest, last = old.manifest, len(old.manifest.parts) - 1
    if manifest.parts[last].rows < PART:
        start = old.rows - manifest.parts[last].rows
        kept = zip(old.lines(last), old.vectors(range(start, old.rows)), strict=True)
        manifest, pairs = store.first_parts(manifest, last), chain(kept, pairs)
    return _with_graph(old.folder, _appended(old.folder, manifest, pairs), old, progress)


def _compacted(old: Store, deleted: Rows, progress: Progress) -> Manifest:
    """The state written anew without the deleted rows."""
    fresh = _unlinked(old.manifest, parts=[], deleted="", files={})
    gone = set(deleted.tolist())
    numbered = enumerate(line for part in range(len(old.manifest.parts)) for line in old.lines(part))
    kept = ((line, old.vectors([row])[0]) for row, line in numbered if row not in gone)
    return _with_graph(old.folder, _appended(old.folder, fresh, kept), None, progress)


def _move(building: Path, output: Path) -> None:
    replaced = output.parent / f".{output.name}.replaced-{os.getpid()}"
    if output.exists():
        os.rename(output, replaced)
    os.rename(building, output)
    shutil.rmtree(replaced, ignore_errors=True)


def _checked_queries(vectors: Any, manifest: Manifest) -> Vectors:
    """(Q, D), of length 1 where lengths do not matter."""
    try:
        queries = np.asarray(vectors, np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(0, "wants vectors of numbers") from error
    if queries.ndim != 2 or queries.shape[1] != manifest.dimensions:
        raise InputError(0, f"wants vectors (Q, {manifest.dimensions}), not {queries.shape}")
    for place in np.flatnonzero(~np.isfinite(queries).all(axis=1)):
        raise InputError(int(place), "is not finite")
    return unit(queries) if manifest.metric == "cosine" else queries


def _exact(state: _State, queries: Vectors, k: int) -> list[Rows]:
    """Distinct rows of each query, by comparing with all: the best k, and what rounding may have put behind them."""
    distinct = state.grouping.distinct
    margins = ROUNDING * state.store.manifest.longest * np.linalg.norm(queries.astype(np.float64), axis=1)
    scores = [np.zeros(0, np.float32) for _ in queries]
    rows = [np.zeros(0, np.int64) for _ in queries]
    for start, vectors in state.store.blocks():
        begin, end = np.searchsorted(distinct, (start, start + len(vectors)))
        own = distinct[begin:end]
        similar = queries @ vectors[own - start].T  # (Q, own)
        for i, margin in enumerate(margins):
            together = np.concatenate([scores[i], similar[i]])
            kept = together >= _kth(together, k) - margin
            scores[i], rows[i] = together[kept], np.concatenate([rows[i], own])[kept]
    return rows


def _kth(scores: NDArray[np.floating], k: int) -> float:
    """The k-th greatest; below all others where there are fewer."""
    return float(np.partition(scores, -k)[-k]) if len(scores) > k else -np.inf


def _near(state: _State, queries: Vectors, k: int) -> list[Rows]:
    """Distinct rows near each query, which k rows or more (if there are) have, by the graph."""
    placed = graphs.placed_queries(state.store.manifest, queries)
    found: list[Rows] = [np.zeros(0, np.int64) for _ in queries]
    todo, fetch = list(range(len(queries))), min(2 * k, len(state.graph))
    while todo:
        nodes = graphs.nearest(state.graph, placed[todo], fetch)
        for i, own in zip(todo, nodes, strict=True):
            found[i] = state.grouping.of_nodes(own)
        if fetch == len(state.graph):
            break
        todo, fetch = (
            [i for i in todo if state.grouping.count(found[i]) < k],
            min(4 * fetch, len(state.graph)),
        )
    return found


def _hits(state: _State, query: Vectors, distinct: Rows, k: int) -> list[Hit]:
    """The k best rows of some distinct ones, by scores in 64 bits, which do not depend on how they were found."""
    scores = np.empty(len(distinct))
    for start in range(0, len(distinct), PART):  # a group may have more vectors than memory
        own = slice(start, start + PART)
        vectors = state.store.vectors(distinct[own]).astype(np.float64)
        scores[own] = np.einsum("nd,d->n", vectors, query.astype(np.float64))
    best = np.flatnonzero(scores >= _kth(scores, k))
    runs = [state.grouping.rows(int(row), k) for row in distinct[best]]
    rows = np.concatenate(runs) if runs else np.zeros(0, np.int64)
    repeated = np.repeat(scores[best], [len(run) for run in runs])
    order = np.lexsort((rows, -repeated))[:k]
    passages = [state.store.passage(int(row)) for row in rows[order]]
    return [Hit(p.id, p.text, float(s), p.truncated) for p, s in zip(passages, repeated[order], strict=True)]
