"""A retrieval collection: corpus.jsonl, queries.jsonl and qrels.jsonl in a folder; candidates by BM25."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
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
    """Ids of the `depth` documents that BM25 ranks highest for each query, best first; fewer, or none, if no term is
    common."""
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
    read = [terms(document) for document in documents]
    if not any(read):  # nothing but punctuation
        return [[] for _ in queries]
    index.index(read, show_progress=False)
    found, scores = index.retrieve([terms(query) for query in queries], k=depth, show_progress=False)
    return [
        [int(d) for d, s in zip(row, own, strict=True) if s > 0]
        for row, own in zip(found, scores, strict=True)
    ]


UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # marks of repetition, zero
    (0x3021, 0x303C),
    (0x3040, 0x318F),  # kana, Bopomofo, Hangul compatibility
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xA960, 0xA97F),
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),
    (0x16FE0, 0x18DFF),  # Tangut, Khitan, Nushu
    (0x1AFF0, 0x1B2FF),
    (0x20000, 0x323AF),  # Han
)
"""blocks of scripts that are written without spaces between words, and Hangul, whose particles follow a noun without one"""


def terms(text: str) -> list[str]:
    """What BM25 counts in a text, in Unicode's form NFKC and lower case.

    A word is letters and digits with the marks on them. In scripts without spaces each character (with its marks) is a term,
    and each two neighbours are one, as Lucene's CJKAnalyzer does (CJKWidthFilter, CJKBigramFilter with outputUnigrams).
    """
    text = unicodedata.normalize("NFKC", text).lower()
    if text.isascii():
        return re.findall(r"\w+", text)
    words, runs, characters = _patterns()
    found = []
    for word in words.findall(text):
        if not characters.search(word):
            found.append(word)
            continue
        for part in runs.findall(word):
            run = characters.findall(part) or [part]
            found += run
            found += map("".join, pairwise(run))
    return found


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Of a word; of its parts in scripts with and without spaces; of a character of a script without spaces.

    `\\w` has letters and digits, but not the marks on them (categories Mn, Mc), as the vowels of Hindi and Thai. Joiners
    stand inside words of Persian and Indic languages.
    """
    marks = _ranges(
        code for code in chain(range(0x20000), range(0xE0100, 0xE01F0)) if _category(code).startswith("M")
    )
    marks += "\u200c\u200d"
    places = chain.from_iterable(range(first, last + 1) for first, last in UNSPACED)
    unspaced = _ranges(code for code in places if _category(code)[0] in "LN")
    character = rf"[{unspaced}][{marks}]*"
    word, runs = rf"\w[\w{marks}]*", rf"(?:{character})+|[^{unspaced}]+"
    return re.compile(word), re.compile(runs), re.compile(character)


def _category(code: int) -> str:
    return unicodedata.category(chr(code))


def _ranges(codes: Iterable[int]) -> str:
    """Ascending code points as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
