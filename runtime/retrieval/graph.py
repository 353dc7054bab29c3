"""The HNSW graph of an index, with one node for all passages whose vectors are equal or nearly so.

An HNSW graph links each node to its nearest ones. Where thousands of vectors are equal (boilerplate, "N/A"), they have links
only to each other, and a search that enters them never leaves. So each group of such vectors is one node.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from headway.core.errors import BundleError, UnavailableError
from headway.core.progress import Progress
from headway.core.threads import budget
from headway.runtime.retrieval.store import Manifest, Rows, Store, Vectors

BATCH = 512
"""vectors that are grouped and linked at a time"""
LINKS = 16
"""edges of a node (twice as many in the lowest layer)"""
EXPANSION_BUILD = 128
"""candidates for its edges"""
EXPANSION_SEARCH = 128
"""candidates in a search"""
EXPANSION_GROUP = 16
"""candidates in the search for a new vector's group"""
ALIKE = 0.002
"""cosine distance to a node's vector up to which a vector belongs to the node. Measured with 384 dimensions, 5,000 random vectors
beside 50,000 around one point: at a distance of 0.0001 a graph with a node for each has recall@10 0.90, at 0.0009 0.39; with
these nodes 0.97, as without the 50,000"""
FLAT = 65_536
"""nodes up to which a search compares the query with each node, in 16 bits: 4 ms at 384 dimensions, and none is missed"""


class Grouping:
    """Which rows have equal vectors, and which node stands for each row. Deleted rows are left out.

    `groups` (rows, 2): of each row, the first row with the same bytes in its vector, and the row of its node.
    """

    def __init__(self, groups: Rows, live: Rows) -> None:
        self._first = groups[:, 0]
        self._equal = _Runs(self._first[live], live)
        self.distinct: Rows = np.sort(self._equal.heads())
        """the first row of each vector that is not deleted, ascending"""
        self._of_node = _Runs(groups[self.distinct, 1], self.distinct)

    def of_nodes(self, nodes: Rows) -> Rows:
        """The distinct rows that some nodes stand for."""
        return self._of_node.rows(nodes)

    def count(self, distinct: Rows) -> int:
        """How many rows have the vectors of some distinct rows."""
        return self._equal.count(self._first[distinct])

    def rows(self, distinct: int, most: int) -> Rows:
        """The rows with the vector of a distinct row, ascending, the first `most` of them."""
        return self._equal.rows(self._first[[distinct]])[:most]


class _Runs:
    """Rows by a value that several may share."""

    def __init__(self, values: Rows, rows: Rows) -> None:
        order = np.argsort(values, kind="stable")
        self._values, self._rows = values[order], rows[order]

    def heads(self) -> Rows:
        """The first row of each value."""
        return self._rows[np.flatnonzero(np.diff(self._values, prepend=-1))]

    def rows(self, values: Rows) -> Rows:
        begins, ends = self._bounds(values)
        runs = [self._rows[begin:end] for begin, end in zip(begins, ends, strict=True)]
        return np.concatenate(runs) if runs else np.zeros(0, np.int64)

    def count(self, values: Rows) -> int:
        begins, ends = self._bounds(values)
        return int((ends - begins).sum())

    def _bounds(self, values: Rows) -> tuple[Rows, Rows]:
        return np.searchsorted(self._values, values), np.searchsorted(self._values, values, side="right")


def library() -> Any:
    """usearch. Raises UnavailableError if it is not installed."""
    try:
        import usearch.index
    except ImportError as error:
        raise UnavailableError(
            "usearch, which searches vectors,", "pip install 'headway[retrieval]'"
        ) from error
    return usearch.index


def opened(store: Store) -> Any:
    """A state's graph, mapped into memory. Raises BundleError if it is damaged or does not belong to the state."""
    graph = restored(store, view=True)
    nodes = int((store.groups[:, 1] == np.arange(store.rows)).sum())
    if graph is None or graph.ndim != width(store.manifest) or len(graph) != nodes:
        raise BundleError(store.folder, f"{store.manifest.graph} does not fit the index's parts")
    graph.expansion_search = EXPANSION_SEARCH
    return graph


def restored(store: Store, view: bool) -> Any:
    """A state's graph, mapped into memory (`view`) or to be extended. Raises BundleError."""
    path = store.folder / store.manifest.graph
    try:
        return library().Index.restore(str(path), view=view)
    except (RuntimeError, ValueError, KeyError) as error:
        raise BundleError(store.folder, f"{path.name} cannot be read: {error}") from error


def width(manifest: Manifest) -> int:
    """Dimensions of the graph's vectors."""
    return manifest.dimensions + (manifest.metric == "dot")


