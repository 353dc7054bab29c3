"""Retrieval: an index against plain numpy, killed at every moment, full disks, damage."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headway.core.data import Record
from headway.core.errors import BundleError, DataError, InputError, OutputError, UnavailableError, UsageError
from headway.runtime.retrieval import (
    Index,
    cluster,
    store,
)
from headway.runtime.retrieval import index as indexing
from headway.runtime.retrieval.store import Vectors
from tests.random_vectors import WIDTH, Random, Rows, corpus, passages

ROOT = Path(__file__).parents[1]


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def texts_of(index: Index) -> dict[str, str]:
    return {p.id: p.text for p in index.passages()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "PART", 8)
    monkeypatch.setattr(indexing, "BATCH", 3)


@pytest.fixture
def built(tmp_path: Path, small_parts: None) -> Path:
    Index.build(corpus(tmp_path / "corpus.jsonl", passages(30)), Random(), tmp_path / "index")
    return tmp_path / "index"


def brute(rows: Rows, query: str, k: int) -> list[str]:
    vectors = Random().queries([r["text"] for r in rows]).astype(np.float64).reshape(-1, WIDTH)
    asked = Random().queries([query])[0].astype(np.float64)
    cosines = vectors @ asked / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
    return [rows[i]["id"] for i in np.argsort(-cosines, kind="stable")[:k]]


@pytest.mark.parametrize("exact", [True, False])
def test_search_is_brute_force(exact: bool, built: Path) -> None:
    index, rows = Index.open(built), passages(30)
    queries = ["what", "where", rows[7]["text"]]
    found = index.search(Random().queries(queries), 5, exact=exact)
    for query, hits in zip(queries, found, strict=True):
        assert [h.id for h in hits] == brute(rows, query, 5)
        assert [h.text for h in hits] == [rows[int(h.id[1:])]["text"] for h in hits]
        assert index.search(Random().queries([query]), 5, exact=exact) == [hits]
    assert found[2][0].id == "p7"
    assert found[2][0].score == pytest.approx(1)
    assert [len(h) for h in index.search(Random().queries(["all"]), 99, exact=exact)] == [30]


@examples(max_examples=8, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "delete", "open"]), st.integers(1, 20), st.integers(0, 9)),
        max_size=6,
    )
)
def test_any_changes(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, int]]) -> None:
    folder = tmp_path_factory.mktemp("changes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "PART", 8)
        rows, made = passages(12), 12
        index = Index.build(corpus(folder / "corpus.jsonl", rows), Random(), folder / "index")
        for kind, count, seed in changes:
            if kind == "add":
                fresh = passages(made + count)[made:]
                made += count
                assert index.add(corpus(folder / "more.jsonl", fresh), Random()) == count
                rows = rows + fresh
            elif kind == "delete" and rows:
                gone = {r["id"] for r in np.random.default_rng(seed).choice(np.array(rows), count)}
                assert index.delete(gone) == len(gone)
                rows = [r for r in rows if r["id"] not in gone]
            else:
                index = Index.open(folder / "index")
            assert len(index) == len(rows)
            assert list(index.passages()) == [store.Passage(**r) for r in rows]
            for exact in (True, False):
                (hits,) = index.search(Random().queries(["which"]), 4, exact=exact)
                assert [h.id for h in hits] == brute(rows, "which", 4)


def test_the_graph_finds_almost_all(tmp_path: Path) -> None:
    index = Index.build(corpus(tmp_path / "corpus.jsonl", passages(3000)), Random(), tmp_path / "index")
    queries = Random().queries([f"query {i}" for i in range(100)])

    def recall() -> float:
        pairs = zip(index.search(queries), index.search(queries, exact=True), strict=True)
        return float(np.mean([len({h.id for h in a} & {h.id for h in b}) / len(b) for a, b in pairs]))

    assert recall() >= 0.98
    index.delete([f"p{i}" for i in range(0, 3000, 3)])
    assert recall() >= 0.98


def test_a_deleted_id_may_come_again(built: Path, tmp_path: Path) -> None:
    index = Index.open(built)
    index.delete(["p3"])
    assert index.add(corpus(tmp_path / "again.jsonl", [{"id": "p3", "text": "another"}]), Random()) == 1
    assert texts_of(Index.open(built))["p3"] == "another"


def test_deleted_texts_leave_the_disk(built: Path) -> None:
    Index.open(built).delete([f"p{i}" for i in range(16)])
    assert not any(b'"p3"' in path.read_bytes() for path in built.iterdir())
    assert len(Index.open(built)) == 14


def test_readers_keep_the_state_that_they_opened(built: Path, tmp_path: Path) -> None:
    reader, writer = Index.open(built), Index.open(built)
    asked = Random().queries(["anything"])
    before = [reader.search(asked, 30, exact=exact) for exact in (True, False)]
    writer.add(corpus(tmp_path / "more.jsonl", passages(20, "q")), Random())
    writer.delete([f"p{i}" for i in range(29)])
    assert [reader.search(asked, 30, exact=exact) for exact in (True, False)] == before
    assert len(writer) == len(Index.open(built)) == 21


def test_two_writers(built: Path) -> None:
    with store.writing(built, built), pytest.raises(OutputError, match="another process is writing it"):
        Index.open(built).delete(["p1"])
    assert len(Index.open(built)) == 30


# Kills


def moments(action: Callable[[], object]) -> Iterator[int]:
    """Run `action` in child processes killed at its first, second, … write, until one ends by itself."""
    for last in range(1, 999):
        child = os.fork()
        if child == 0:
            count = 0

            def counted(function: Callable[..., Any], last: int = last) -> Callable[..., Any]:
                def call(*arguments: Any, **named: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == last:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **named)

                return call

            for name in ("replace", "rename", "fsync"):
                setattr(os, name, counted(getattr(os, name)))
            os._exit(0 if action() is not None else 1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return
        yield last


def kill_everywhere(folder: Path) -> None:
    """In a process of its own, as it forks."""
    indexing.PART, indexing.BATCH = 8, 3
    rows, output = corpus(folder / "corpus.jsonl", passages(20)), folder / "index"
    Index.build(rows, Random(), folder / "expected")
    expected, finished, resumed = content(folder / "expected"), 0, 0
    building = folder / ".index.building"
    for _ in moments(lambda: Index.build(rows, Random(), output)):
        finished += output.exists()
        resumed += (building / store.NAME).exists()
        again = Index.build(rows, Random(), output, overwrite=output.exists())
        assert content(output) == expected
        assert len(again) == 20
        _remove(output)
    assert content(output) == expected
    assert (resumed > 8, finished) == (True, 0)
    assert sorted(p.name for p in folder.iterdir()) == ["corpus.jsonl", "expected", "index"]
    more = corpus(folder / "more.jsonl", passages(9, "q"))
    lengths = {len(Index.open(output)) for _ in moments(lambda: Index.open(output).add(more, Random()))}
    assert lengths == {20}
    assert len(Index.open(output)) == 29
    lengths = {len(Index.open(output)) for _ in moments(lambda: Index.open(output).delete(["p1"]))}
    lengths |= {
        len(Index.open(output))
        for _ in moments(lambda: Index.open(output).delete([f"p{i}" for i in range(2, 20)]))
    }
    assert lengths == {29, 28}
    assert len(Index.open(output)) == 10
    manifest = store.Manifest.read(output)
    assert {p.name for p in output.iterdir()} == {store.NAME, *manifest.files}
    print("survived")


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_killed_at_every_moment(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tests import test_retrieval as t; t.kill_everywhere(Path({str(tmp_path)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert ran.stdout == "survived\n"


class Stopping(Random):
    """Is interrupted at its third batch."""

    batches = 0

    def passages(self, records: Sequence[Record]) -> Vectors:
        self.batches += 1
        if self.batches == 5:
            raise KeyboardInterrupt
        return super().passages(records)


def stopped(tmp_path: Path) -> Path:
    rows = corpus(tmp_path / "corpus.jsonl", passages(30))
    with pytest.raises(KeyboardInterrupt):
        Index.build(rows, Stopping(), tmp_path / "index")
    return rows


def test_damage_to_an_interrupted_build_is_made_anew(tmp_path: Path, small_parts: None) -> None:
    rows = stopped(tmp_path)
    path = tmp_path / ".index.building" / "part-000000.f32"
    path.write_bytes(b"x" * path.stat().st_size)
    Index.build(rows, Random(), tmp_path / "index")
    Index.build(rows, Random(), tmp_path / "other")
    assert content(tmp_path / "index") == content(tmp_path / "other")


def test_another_build_was_interrupted_there(tmp_path: Path, small_parts: None) -> None:
    rows = stopped(tmp_path)
    with pytest.raises(OutputError, match="another corpus or embedder was interrupted"):
        Index.build(rows, Random("b" * 64), tmp_path / "index")
    index = Index.build(rows, Random("b" * 64), tmp_path / "index", overwrite=True)
    assert index.origin.seal == "b" * 64
    with pytest.raises(OutputError, match="exists already"):
        Index.build(rows, Random(), tmp_path / "index")


# Full disks


def test_full_disk_while_building(tmp_path: Path, small_parts: None) -> None:
    rows, building = corpus(tmp_path / "corpus.jsonl", passages(30)), tmp_path / ".index.building"
    building.mkdir()
    (building / "part-000002.f32.partial").symlink_to("/dev/full")
    with pytest.raises(UnavailableError, match="room on the disk"):
        Index.build(rows, Random(), tmp_path / "index")
    assert not (tmp_path / "index").exists()
    assert len(Index.build(rows, Random(), tmp_path / "index")) == 30


@pytest.mark.parametrize("file", ["part-{}.f32", "part-{}.jsonl", "graph-{}", "headway-index.json"])
def test_full_disk_while_adding(file: str, built: Path, tmp_path: Path) -> None:
    manifest = store.Manifest.read(built)
    serial = manifest.serial + 2 * file.startswith("graph")  # one part is made anew, one is new
    before = content(built)
    (built / (file.format(f"{serial:06}") + ".partial")).symlink_to("/dev/full")
    index = Index.open(built)
    with pytest.raises(UnavailableError, match="room on the disk"):
        index.add(corpus(tmp_path / "more.jsonl", passages(9, "q")), Random())
    assert content(built) == before
    assert len(index) == 30
    assert index.add(tmp_path / "more.jsonl", Random()) == 9


def test_files_may_not_grow(built: Path) -> None:
    before, limits = content(built), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(UnavailableError, match="raise the limit"):
            Index.open(built).delete([f"p{i}" for i in range(14)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(built) == before


# Bad input


@pytest.mark.parametrize("how", ["flipped", "short", "gone"])
def test_damaged_files(how: str, built: Path) -> None:
    Index.open(built).delete(["p2"])
    names = [p.name for p in built.iterdir()]
    assert len(names) == 4 * 3 + 4
    for name in names:
        path = built / name
        whole = path.read_bytes()
        path.unlink()
        if how != "gone":
            middle = len(whole) // 2
            path.write_bytes(
                whole[:middle]
                if how == "short"
                else whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
            )
        with pytest.raises(BundleError, match=name):
            Index.open(built)
        path.write_bytes(whole)
    assert len(Index.open(built)) == 29


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "headway-index-9"}, "another format"),
        ({"rows": 1}, "unknown field"),
        ({"parts": [{"name": "../x", "rows": 1}]}, "cannot be read|no such|leads out"),
        ({"parts": []}, "does not fit"),
        ({"graph": ""}, "not finished"),
        ({"graph": "part-000000.f32"}, "cannot be read"),
        ({"files": {"../corpus.jsonl": {"bytes": 1, "sha256": ""}}}, "leads out"),
    ],
)
def test_manifests_that_make_no_sense(changes: dict[str, Any], problem: str, built: Path) -> None:
    fields = json.loads((built / store.NAME).read_text("utf-8")) | changes
    del fields["seal"]
    (built / store.NAME).write_text(json.dumps(fields | {"seal": store._seal(fields)}), "utf-8")
    with pytest.raises(BundleError, match=problem):
        Index.open(built)


@pytest.mark.parametrize(
    ("rows", "line", "field", "problem"),
    [
        (
            [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}, {"id": "a", "text": "z"}],
            3,
            "id",
            "occurs twice",
        ),
        ([{"id": "a", "text": "x"}, {"text": "y"}], 2, "id", "missing"),
        ([{"id": 1, "text": "x"}], 1, "id", "must be a text"),
        ([{"id": "a", "text": " "}], 1, "text", "empty"),
        ([], None, None, "holds no records"),
    ],
)
def test_bad_corpora(rows: Rows, line: int | None, field: str | None, problem: str, tmp_path: Path) -> None:
    file = corpus(tmp_path / "corpus.jsonl", rows)
    with pytest.raises(DataError, match=problem) as caught:
        Index.build(file, Random(), tmp_path / "index")
    assert (caught.value.line, caught.value.field, caught.value.file) == (line, field, str(file))
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_an_id_that_is_there(built: Path, tmp_path: Path) -> None:
    before = content(built)
    with pytest.raises(DataError, match="is in the index already") as caught:
        Index.open(built).add(corpus(tmp_path / "more.jsonl", [*passages(2, "q"), *passages(1)]), Random())
    assert (caught.value.line, caught.value.field) == (3, "id")
    assert content(built) == before


def test_refusals(built: Path, tmp_path: Path) -> None:
    index, more = Index.open(built), corpus(tmp_path / "more.jsonl", passages(3, "q"))
    before = content(built)
    with pytest.raises(UsageError, match="is not the bundle that made"):
        index.add(more, Random("b" * 64))
    with pytest.raises(UsageError, match="makes 3 numbers"):
        index.add(more, Random(width=3))
    with pytest.raises(UsageError, match="no passage 'nobody'"):
        index.delete(["p1", "nobody"])
    with pytest.raises(UsageError, match="wants ids"):
        index.delete([])
    with pytest.raises(UsageError, match="at least 1"):
        index.search(Random().queries(["a"]), 0)
    with pytest.raises(UsageError, match="read twice"):
        index.add("-", Random())
    for wrong in (np.zeros(WIDTH), np.zeros((1, 3)), "text", [[np.nan] * WIDTH]):
        with pytest.raises(InputError):
            index.search(wrong)
    with pytest.raises(BundleError, match="no index"):
        Index.open(tmp_path)
    assert content(built) == before
    assert index.search(np.zeros((0, WIDTH))) == []


def test_all_may_be_deleted(built: Path, tmp_path: Path) -> None:
    index = Index.open(built)
    index.delete([f"p{i}" for i in range(30)])
    assert [index.search(Random().queries(["a"]), 3, exact=exact) for exact in (True, False)] == [[[]], [[]]]
    assert index.add(corpus(tmp_path / "more.jsonl", passages(3, "q")), Random()) == 3
    assert sorted(texts_of(Index.open(built))) == ["q0", "q1", "q2"]


# Clusters


class Grouped(Random):
    """Texts of one first letter are near each other."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        return super().queries([t[0] for t in texts]) + 0.1 * super().queries(texts)


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_clusters(method: cluster.Method, tmp_path: Path) -> None:
    rows = [row for letter in "abc" for row in passages(20, letter)]
    index = Index.build(corpus(tmp_path / "corpus.jsonl", rows), Grouped(), tmp_path / "index")
    labels = cluster.cluster(index.vectors(), method, 3 if method == "kmeans" else None)
    groups = [set(labels[i : i + 20].tolist()) for i in (0, 20, 40)]
    assert all(len(own) == 1 for own in groups)
    assert len(set().union(*groups)) == 3
    for name, start in (("plot.html", b"<!doctype html>"), ("plot.png", b"\x89PNG")):
        cluster.plot(tmp_path / name, index, labels)
        assert (tmp_path / name).read_bytes().startswith(start)
    assert (tmp_path / "plot.html").read_text("utf-8").count("<circle") == 60
    with pytest.raises(UsageError, match="--plot"):
        cluster.plot(tmp_path / "plot.gif", index, labels)
    with pytest.raises(UsageError, match="61 clusters of 60"):
        cluster.cluster(index.vectors(), "kmeans", 61)


def test_principal_components() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(cluster.principal(vectors, 2)), np.abs(u * s)[:, :2], atol=1e-4)
