"""Bad training and held-out data of every task: file, line, field, exit code 3, nothing written, nothing trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import corpora
from tests.conftest import Run

Rows = Callable[[str], corpora.Rows]
GOOD: dict[str, Rows] = {
    "text-classification": corpora.single,
    "sequential-sentence-classification": corpora.documents,
    "token-classification": corpora.entities,
    "question-answering": corpora.questions,
    "text2text-generation": corpora.rewrites,
    "text-generation": corpora.rewrites,
    "sentence-embedding": corpora.triplets,
    "text-ranking": corpora.lists,
}
CONTEXT = {"id": "x", "question": "who?", "context": "It was Ann."}


def answers(text: Any, start: Any) -> dict[str, Any]:
    return CONTEXT | {"answers": {"text": [text], "answer_start": [start]}}


CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("token-classification", {"tokens": ["a", "b"], "tags": ["O"]}, "tags", "has 1 tags for 2 tokens"),
    ("token-classification", {"tokens": ["a", "b"], "tags": ["O", "I-CAP"]}, "tags", "I-CAP"),  # of held-out data an unknown tag
    ("token-classification", {"tokens": ["a", "b"], "tags": ["B-NUM", "I-CAP"]}, "tags", "I-CAP"),
    ("token-classification", {"tokens": ["a", " "], "tags": ["O", "O"]}, "tokens", "entry 1 is empty or only white"),
    ("token-classification", {"tokens": "a b", "tags": ["O"]}, "tokens", "must be a list, not str"),
    ("token-classification", {"tokens": [], "tags": []}, "tokens", "has 0 entries, fewer than 1"),
    ("sequential-sentence-classification", {"sentences": ["a", "b"], "labels": ["x"]}, "labels", "has 1 labels for 2"),
    ("sequential-sentence-classification", {"sentences": [], "labels": []}, "sentences", "has 0 entries"),
    ("question-answering", answers("Ann", 3), "answers", "'Ann' is not at character 3 of the context: 'was' is"),
    ("question-answering", answers("Ann", -4), "answers", "'Ann' is not at character -4"),
    ("question-answering", answers("Ann", "7"), "answers", "answer 'Ann' at '7' is not a text and a number"),
    ("question-answering", CONTEXT | {"context": " ", "answers": {"text": [], "answer_start": []}}, "context", "is empty"),
    ("question-answering", CONTEXT | {"answers": {"text": ["Ann"], "answer_start": []}}, "answers", "same length"),
    ("question-answering", CONTEXT, "answers", "must be an object"),
    ("text2text-generation", {"source": "a"}, "references", "missing"),
    ("text2text-generation", {"source": "a", "target": ""}, "target", "is empty"),
    ("text-generation", {"text": "a plain text"}, "source", "missing; the other records have it"),
    ("sentence-embedding", {"anchor": "a", "positive": "b"}, "negative", "the first record is a triplet, this one a pair"),
    ("sentence-embedding", {"text": "a"}, "text1", "missing"),
    ("text-ranking", {"query": "q", "passage": "p", "label": 1}, "positive", "missing; the other records have it"),
    ("text-ranking", {"query": "q", "positive": "p", "negatives": []}, "negatives", "has 0 entries, fewer than 1"),
    ("text-classification", {"text": "a", "labels": ["bug"]}, "label", "missing; the other records have it"),
    ("text-classification", {"text1": "a", "text2": "b", "label": "bug"}, "text1", "the other records have one text"),
    ("text-classification", {"text": "a", "score": 1}, "label", "missing; the other records have it"),
]  # fmt: skip


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("role", ["train", "eval"])
@pytest.mark.parametrize(("task", "row", "field", "problem"), CASES)
def test_a_bad_record(
    task: str,
    row: dict[str, Any],
    field: str,
    problem: str,
    role: str,
    run: Run,
    pretrained: Path,
    tmp_path: Path,
) -> None:
    good = write(GOOD[task]("train")[:8], tmp_path / "good.jsonl")
    bad = write([*GOOD[task]("train")[:2], row], tmp_path / "bad.jsonl")
    files = {"train": good, "eval": good} | {role: bad}
    model = ["--from-scratch", "small"] if task == "text-generation" else ["--model", pretrained]
    ran = run(
        "train",
        task,
        *model,
        "--train",
        files["train"],
        "--eval",
        files["eval"],
        "--output",
        tmp_path / "out",
    )
    assert ran.code == 3, ran.err
    assert ran.err.startswith(f"headway: {bad}:3: field '{field}': ")
    assert problem in ran.err
    assert len(ran.err.splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"good.jsonl", "bad.jsonl"}


@pytest.mark.parametrize(
    ("task", "make", "change", "field", "problem"),
    [
        (
            "token-classification",
            corpora.entities,
            {"tags": ["B-NEW"]},
            "tags",
            "entry 0 is the unknown tag 'B-NEW'",
        ),
        (
            "sequential-sentence-classification",
            corpora.documents,
            {"labels": ["new"]},
            "labels",
            "unknown label 'new'",
        ),
        ("text-classification", corpora.single, {"label": "new"}, "label", "unknown label 'new'"),
        ("text-classification", corpora.multi, {"labels": ["b", "new"]}, "labels", "unknown label 'new'"),
    ],
)
def test_what_training_has_not_seen(
    task: str,
    make: Rows,
    change: dict[str, Any],
    field: str,
    problem: str,
    run: Run,
    pretrained: Path,
    tmp_path: Path,
) -> None:
    rows = make("train")[:12]
    for name in ("tokens", "sentences"):
        if name in rows[0]:
            change = change | {name: rows[0][name][:1]}
    good = write(rows, tmp_path / "good.jsonl")
    bad = write([rows[0], rows[1] | change], tmp_path / "bad.jsonl")
    output = tmp_path / "out"
    ran = run("train", task, "--model", pretrained, "--train", good, "--eval", bad, "--output", output)
    assert ran.code == 3
    assert ran.err.startswith(f"headway: {bad}:2: field '{field}': ")
    assert problem in ran.err
    assert not output.exists()


@pytest.mark.parametrize("score", [-0.1, 5.01, "high", None, True])
def test_scores_out_of_range(score: Any, run: Run, pretrained: Path, tmp_path: Path) -> None:
    rows = [{"text1": "a", "text2": "b", "score": s} for s in (0, 5, score)]
    bad = write(rows, tmp_path / "bad.jsonl")
    arguments = ["--model", pretrained, "--train", bad, "--output", tmp_path / "out", "--score-range", "0,5"]
    ran = run("train", "text-classification", *arguments)
    assert ran.code == 3
    assert ran.err.startswith(f"headway: {bad}:3: field 'score': ")
    assert ("outside the declared range 0 to 5" in ran.err) == isinstance(score, float)


@pytest.mark.parametrize(
    ("file", "line", "place", "problem"),
    [
        ("corpus", {"id": "d0", "text": "again"}, "corpus.jsonl:4: field 'id'", "'d0' occurs twice"),
        ("corpus", {"id": "d9", "text": ""}, "corpus.jsonl:4: field 'text'", "is empty"),
        (
            "queries",
            {"id": "q9", "text": "alone", "split": "train"},
            "queries.jsonl:4: field 'id'",
            "has no relevant",
        ),
        (
            "qrels",
            {"query_id": "q0", "doc_id": "d9", "relevance": 1},
            "qrels.jsonl:4: field 'doc_id'",
            "unknown id",
        ),
        (
            "qrels",
            {"query_id": "q9", "doc_id": "d0", "relevance": 1},
            "qrels.jsonl:4: field 'query_id'",
            "unknown id",
        ),
        (
            "qrels",
            {"query_id": "q0", "doc_id": "d1", "relevance": -1},
            "qrels.jsonl:4: field 'relevance'",
            "below 0",
        ),
    ],
)
def test_bad_collections(
    file: str, line: dict[str, Any], place: str, problem: str, run: Run, pretrained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "collection"
    folder.mkdir()
    rows: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"id": f"d{i}", "text": f"document {i}"} for i in range(3)],
        "queries": [{"id": f"q{i}", "text": f"query {i}", "split": "train"} for i in range(3)],
        "qrels": [{"query_id": f"q{i}", "doc_id": f"d{i}", "relevance": 1} for i in range(3)],
    }
    rows[file].append(line)
    for name, lines in rows.items():
        write(lines, folder / f"{name}.jsonl")
    for task in ("sentence-embedding", "text-ranking"):
        ran = run("train", task, "--model", pretrained, "--train", folder, "--output", tmp_path / "out")
        assert ran.code == 3
        assert ran.err.startswith(f"headway: {folder}/{place}: ")
        assert problem in ran.err
    assert {p.name for p in tmp_path.iterdir()} == {"collection"}