def linked(store: Store, manifest: Manifest, old: Store | None, progress: Progress) -> tuple[Any, Rows]:
    """The graph's bytes, and the groups (rows, 2): rows in order, linked by one thread, so always the same.

    `manifest` says how vectors are compared. `old`: a state whose rows are the first of these; its graph is extended.
    """
    groups = np.empty((store.rows, 2), np.int64)
    begin = 0 if old is None else old.rows
    graph = _empty(width(manifest)) if old is None else restored(old, view=False)
    known: dict[bytes, int] = {}
    if old is not None:
        groups[:begin] = old.groups
        for rows in _batches(0, begin):
            distinct = rows[groups[rows, 0] == rows]
            known |= zip(_digests(store.vectors(distinct)), distinct.tolist(), strict=True)
    for rows in progress(_batches(begin, store.rows), "linking"):
        vectors = store.vectors(rows)
        found = (known.setdefault(d, row) for d, row in zip(_digests(vectors), rows.tolist(), strict=True))
        groups[rows, 0] = list(found)
        new = groups[rows, 0] == rows
        placed = placed_vectors(manifest, vectors[new])
        groups[rows[new], 1] = nodes = _nodes(store, manifest, graph, rows[new], placed)
        groups[rows[~new], 1] = groups[groups[rows[~new], 0], 1]
        own = nodes == rows[new]
        graph.expansion_search = EXPANSION_SEARCH
        graph.add(rows[new][own].astype(np.uint64), placed[own], threads=1)
    return graph.save(), groups


def _batches(begin: int, end: int) -> list[Rows]:
    return [np.arange(i, min(i + BATCH, end)) for i in range(begin, end, BATCH)]


def _digests(vectors: Vectors) -> list[bytes]:
    positive = vectors + np.float32(0)  # -0 is 0
    return [hashlib.blake2b(vector.data, digest_size=16).digest() for vector in positive]


def _nodes(store: Store, manifest: Manifest, graph: Any, rows: Rows, placed: Vectors) -> Rows:
    """The node of each row: one that is in the graph, or an earlier one of these rows, or the row itself."""
    nodes = rows.copy()
    if len(graph) and len(rows):
        graph.expansion_search = EXPANSION_GROUP
        matches = graph.search(placed, 1, threads=min(budget(), len(rows)))
        keys = np.reshape(matches.keys, len(rows)).astype(np.int64)
        theirs = placed_vectors(manifest, store.vectors(keys))
        near = np.einsum("nd,nd->n", placed, theirs) >= 1 - ALIKE
        nodes[near] = keys[near]
    alike = placed @ placed.T >= 1 - ALIKE  # (N, N)
    for i in np.flatnonzero(alike.sum(axis=1) > 1):
        if nodes[i] == rows[i]:
            later = np.flatnonzero(alike[i, i + 1 :]) + i + 1
            later = later[nodes[later] == rows[later]]
            nodes[later] = rows[i]
    return nodes


def placed_vectors(manifest: Manifest, vectors: Vectors) -> Vectors:
    """Vectors as the graph has them, of length 1.

    With the metric "dot" a dimension more makes all of them equally long, so that the order by cosine is that by inner
    product (Bachrach et al. 2014, "Speeding up the Xbox recommender system using a Euclidean transformation").
    """
    if manifest.metric == "cosine":
        return vectors
    shrunk = vectors.astype(np.float64) / max(manifest.longest, 1e-30)
    rest = np.sqrt(np.maximum(1 - np.square(shrunk).sum(axis=1, keepdims=True), 0))
    return np.hstack([shrunk, rest]).astype(np.float32)


def placed_queries(manifest: Manifest, queries: Vectors) -> Vectors:
    """Queries as the graph compares them."""
    if manifest.metric == "cosine":
        return queries
    return np.hstack([unit(queries), np.zeros((len(queries), 1), np.float32)])


def unit(vectors: Vectors) -> Vectors:
    """Vectors (N, D) of length 1; zeros stay zeros."""
    long = vectors.astype(np.float64)
    return np.asarray(long / np.maximum(np.linalg.norm(long, axis=-1, keepdims=True), 1e-12), np.float32)


def _empty(dimensions: int) -> Any:
    return library().Index(
        ndim=dimensions,
        metric="ip",
        dtype="f16",
        connectivity=LINKS,
        expansion_add=EXPANSION_BUILD,
        expansion_search=EXPANSION_SEARCH,
    )


def nearest(graph: Any, queries: Vectors, count: int) -> list[Rows]:
    """The `count` nodes nearest to each query (Q, D), best first: of few nodes certainly, of many almost certainly."""
    exact = len(graph) <= FLAT or count >= len(graph)
    matches = graph.search(queries, count, threads=min(budget(), len(queries)), exact=exact)
    counts = np.atleast_1d(matches.counts) if hasattr(matches, "counts") else [len(matches.keys)]
    keys = matches.keys.reshape(len(queries), -1)
    return [own[:n].astype(np.int64) for own, n in zip(keys, counts, strict=True)]
