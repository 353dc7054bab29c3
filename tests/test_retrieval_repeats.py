"""Retrieval where many passages have equal vectors, or nearly equal ones; vectors whose lengths matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from headway.core.data import Record
from headway.core.errors import BundleError, UsageError
from headway.runtime.retrieval import Hit, Index, graph, store
from headway.runtime.retrieval.store import Origin, Vectors
from tests.random_vectors import corpus

WIDTH = 24
RNG = np.random.default_rng


def unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


OTHERS = unit(RNG(1).standard_normal((1500, WIDTH), np.float32))
ONE = unit(RNG(2).standard_normal((1, WIDTH), np.float32))
QUERIES = unit(OTHERS[:100] + 0.2 * RNG(3).standard_normal((100, WIDTH), np.float32))


class Table:
    """Passages have their vectors by their ids."""

    origin = Origin("table", "a" * 64, "fp32")

    def __init__(self, vectors: Vectors, similarity: str = "cosine") -> None:
        self._vectors, self.similarity = vectors, similarity

    def passages(self, records: Sequence[Record]) -> Vectors:
        return self._vectors[[int(r.text("id")) for r in records]]

    def queries(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError


def rows(begin: int, end: int) -> list[dict[str, str]]:
    return [{"id": str(i), "text": f"passage {i}"} for i in range(begin, end)]


def built(folder: Path, vectors: Vectors, first: int | None = None, similarity: str = "cosine") -> Index:
    """Of all vectors; those after the `first` are added later."""
    first, embedder = first or len(vectors), Table(vectors, similarity)
    index = Index.build(corpus(folder / "corpus.jsonl", rows(0, first)), embedder, folder / "index")
    if first < len(vectors):
        index.add(corpus(folder / "more.jsonl", rows(first, len(vectors))), embedder)
    return index


def ids(hits: Sequence[Hit]) -> list[int]:
    return [int(hit.id) for hit in hits]


def true(vectors: Vectors, queries: Vectors, k: int, live: Sequence[int] | None = None) -> list[list[int]]:
    """The best rows of each query by plain numpy; of equal vectors the first."""
    among = np.arange(len(vectors)) if live is None else np.array(live)
    kinds, of_row = np.unique(vectors[among], axis=0, return_inverse=True)
    scores = (queries.astype(np.float64) @ kinds.astype(np.float64).T)[:, of_row.ravel()]
    return [among[np.argsort(-own, kind="stable")[:k]].tolist() for own in scores]


def recall(index: Index, vectors: Vectors, live: Sequence[int] | None = None) -> float:
    found = index.search(QUERIES, 10)
    wanted = true(vectors, QUERIES, 10, live)
    return float(np.mean([len({*ids(f)} & {*w}) / 10 for f, w in zip(found, wanted, strict=True)]))


@pytest.fixture(params=["graph", "flat"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is followed even where there are few nodes; or each is compared."""
    if request.param == "graph":
        monkeypatch.setattr(graph, "FLAT", 0)


ORDERS = {
    "none": np.zeros(0, int),
    "200 first": np.full(200, -1),
    "1000 first": np.full(1000, -1),
    "20 x 60": np.repeat(np.arange(-20, 0), 60),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_others_are_found_beside_repeats(kind: str, way: None, tmp_path: Path) -> None:
    repeated = unit(RNG(4).standard_normal((20, WIDTH), np.float32))
    vectors = np.vstack([repeated[ORDERS[kind]], OTHERS])
    assert recall(built(tmp_path, vectors), vectors) >= 0.98


@pytest.mark.parametrize("place", ["mixed", "last", "added", "added to"])
def test_repeats_in_any_place(place: str, way: None, tmp_path: Path) -> None:
    repeats = np.repeat(ONE, 1200, axis=0)
    vectors = np.vstack([OTHERS, repeats] if place != "added to" else [repeats, OTHERS])
    if place == "mixed":
        vectors = RNG(5).permutation(vectors)
    first = {"added": len(OTHERS) + 5, "added to": len(repeats)}.get(place)
    index = built(tmp_path, vectors, first)
    assert recall(index, vectors) >= 0.98
    again = Index.open(tmp_path / "index")
    assert again.search(QUERIES) == index.search(QUERIES)


def test_fifty_thousand_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "FLAT", 0)
    vectors = np.vstack([np.repeat(ONE, 50_000, axis=0), OTHERS])
    index = built(tmp_path, vectors)
    assert recall(index, vectors) >= 0.98
    (hits,) = index.search(ONE, 50_003)
    assert ids(hits) == true(vectors, ONE, 50_003)[0]


def test_every_repeat_is_returned_in_order(way: None, tmp_path: Path) -> None:
    vectors = RNG(6).permutation(np.vstack([np.repeat(ONE, 300, axis=0), OTHERS[:200]]))
    index = built(tmp_path, vectors)
    for k in (1, 10, 299, 300, 301, 450, 600):
        for exact in (True, False):
            (hits,) = index.search(ONE, k, exact=exact)
            assert ids(hits) == true(vectors, ONE, k)[0]
    group = [int(i) for i in np.flatnonzero((vectors == ONE).all(axis=1))]
    assert [p.id for p in index.passages()] == [str(i) for i in range(500)]
    gone = group[::2]  # the first of them, by which the others are found, too
    index.delete([str(i) for i in gone])
    live = [i for i in range(500) if i not in gone]
    for exact in (True, False):
        (hits,) = index.search(ONE, 200, exact=exact)
        assert ids(hits) == true(vectors, ONE, 200, live)[0]
    index.delete([str(i) for i in group[1::2]])
    rest = [i for i in live if i not in group]
    for exact in (True, False):
        (hits,) = index.search(ONE, 5, exact=exact)
        assert ids(hits) == true(vectors, ONE, 5, rest)[0]


