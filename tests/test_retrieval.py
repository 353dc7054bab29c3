"""Retrieval: an index against plain numpy, killed at every moment, full disks, damage; and the three bundles together."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from headway.core.data import Record
from headway.core.errors import BundleError, DataError, InputError, OutputError, UnavailableError, UsageError
from headway.runtime.retrieval import (
    BundleEmbedder,
    Hit,
    Index,
    Reader,
    Reranker,
    Search,
    Writer,
    cluster,
    store,
)
from headway.runtime.retrieval import index as indexing
from headway.runtime.retrieval import search as retrieval
from headway.runtime.retrieval.store import Origin, Vectors
from tests.conftest import SUPPORT

ROOT = Path(__file__).parents[1]
WIDTH = 16
"""numbers in a vector of `Random`"""
Rows = list[dict[str, Any]]


class Random:
    """A vector that depends on the text's bytes alone."""

    def __init__(self, seal: str = "a" * 64, width: int = WIDTH) -> None:
        self.origin, self._width = Origin("random", seal, "fp32"), width

    def passages(self, records: Sequence[Record]) -> Vectors:
        return self.queries([r.text("text") for r in records])

    def queries(self, texts: Sequence[str]) -> Vectors:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.array([np.random.default_rng(s).standard_normal(self._width) for s in seeds], np.float32)


def passages(count: int, letter: str = "p") -> Rows:
    return [{"id": f"{letter}{i}", "text": f"{letter}\n“{i}”"} for i in range(count)]


