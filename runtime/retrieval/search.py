"""Questions to a corpus, by up to three bundles: an embedder finds passages, a reranker orders them, a reader answers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from headway.core import hub
from headway.core.data import Record
from headway.core.errors import UsageError
from headway.core.generation import Result
from headway.core.manifest import Bundle
from headway.core.tasks import Output, question_answering, sentence_embedding, text_ranking
from headway.runtime.fork_safety import TokenizerLock
from headway.runtime.generation.pipeline import GenerationPipeline
from headway.runtime.load import TOKENIZER, load
from headway.runtime.pipeline import EncoderPipeline
from headway.runtime.retrieval.index import Embedded, Hit, Index
from headway.runtime.retrieval.store import Origin, Vectors
from headway.runtime.tokenize import open_tokenizer

CANDIDATES = 50
"""passages that a reranker reads of each query, at least"""
WINDOW = 64
"""queries that `stream` answers together"""
BETWEEN = "\n"
"""what stands between the passages that a reader reads together"""
TEMPLATE = "question: {question} context: {context}"
"""what a bundle that writes answers is given"""
PLACES = re.compile(r"\{(question|context)\}")


class BundleEmbedder:
    """A bundle of sentence-embedding. Queries and passages go to it as such."""

    def __init__(self, bundle: str | Path, precision: str = "auto", threads: int | None = None) -> None:
        """Raises UsageError if the bundle is of another task, and what `headway.runtime.load` raises."""
        self._pipe: EncoderPipeline = _opened(bundle, "sentence-embedding", "--embedder", precision, threads)
        place = str(bundle) if not Path(bundle).exists() else str(Path(bundle).absolute())
        self.origin = Origin(place, self._pipe.manifest.seal, self._pipe.precision)
        self.truncated = 0
        """passages so far that were longer than the model and were cut"""

    @property
    def similarity(self) -> str:
        """How the bundle's vectors are to be compared; of vectors of length 1 all but "manhattan" give one order."""
        settings: sentence_embedding.Settings = self._pipe.spec.settings
        function, unit = settings.similarity_fn_name, settings.normalize and settings.truncate_dim is None
        return "cosine" if unit and function in ("dot", "euclidean") else function

    def passages(self, records: Sequence[Record]) -> Vectors:
        """(N, D) of the records' texts."""
        return self.embed_passages(records).vectors

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(N, D)"""
        return self.embed_queries(texts).vectors

    def embed_passages(self, records: Sequence[Record]) -> Embedded:
        """As `passages`, with which of the texts were cut."""
        made = self._embedded(records, "document")
        self.truncated += int(made.truncated.sum())
        return made

    def embed_queries(self, texts: Sequence[str]) -> Embedded:
        """As `queries`, with which of the texts were cut."""
        records = [Record({"text": t}, "query", i) for i, t in enumerate(texts, start=1)]
        return self._embedded(records, "query")

    def _embedded(self, records: Sequence[Record], form: str) -> Embedded:
        examples = [sentence_embedding.Example((r.text("text"),), form, None, None, r) for r in records]
        results = [cast(sentence_embedding.Result, r) for r in self._pipe.predict(examples)]
        vectors = np.array([r.embedding for r in results], np.float32)
        return Embedded(vectors, np.array([r.truncated for r in results], np.bool_))


class Reranker:
    """A bundle of text-ranking."""

    def __init__(self, bundle: str | Path, precision: str = "auto", threads: int | None = None) -> None:
        self._pipe: EncoderPipeline = _opened(bundle, "text-ranking", "--reranker", precision, threads)

    def __call__(self, queries: Sequence[str], found: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """The hits of each query in the order of their new scores, each with whether it was cut."""
        nowhere = Record({}, "query", 0)
        examples = [
            text_ranking.Example(query, (hit.text,), None, (), None, nowhere)
            for query, hits in zip(queries, found, strict=True)
            for hit in hits
        ]
        results = iter(cast(list[text_ranking.Result], self._pipe.predict(examples)))
        ranked = []
        for hits in found:
            scored = [
                replace(hit, score=result.score, truncated=hit.truncated or result.truncated)
                for hit, result in zip(hits, islice(results, len(hits)), strict=True)
            ]
            ranked.append(sorted(scored, key=lambda h: -h.score))
        return ranked


@dataclass(frozen=True)
class Answer:
    """What a reader says after reading the passages that were found."""

    answer: str
    """"" for none"""
    start: int
    """in characters of the passage; 0 where the answer is written, not found in one"""
    end: int
    score: float
    """probability among the answers of all passages and "no answer"; of a written one its hypothesis' score"""
    id: str | None
    """the passage; none without an answer, and where it is written from several"""
    truncated: bool = False
    """a part of what was found was not read: passages, or the end of one, for which a model that writes has no room"""


