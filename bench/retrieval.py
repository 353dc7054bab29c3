"""Answers of three bundles together, embedder, ranker and reader, on real questions: `python -m headway.bench.retrieval --help`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headway.core import data, tasks
from headway.core.tasks import question_answering
from headway.runtime.retrieval.index import Index
from headway.runtime.retrieval.search import BundleEmbedder, Found, Reader, Reranker, Search

RETRIEVAL = "squad_retrieval"
QUESTIONS = ("squad2_16art", "squadshifts_new_wiki")


def main() -> None:
    """Print a line of JSON for each number of passages, without the reranker and with it."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.retrieval", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    for name in ("embedder", "reranker", "reader"):
        parser.add_argument(f"--{name}", required=True, help="a bundle")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--top", type=int, action="append", help="passages that are read; default 1 and 5")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    examples = questions(given.data)[: given.questions]
    embedder = BundleEmbedder(given.embedder, threads=given.threads)
    rankers = {"without": None, "with": Reranker(given.reranker, threads=given.threads)}
    reader = Reader(given.reader, threads=given.threads)
    with tempfile.TemporaryDirectory() as folder:
        index = Index.build(str(given.data / RETRIEVAL / "corpus.jsonl"), embedder, Path(folder) / "index")
        for ranker, reranker in rankers.items():
            search = Search(index, embedder, reranker, reader)
            for top in given.top or (1, 5):
                found = search([e.question for e in examples], top)
                figures = {"reranker": ranker, "passages": top, **judged(examples, found)}
                print(json.dumps(figures), flush=True)


def questions(folder: Path) -> list[question_answering.Example]:
    """Answerable test questions that are test queries of the collection, too, so that no bundle was trained on them."""
    read = data.read(folder / RETRIEVAL / "queries.jsonl")
    queries = {r.fields["text"] for r in read if r.fields["split"] == "test"}
    task: Any = tasks.load("question-answering")
    every: Iterator[Any] = (
        e for name in QUESTIONS for e in tasks.read_labelled(task, folder / name / "test.jsonl")
    )
    return [e for e in every if e.answers and e.question in queries]


def judged(examples: Sequence[question_answering.Example], found: Sequence[Found]) -> dict[str, float]:
    """Exact match and F1 of the answers, and the share of questions whose passage was among those read."""
    said = [f.answer for f in found]
    results = [
        question_answering.Result(a.answer, a.start, a.end, a.score, []) for a in said if a is not None
    ]
    passages = [" ".join(e.context.split()) for e in examples]  # as the collection has them
    here = sum(any(h.text == p for h in f.hits) for p, f in zip(passages, found, strict=True))
    figures = question_answering.metrics(examples, results)
    return {"questions": len(examples), **figures, "passage_found": here / len(examples)}


if __name__ == "__main__":
    main()