def corpus(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


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
        with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
            Index.open(built).delete([f"p{i}" for i in range(14)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(built) == before


# Bad input


@pytest.mark.parametrize("how", ["flipped", "short", "gone"])
def test_damaged_files(how: str, built: Path) -> None:
    Index.open(built).delete(["p2"])
    names = [p.name for p in built.iterdir()]
    assert len(names) == 4 * 3 + 3
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


# Three bundles


@pytest.fixture(scope="session")
def bundles(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from headway.export.bundle import export
    from headway.export.options import ExportOptions
    from tests.test_export_tasks import untrained

    made = {}
    for kind in ("vectors", "ranking", "questions"):
        folder = tmp_path_factory.mktemp(kind)
        checkpoint, _ = untrained(kind, pretrained, folder, max_length=48)
        export(checkpoint, ExportOptions(output=folder / "bundle", precision="fp32", threads=1))
        made[kind] = folder / "bundle"
    return made


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (SUPPORT / "test.jsonl").read_text("utf-8").splitlines()[:30]
    rows = [{"id": f"m{i}", "text": json.loads(line)["text"]} for i, line in enumerate(lines)]
    return corpus(tmp_path_factory.mktemp("messages") / "corpus.jsonl", rows)


@pytest.fixture(scope="session")
def asked(bundles: dict[str, Path], messages: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    embedder = BundleEmbedder(bundles["vectors"], threads=1)
    index = Index.build(messages, embedder, tmp_path_factory.mktemp("asked") / "index")
    assert embedder.truncated > 0
    return index


QUERIES = ["Where is my parcel?", "I want my money back"]


def test_vectors_are_those_of_the_bundle(asked: Index, bundles: dict[str, Path], messages: Path) -> None:
    from headway.runtime import load

    texts = [json.loads(line)["text"] for line in messages.read_text("utf-8").splitlines()]
    pipe: Any = load(bundles["vectors"], threads=1)
    documents, queries = (
        np.array([r.embedding for r in pipe(given)], np.float64) for given in (texts, QUERIES)
    )
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = Search(asked, BundleEmbedder(bundles["vectors"], threads=1))(QUERIES, 5)
    for own, query in zip(found, queries, strict=True):
        best = np.argsort(-documents @ query)[:5]
        assert [h.id for h in own.hits] == [f"m{i}" for i in best]
        np.testing.assert_allclose([h.score for h in own.hits], (documents @ query)[best], atol=1e-5)


def test_the_reranker_orders_what_was_found(asked: Index, bundles: dict[str, Path]) -> None:
    from headway.runtime import load

    engine = Search(
        asked, BundleEmbedder(bundles["vectors"], threads=1), Reranker(bundles["ranking"], threads=1)
    )
    pipe: Any = load(bundles["ranking"], threads=1)
    passages = list(asked.passages())  # fewer than CANDIDATES: all are read
    for found in engine(QUERIES, 4):
        scores = [r.score for r in pipe([(found.query, p.text) for p in passages])]
        best = np.argsort(-np.array(scores), kind="stable")[:4]
        np.testing.assert_allclose([h.score for h in found.hits], np.array(scores)[best], atol=1e-5)
        assert {h.id for h in found.hits} == {passages[i].id for i in best}


def test_the_reader_compares_answers_of_all_passages(asked: Index, bundles: dict[str, Path]) -> None:
    from headway.runtime import load

    reader, pipe = Reader(bundles["questions"], threads=1), load(bundles["questions"], threads=1)
    for found in Search(asked, BundleEmbedder(bundles["vectors"], threads=1), reader=reader)(QUERIES, 6):
        answer = found.answer
        assert answer is not None
        (passage,) = (h for h in found.hits if h.id == answer.id)
        assert passage.text[answer.start : answer.end] == answer.answer != ""
        alone: Any = pipe({"question": found.query, "context": passage.text})
        assert (alone.answer, alone.start, alone.end) == (answer.answer, answer.start, answer.end)
        assert answer.score <= alone.score + 1e-6
        single = [reader([found.query], [[h]])[0] for h in found.hits]
        assert answer.answer in [a.answer for a in single]
        assert reader([found.query], [found.hits]) == [answer]
    assert reader(["nothing was found"], [[]])[0].id is None


def test_of_two_passages_the_surer_is_read(bundles: dict[str, Path]) -> None:
    """The order of the passages does not matter: logits are compared, not probabilities within a passage."""
    reader = Reader(bundles["questions"], threads=1)
    hits = [Hit("a", "The parcel is in Berlin.", 0.0), Hit("b", "It was refunded on Monday, they say.", 0.0)]
    one, other = reader(["Where?"] * 2, [hits, hits[::-1]])
    assert (one.answer, one.start, one.end, one.id) == (other.answer, other.start, other.end, other.id)
    assert one.score == pytest.approx(other.score)


class Copies:
    """A model that writes its source, of which it reads 20 words."""

    def fits(self, source: str) -> bool:
        return len(source.split()) <= 20

    def __call__(self, sources: list[str]) -> list[Any]:
        return [SimpleNamespace(text=f" {' '.join(source.split()[:20])}", score=-2.5) for source in sources]


def test_an_answer_is_written_from_what_can_be_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_opened", lambda *_: Copies())
    writer = Writer("bundle", template="{question} {context}")
    hits = [Hit(str(i), " ".join([f"w{i}"] * size), 0.0) for i, size in enumerate((5, 9, 4, 2))]
    read, long, nothing = writer(
        ["Where {context}?", "And why?", "Who?"], [hits, [Hit("a", "x " * 40, 0.0)], []]
    )
    assert read.answer == f"Where {{context}}? {' '.join(['w0'] * 5 + ['w1'] * 9 + ['w2'] * 4)}"
    assert (read.score, read.id, long.answer.split().count("x")) == (-2.5, None, 18)
    assert (nothing.answer, nothing.score) == ("", 1.0)
    with pytest.raises(UsageError, match="--template: wants"):
        Writer("bundle", template="{question}")


def test_bundles_in_the_wrong_place(asked: Index, bundles: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="--embedder.*text-ranking, not of sentence-embedding"):
        BundleEmbedder(bundles["ranking"], threads=1)
    with pytest.raises(UsageError, match="--reader.*sentence-embedding, not of question-answering"):
        Reader(bundles["vectors"], threads=1)
    other = BundleEmbedder(bundles["vectors"], threads=1)
    other.origin = Origin("other", "0" * 64, "fp32")
    with pytest.raises(UsageError, match="is not the bundle that made"):
        Search(asked, other)


# The command line


def test_the_command(
    bundles: dict[str, Path], messages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headway.cli.index import index as command

    def call(*arguments: object) -> list[Any]:
        capsys.readouterr()
        command([str(a) for a in arguments], exit_on_error=False, print_error=False)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    folder = tmp_path / "index"
    call("build", messages, "--embedder", bundles["vectors"], "--output", folder, "--threads", 1)
    call("add", folder, corpus(tmp_path / "more.jsonl", passages(2)), "--threads", 1)
    call("delete", folder, "--ids", "p1", "m3")
    (line,) = call("search", folder, "--query", "Where is it?", "--top", 3, "--threads", 1)
    assert list(line) == ["query", "hits"]
    assert [list(hit) for hit in line["hits"]] == [["id", "text", "score"]] * 3
    asked = corpus(tmp_path / "queries.jsonl", [{"id": "q1", "text": t} for t in QUERIES])
    others = ["--reranker", bundles["ranking"], "--reader", bundles["questions"], "--threads", 1]
    lines = call("search", folder, "--queries", asked, "--exact", *others)
    assert [line["query"] for line in lines] == QUERIES
    assert list(lines[0]) == ["query_id", "query", "hits", "answer", "start", "end", "score", "id"]
    call("cluster", folder, "--output", tmp_path / "c.jsonl", "--clusters", 4, "--plot", tmp_path / "c.png")
    clusters = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text("utf-8").splitlines()]
    assert {c["cluster"] for c in clusters} == {0, 1, 2, 3}
    assert [c["id"] for c in clusters] == [f"m{i}" for i in range(30) if i != 3] + ["p0"]
    with pytest.raises(UsageError, match="either --query or --queries"):
        call("search", folder)
    away = tmp_path / "away"
    shutil.copytree(folder, away / "index")
    question = ("search", away / "index", "--query", "Where is it?", "--top", 3, "--threads", 1)
    with pytest.raises(UsageError, match="--embedder: say where the bundle is"):
        call(*question)
    assert call(*question, "--embedder", bundles["vectors"]) == [line]


def test_an_index_and_its_embedder_may_be_moved_together(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    embedder = Random()
    embedder.origin = Origin(str(old / "bundles" / "embedder"), "a" * 64, "fp32")
    old.mkdir()
    index = Index.build(corpus(tmp_path / "corpus.jsonl", passages(3)), embedder, old / "index")
    assert index.origin == embedder.origin
    old.rename(new)
    assert Index.open(new / "index").origin.bundle == str(new / "bundles" / "embedder")


def test_torch_is_not_needed() -> None:
    code = "import sys, headway.runtime.retrieval, headway.cli.index; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