class Reader:
    """A bundle of question-answering."""

    def __init__(self, bundle: str | Path, precision: str = "auto", threads: int | None = None) -> None:
        self._pipe: EncoderPipeline = _opened(bundle, "question-answering", "--reader", precision, threads)
        self._tokenizing = TokenizerLock(open_tokenizer(hub.located(bundle) / TOKENIZER))

    def __call__(self, questions: Sequence[str], found: Sequence[Sequence[Hit]]) -> list[Answer]:
        """The best answer to each question in all of its passages.

        The passages are windows of one context, so that answers are compared by their logits: probabilities within
        one passage say nothing about another.
        """
        nowhere = Record({}, "query", 0)
        pairs = [(i, hit) for i, hits in enumerate(found) for hit in hits]
        alone = [question_answering.Example(questions[i], h.text, None, None, nowhere) for i, h in pairs]
        whole = [
            question_answering.Example(question, BETWEEN.join(h.text for h in hits), None, None, nowhere)
            for question, hits in zip(questions, found, strict=True)
        ]
        begins = [_begins(hits) for hits in found]
        shifts = [begin for own in begins for begin in own]
        outputs = []
        for output in self._outputs(alone):
            own = output.row.example
            marks = np.where(output.row.marks >= 0, output.row.marks + shifts[own], -1)  # (T, 2)
            outputs.append(replace(output, row=replace(output.row, example=pairs[own][0], marks=marks)))
        results = question_answering.decode(whole, outputs, self._pipe.spec)
        return [_placed(r, hits, places) for r, hits, places in zip(results, found, begins, strict=True)]

    def _outputs(self, examples: Sequence[question_answering.Example]) -> list[Output]:
        if not examples:
            return []
        with self._tokenizing:
            rows = question_answering.rows(examples, self._tokenizing.tokenizer, self._pipe.spec)
        return [Output(row, logits) for row, logits in zip(rows, self._pipe.answers(rows), strict=True)]


def _begins(hits: Sequence[Hit]) -> list[int]:
    """Where in the joined context each passage begins."""
    ends = accumulate((len(h.text) + len(BETWEEN) for h in hits), initial=0)
    return list(islice(ends, len(hits)))


def _placed(result: question_answering.Result, hits: Sequence[Hit], begins: Sequence[int]) -> Answer:
    """An answer in the joined context as one in its passage."""
    if not result.answer:
        return Answer("", 0, 0, result.score if hits else 1.0, None)
    place = bisect_right(begins, result.start) - 1
    begin = begins[place]
    return Answer(result.answer, result.start - begin, result.end - begin, result.score, hits[place].id)