def test_after_deletions_and_a_new_writing(way: None, tmp_path: Path) -> None:
    vectors = np.vstack([np.repeat(ONE, 1000, axis=0), OTHERS])
    index = built(tmp_path, vectors)
    index.delete([str(i) for i in range(1100)])
    assert recall(index, vectors, range(1100, 2500)) >= 0.98
    index.delete([str(i) for i in range(1100, 1400)])  # more than half: it is written anew
    assert index._state.store.rows == len(index) == 1100
    assert recall(index, vectors, range(1400, 2500)) >= 0.98


@pytest.mark.parametrize("noise", [1e-7, 1e-4, 1e-2, 3e-2])
def test_nearly_equal_vectors(noise: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one text has them by rounding, in other batches, or by a variant in 8 bits."""
    monkeypatch.setattr(graph, "FLAT", 0)
    near = unit(ONE + noise * unit(RNG(7).standard_normal((1500, WIDTH), np.float32)))
    vectors = np.vstack([near, OTHERS])
    index = built(tmp_path, vectors)
    assert recall(index, vectors) >= 0.98
    (hits,), (expected,) = index.search(ONE, 20), index.search(ONE, 20, exact=True)
    assert hits == expected


@pytest.mark.parametrize("stored", ["int8", "binary"])
def test_vectors_that_were_rounded(stored: str, way: None, tmp_path: Path) -> None:
    """Near duplicates are equal after rounding to 8 bits or to one."""
    near = ONE + 1e-4 * RNG(8).standard_normal((1000, WIDTH), np.float32)
    both = np.vstack([near, OTHERS])
    scale = np.abs(both).max(axis=1, keepdims=True) / 127
    rounded = np.where(both > 0, 1.0, -1.0) if stored == "binary" else np.rint(both / scale)
    vectors = unit(rounded.astype(np.float32))
    index = built(tmp_path, vectors)
    for query in QUERIES[:20]:
        (hits,), (expected,) = index.search(query[None]), index.search(query[None], exact=True)
        assert [h.score for h in hits] == pytest.approx([h.score for h in expected])


def test_the_number_of_nodes(tmp_path: Path) -> None:
    vectors = np.vstack([np.repeat(ONE, 700, axis=0), OTHERS[:100], OTHERS[:100]])
    assert len(built(tmp_path, vectors)._state.graph) == 101


def test_zeros(way: None, tmp_path: Path) -> None:
    vectors = np.vstack([np.zeros((300, WIDTH), np.float32), -np.zeros((300, WIDTH), np.float32), OTHERS])
    assert recall(built(tmp_path, vectors), vectors) >= 0.98


# Inner products


LENGTHS = RNG(9).uniform(0.2, 3.0, (len(OTHERS), 1)).astype(np.float32)


def test_inner_products(way: None, tmp_path: Path) -> None:
    vectors = np.vstack([np.repeat(ONE * 2, 300, axis=0), OTHERS * LENGTHS])
    index = built(tmp_path, vectors, similarity="dot")
    assert index.metric == Index.open(tmp_path / "index").metric == "dot"
    queries = 5 * QUERIES
    wanted = true(vectors, queries, 10)
    for exact, least in ((True, 1.0), (False, 0.98)):
        found = index.search(queries, 10, exact=exact)
        same = [len({*ids(f)} & {*w}) / 10 for f, w in zip(found, wanted, strict=True)]
        assert np.mean(same) >= least
    (hits,) = index.search(queries[:1], 1)
    assert hits[0].score == pytest.approx(float(vectors[int(hits[0].id)] @ queries[0]), rel=1e-5)
    assert np.linalg.norm(index.vectors(), axis=1) == pytest.approx(1, abs=1e-6)


def test_a_longer_vector_is_added(way: None, tmp_path: Path) -> None:
    vectors = np.vstack([OTHERS[:500], OTHERS[500:600] * 0.5, OTHERS[600:700] * 7])
    index = built(tmp_path, vectors[:500], similarity="dot")
    for begin, end in ((500, 600), (600, 700)):
        index.add(corpus(tmp_path / "more.jsonl", rows(begin, end)), Table(vectors))
        found = [ids(hits) for hits in index.search(QUERIES)]
        assert found == true(vectors[:end], QUERIES, 10)


def test_other_metrics_are_refused(tmp_path: Path) -> None:
    file = corpus(tmp_path / "corpus.jsonl", rows(0, 3))
    for name in ("euclidean", "manhattan"):
        with pytest.raises(UsageError, match=f"compared by '{name}'; an index compares by cosine or dot"):
            Index.build(file, Table(OTHERS, name), tmp_path / "index")
        with pytest.raises(UsageError, match="cosine or dot"):
            Index.build(file, Table(OTHERS), tmp_path / "index", metric=name)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]


@pytest.mark.parametrize("groups", ["short", "outside"])
def test_groups_that_make_no_sense(groups: str, tmp_path: Path) -> None:
    index = built(tmp_path, OTHERS[:5])
    opened = index._state.store
    changed = np.zeros((4 if groups == "short" else 5, 2), np.int64)
    changed[0, 0] = 9 if groups == "outside" else 0
    store.put_file(index.folder, opened.manifest, "groups", changed.data).write(index.folder)
    with pytest.raises(BundleError, match="does not fit the index's parts"):
        Index.open(index.folder)


def test_an_index_of_the_format_before(tmp_path: Path) -> None:
    built(tmp_path, OTHERS[:5])
    path = tmp_path / "index" / store.NAME
    path.write_text(path.read_text("utf-8").replace(store.FORMAT, "headway-index-1"), "utf-8")
    with pytest.raises(BundleError, match="another format.*build the index again"):
        Index.open(tmp_path / "index")
