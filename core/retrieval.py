"""A retrieval collection: corpus.jsonl, queries.jsonl and qrels.jsonl in a folder; candidates by BM25."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.core import data
from headway.core.data import Record
from headway.core.errors import DataError, UnavailableError


@dataclass(frozen=True)
class Collection:
    documents: dict[str, Record]
    """by id; each has a text"""
    queries: dict[str, Record]
    """by id; each has a text"""
    relevant: dict[str, dict[str, float]]
    """of each query, the relevance (above 0) of its documents"""


def read(folder: Path, split: str) -> Collection:
    """Read a collection. Where queries have a field "split", only those of the split are taken. Raises DataError."""
    documents = _by_id(folder / "corpus.jsonl")
    everyone = _by_id(folder / "queries.jsonl")
    relevant: dict[str, dict[str, float]] = {}
    for record in data.read(folder / "qrels.jsonl"):
        asked, document = record.text("query_id"), record.text("doc_id")
        for field, known in (("query_id", everyone), ("doc_id", documents)):
            if record.fields[field] not in known:
                raise record.error(f"unknown id '{record.fields[field]}'", field)
        relevance = record.number("relevance")
        if relevance < 0:
            raise record.error(f"{relevance:g} is below 0", "relevance")
        if relevance > 0:
            relevant.setdefault(asked, {})[document] = relevance
    queries = {i: q for i, q in everyone.items() if q.fields.get("split", split) == split}
    for i, query in queries.items():
        if i not in relevant:
            raise query.error("has no relevant document in qrels.jsonl", "id")
    if not queries:
        raise DataError(f"has no query of the split '{split}'", file=str(folder / "queries.jsonl"))
    return Collection(documents, queries, relevant)


def _by_id(path: Path) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in data.read(path):
        record.text("text")
        if record.text("id") in found:
            raise record.error(f"'{record.fields['id']}' occurs twice", "id")
        found[record.text("id")] = record
    return found


def candidates(collection: Collection, depth: int) -> dict[str, list[str]]:
    """Ids of the `depth` documents that BM25 ranks highest for each query, best first; fewer if no word is common."""
    ids, queries = list(collection.documents), list(collection.queries)
    ranked = _bm25(
        [collection.documents[i].fields["text"] for i in ids],
        [collection.queries[i].fields["text"] for i in queries],
        min(depth, len(ids)),
    )
    return {query: [ids[d] for d in row] for query, row in zip(queries, ranked, strict=True)}


def _bm25(documents: Sequence[str], queries: Sequence[str], depth: int) -> list[list[int]]:
    """Places of the best documents of each query. Every word counts, as stop words are one language's."""
    try:
        import bm25s
    except ImportError as error:
        raise UnavailableError("bm25s, which finds candidates,", "pip install 'headway[train]'") from error
    index = bm25s.BM25()
    words = {"stopwords": [], "token_pattern": r"(?u)\w+", "show_progress": False}
    index.index(bm25s.tokenize(list(documents), **words), show_progress=False)
    found, scores = index.retrieve(bm25s.tokenize(list(queries), **words), k=depth, show_progress=False)
    return [
        [int(d) for d, s in zip(row, own, strict=True) if s > 0]
        for row, own in zip(found, scores, strict=True)
    ]
