"""Collections of documents, queries and relevance as training and test data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core import retrieval, tasks
from headway.core.tasks import (
    sentence_embedding,
    text_ranking,
)
from tests.task_examples import (
    complaint,
)

DOCUMENTS = {
    "d1": "red apples grow on trees",
    "d2": "red apples are sweet",
    "d3": "green pears are sour",
    "d4": "ships sail the sea",
    "d5": "red wine comes from grapes",
}
QUERIES = {"q1": ("red apples", "train"), "q2": ("sour pears", "test"), "q3": ("sailing ships sea", "test")}
QRELS = [("q1", "d1", 1), ("q1", "d2", 2), ("q2", "d3", 1), ("q2", "d4", 0), ("q3", "d4", 1)]


def collection(folder: Path, **changed: list[dict[str, Any]]) -> Path:
    files = {
        "corpus": [{"id": i, "text": t} for i, t in DOCUMENTS.items()],
        "queries": [{"id": i, "text": t, "split": s} for i, (t, s) in QUERIES.items()],
        "qrels": [{"query_id": q, "doc_id": d, "relevance": r} for q, d, r in QRELS],
    }
    for name, rows in (files | changed).items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def test_a_collection(tmp_path: Path) -> None:
    found = retrieval.read(collection(tmp_path), "test")
    assert {i: d.fields["text"] for i, d in found.documents.items()} == DOCUMENTS
    assert list(found.queries) == ["q2", "q3"]
    assert found.relevant["q1"] == {"d1": 1.0, "d2": 2.0}
    assert found.relevant["q2"] == {"d3": 1.0}  # a relevance of 0 is none


def test_a_collection_without_splits_is_all_of_each(tmp_path: Path) -> None:
    queries = [{"id": i, "text": t} for i, (t, _) in QUERIES.items()]
    folder = collection(tmp_path, queries=queries)
    for split in ("train", "dev", "test"):
        assert list(retrieval.read(folder, split).queries) == list(QUERIES)


@pytest.mark.parametrize(
    ("changed", "split", "expected"),
    [
        (
            {"corpus": [{"id": "d1", "text": "x"}, {"id": "d1", "text": "y"}]},
            "test",
            "corpus.jsonl:2: field 'id': 'd1' occurs twice",
        ),
        (
            {"queries": [{"id": "q1", "text": "x"}, {"id": "q2", "text": "y"}, {"id": "q1", "text": "x"}]},
            "test",
            "queries.jsonl:3: field 'id': 'q1' occurs twice",
        ),
        (
            {"corpus": [{"id": "d1", "text": " "}]},
            "test",
            "corpus.jsonl:1: field 'text': is empty or only white space",
        ),
        ({"corpus": [{"id": 1, "text": "x"}]}, "test", "corpus.jsonl:1: field 'id': must be a text, not int"),
        (
            {"qrels": [{"query_id": "q9", "doc_id": "d1", "relevance": 1}]},
            "test",
            "qrels.jsonl:1: field 'query_id': unknown id 'q9'",
        ),
        (
            {"qrels": [{"query_id": "q1", "doc_id": "d9", "relevance": 1}]},
            "test",
            "qrels.jsonl:1: field 'doc_id': unknown id 'd9'",
        ),
        (
            {"qrels": [{"query_id": "q1", "doc_id": "d1", "relevance": -1}]},
            "test",
            "qrels.jsonl:1: field 'relevance': -1 is below 0",
        ),
        (
            {"qrels": [{"query_id": "q1", "doc_id": "d1"}]},
            "test",
            "qrels.jsonl:1: field 'relevance': must be a number, not None",
        ),
        (
            {
                "qrels": [
                    {"query_id": "q2", "doc_id": "d3", "relevance": 1},
                    {"query_id": "q3", "doc_id": "d1", "relevance": 0},
                ]
            },
            "test",
            "queries.jsonl:3: field 'id': has no relevant document in qrels.jsonl",
        ),
        ({}, "dev", "queries.jsonl: has no query of the split 'dev'"),
        ({"qrels": []}, "test", "qrels.jsonl: holds no records"),
    ],
)
@pytest.mark.parametrize("task", [sentence_embedding, text_ranking], ids=lambda t: t.__name__.split(".")[-1])
def test_bad_collections(
    task: Any, changed: dict[str, list[dict[str, Any]]], split: str, expected: str, tmp_path: Path
) -> None:
    folder = collection(tmp_path, **changed)
    assert complaint(lambda: task.read_folder(folder, split)) == f"{tmp_path}/{expected}"


def test_pairs_of_a_collection(tmp_path: Path) -> None:
    examples = sentence_embedding.read_folder(collection(tmp_path), "train")
    assert [(e.texts, e.form) for e in examples] == [
        (("red apples", DOCUMENTS["d1"]), "pair"),
        (("red apples", DOCUMENTS["d2"]), "pair"),
    ]
    sentence_embedding.uniform(examples)


def test_vectors_of_a_collection(tmp_path: Path) -> None:
    """A vector for each document and query; one that points the right way finds all."""
    task = sentence_embedding
    examples = task.read_folder(collection(tmp_path), "test")
    assert [(e.form, e.id, e.texts[0]) for e in examples] == [
        *(("document", i, t) for i, t in DOCUMENTS.items()),
        *(("query", i, t) for i, (t, s) in QUERIES.items() if s == "test"),
    ]
    assert [e.relevant for e in examples[-2:]] == [{"d3": 1.0}, {"d4": 1.0}]
    axes = np.eye(5).tolist()
    results = [task.Result(v) for v in (*axes, axes[2], axes[3])]
    figures = task.metrics(examples, results)
    assert figures == pytest.approx({"recall_at_10": 1.0, "mrr_at_10": 1.0, "ndcg_at_10": 1.0})


def test_negatives_of_a_collection_are_never_relevant(tmp_path: Path) -> None:
    examples = text_ranking.read_folder(collection(tmp_path), "train")
    relevant = {DOCUMENTS["d1"], DOCUMENTS["d2"]}
    assert [e.passages[0] for e in examples] == [DOCUMENTS["d1"], DOCUMENTS["d2"]]
    for example in examples:
        assert example.query == "red apples"
        assert example.gold == (1.0, 0.0, 0.0, 0.0)
        assert example.passages[1] == DOCUMENTS["d5"]  # "red" makes it the hardest
        assert not relevant & set(example.passages[1:])
    text_ranking.uniform(examples)


def test_candidates_of_a_collection(tmp_path: Path) -> None:
    examples = text_ranking.read_folder(collection(tmp_path), "test")
    assert [e.query for e in examples] == ["sour pears", "sailing ships sea"]
    for example, right in zip(examples, ("d3", "d4"), strict=True):
        assert example.passages[0] == DOCUMENTS[right]
        words = set(example.query.split())
        assert all(words & set(p.split()) for p in example.passages)  # nothing in common, no candidate
        assert example.gold == (1.0, *[0.0] * (len(example.passages) - 1))
        assert example.ideal == (1.0,)


def test_a_folder_is_read_through_read_labelled(tmp_path: Path) -> None:
    folder = collection(tmp_path)
    for name in ("sentence-embedding", "text-ranking"):
        task: Any = tasks.load(name)
        assert tasks.read_labelled(task, folder, split="test") == task.read_folder(folder, "test")


def test_candidates_are_the_best_of_bm25(tmp_path: Path) -> None:
    found = retrieval.candidates(retrieval.read(collection(tmp_path), "train"), 3)
    assert list(found) == ["q1"]
    assert set(found["q1"]) == {"d1", "d2", "d5"}
    assert found["q1"][2] == "d5"


def test_words_in_common_make_candidates(tmp_path: Path) -> None:
    """Stop words are one language's: a corpus of them is one like others."""
    folder = tmp_path / "stop"
    folder.mkdir()
    files: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"id": "d1", "text": "a"}, {"id": "d2", "text": "the"}],
        "queries": [{"id": "q1", "text": "the"}, {"id": "q2", "text": "zzz"}],
        "qrels": [{"query_id": f"q{i}", "doc_id": "d2", "relevance": 1} for i in (1, 2)],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = retrieval.candidates(retrieval.read(folder, "test"), 5)
    assert found == {"q1": ["d2"], "q2": []}
