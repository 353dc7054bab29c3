"""Retrieval: an index, a reranker and a reader together, from Python and from the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headway.core.errors import UsageError
from headway.runtime.retrieval import (
    BundleEmbedder,
    Hit,
    Index,
    Reader,
    Reranker,
    Search,
    Writer,
)
from headway.runtime.retrieval import search as retrieval
from headway.runtime.retrieval.store import Origin
from tests.conftest import SUPPORT
from tests.random_vectors import Random, corpus, passages

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
        return [
            SimpleNamespace(
                text=f" {' '.join(source.split()[:20])}", score=-2.5, truncated=not self.fits(source)
            )
            for source in sources
        ]


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
    assert [a.truncated for a in (read, long, nothing)] == [
        True,
        True,
        False,
    ]  # one passage of four is not read
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


# What was cut


LONG = "where is my parcel " * 40


def test_what_was_cut_is_told(bundles: dict[str, Path], tmp_path: Path) -> None:
    """The models read 48 tokens: of a pair, of both texts together."""
    texts = {"short": "My parcel is late.", "middle": "my parcel is late " * 10, "long": LONG}
    rows = corpus(tmp_path / "corpus.jsonl", [{"id": i, "text": t} for i, t in texts.items()])
    embedder = BundleEmbedder(bundles["vectors"], threads=1)
    index = Index.build(rows, embedder, tmp_path / "index")
    assert (embedder.truncated, index.count_truncated()) == (1, 1)
    queries = ["parcel", "late parcel " * 10, LONG]
    embedded, ranked = (
        Search(index, embedder, reranker)(queries, 3)
        for reranker in (None, Reranker(bundles["ranking"], threads=1))
    )
    for found in (embedded, ranked):
        assert [f.truncated for f in found] == [False, False, True]
    cut = [[{h.id: h.truncated for h in f.hits} for f in found] for found in (embedded, ranked)]
    assert cut[0] == [{"short": False, "middle": False, "long": True}] * 3
    assert cut[1] == [
        {"short": s, "middle": m, "long": True} for s, m in ((False, False), (False, True), (True, True))
    ]
    opened = Index.open(tmp_path / "index")
    opened.add(corpus(tmp_path / "more.jsonl", [{"id": "longer", "text": LONG * 2}]), embedder)
    assert opened.count_truncated() == 2
    opened.delete(["long", "middle", "short"])  # written anew
    assert (len(opened), Index.open(tmp_path / "index").count_truncated()) == (1, 1)


def test_the_command_says_what_was_cut(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headway.cli.index import index as command

    rows = corpus(tmp_path / "corpus.jsonl", [{"id": "a", "text": LONG}, {"id": "b", "text": "My parcel."}])
    common = ["--threads", "1"]
    build = ["build", str(rows), "--embedder", str(bundles["vectors"]), "--output", str(tmp_path / "index")]
    command([*build, *common], exit_on_error=False, print_error=False)
    assert "1 passages were longer than the model and were cut" in capsys.readouterr().err
    search = ["search", str(tmp_path / "index"), "--query", LONG]
    command([*search, *common], exit_on_error=False, print_error=False)
    told = capsys.readouterr()
    line = json.loads(told.out)
    assert (line["truncated"], [h["truncated"] for h in line["hits"]]) == (
        True,
        [h["id"] == "a" for h in line["hits"]],
    )
    assert '1 queries were longer than the embedder and were cut ("truncated": true)' in told.err
    assert "1 passages in the results were cut" in told.err
    with pytest.raises(UsageError, match="--split: is for folders"):
        command(
            [*search[:2], "--queries", str(rows), "--split", "test"], exit_on_error=False, print_error=False
        )


def test_a_bundle_is_measured_on_a_small_collection(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headway.cli.evaluate import evaluate
    from tests.test_ranking_collections import small

    folder = small(tmp_path / "c")
    queries = (folder / "queries.jsonl").read_text("utf-8")
    (folder / "queries.jsonl").write_text(queries.replace('"dev"', '"test"'), "utf-8")
    evaluate(bundles["ranking"], data=folder, json=tmp_path / "figures.json", threads=1)
    told = (tmp_path / "figures.json").read_text("utf-8")
    assert json.loads(told)["metrics"]["recall_at_10"] == pytest.approx(3 / 4)


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
    assert list(line) == ["query", "truncated", "hits"]
    assert [list(hit) for hit in line["hits"]] == [["id", "text", "score", "truncated"]] * 3
    asked = corpus(tmp_path / "queries.jsonl", [{"id": "q1", "text": t} for t in QUERIES])
    others = ["--reranker", bundles["ranking"], "--reader", bundles["questions"], "--threads", 1]
    lines = call("search", folder, "--queries", asked, "--exact", *others)
    assert [line["query"] for line in lines] == QUERIES
    fields = ["query_id", "query", "truncated", "hits", "answer", "start", "end", "score", "id"]
    assert list(lines[0]) == [*fields, "answer_truncated"]
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