class Writer:
    """A bundle of text2text-generation, which writes answers from the passages (abstractive question answering)."""

    def __init__(
        self,
        bundle: str | Path,
        precision: str = "auto",
        threads: int | None = None,
        template: str = TEMPLATE,
    ) -> None:
        """`template`: what the model was trained to read, with {question} and {context}. Raises UsageError."""
        self._pipe: GenerationPipeline = _opened(
            bundle, "text2text-generation", "--reader", precision, threads
        )
        if "{question}" not in template or "{context}" not in template:
            raise UsageError("--template", f"wants {{question}} and {{context}}, not '{template}'")
        self._template = template

    def __call__(self, questions: Sequence[str], found: Sequence[Sequence[Hit]]) -> list[Answer]:
        """An answer to each question from as many of its passages, the best first, as the model can read together."""
        sources = [self._source(question, hits) for question, hits in zip(questions, found, strict=True)]
        written = iter(self._pipe([source for source, _ in sources if source]))
        answers = []
        for (source, count), hits in zip(sources, found, strict=True):
            if not source:
                answers.append(Answer("", 0, 0, 1.0, None))
                continue
            result = cast(Result, next(written))
            truncated = result.truncated or count < len(hits)
            answers.append(Answer(result.text.strip(), 0, 0, result.score, None, truncated))
        return answers

    def _source(self, question: str, hits: Sequence[Hit]) -> tuple[str, int]:
        """What is read, and how many passages are in it; "" without any. Of one that is too long the beginning is read."""
        source = ""
        for count in range(1, len(hits) + 1):
            given = {"question": question, "context": BETWEEN.join(hit.text for hit in hits[:count])}
            longer = PLACES.sub(lambda place, given=given: given[place[1]], self._template)  # type: ignore[misc]
            if source and not self._pipe.fits(longer):
                return source, count - 1
            source = longer
        return source, len(hits)


def opened_reader(
    bundle: str | Path, precision: str = "auto", threads: int | None = None, template: str = TEMPLATE
) -> Reader | Writer:
    """What the bundle is: one that finds answers in passages, or one that writes them. Raises UsageError."""
    writes = Bundle.read(hub.located(bundle)).task == "text2text-generation"
    return Writer(bundle, precision, threads, template) if writes else Reader(bundle, precision, threads)


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    query: str
    hits: list[Hit]
    """best first"""
    answer: Answer | None = None
    """with a reader"""
    truncated: bool = False
    """the query was longer than the embedder, which read its beginning"""


class Search:
    """An index with the bundle that made it, and others that read what it finds."""

    def __init__(
        self,
        index: Index,
        embedder: BundleEmbedder,
        reranker: Reranker | None = None,
        reader: Reader | Writer | None = None,
    ) -> None:
        """Raises UsageError if the index was made by another embedder."""
        index.refuse_other(embedder.origin)
        self._index, self._embedder, self._reranker, self._reader = index, embedder, reranker, reader

    def __call__(self, queries: Sequence[str], top: int = 10, *, exact: bool = False) -> list[Found]:
        """The `top` best passages of each query, and the reader's answer."""
        if not queries:
            return []
        asked = self._embedder.embed_queries(queries)
        depth = top if self._reranker is None else max(top, CANDIDATES) if top > 0 else top
        found = self._index.search(asked.vectors, depth, exact=exact)
        if self._reranker is not None:
            found = self._reranker(queries, found)
        found = [hits[:top] for hits in found]
        answers = self._reader(queries, found) if self._reader is not None else [None] * len(queries)
        parts = zip(queries, found, answers, asked.truncated.tolist(), strict=True)
        return [Found(*part) for part in parts]

    def stream(self, queries: Iterable[str], top: int = 10, *, exact: bool = False) -> Iterator[Found]:
        """As a call, of any number of queries in bounded memory."""
        source = iter(queries)
        while window := list(islice(source, WINDOW)):
            yield from self(window, top, exact=exact)


def _opened(bundle: str | Path, task: str, option: str, precision: str, threads: int | None) -> Any:
    pipe = load(bundle, precision=precision, threads=threads)
    if pipe.manifest.task != task:
        raise UsageError(option, f"{bundle} is a bundle of {pipe.manifest.task}, not of {task}")
    return pipe
