"""text-ranking: a query and a passage in, how well the passage answers the query out (a cross-encoder)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, figures, report, retrieval
from headway.core.data import Record
from headway.core.errors import DataError
from headway.core.tasks import Output, Row, Spec, encode

CANDIDATES = 50
"""passages of a collection that BM25 finds for each query to be ranked again"""
NEGATIVES = 4
"""passages that BM25 finds for each query to train against"""

GOLD = {"positive": "positive", "passage": "label"}
"""the field that each form of record is told by"""

PLAIN = {2: ("query", "passage")}
GRAPH = {"logits": ("batch", "classes"), "probabilities": ("batch", "classes")}
READ = ("logits",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    temperature: float = 1.0
    """divides the logits"""
    activation_fn: Literal["identity", "sigmoid"] = "sigmoid"
    """what makes the score of the model's output; with identity no temperature is fitted"""
    prompt: str = ""
    """is put before the query"""


@dataclass(frozen=True)
class Example:
    query: str
    passages: tuple[str, ...]
    gold: tuple[float, ...] | None
    """relevance of each passage, from 0 to 1 (in a collection: as its qrels say)"""
    ideal: tuple[float, ...]
    """relevance of all that is relevant to the query, whether among the passages or not"""
    id: Any
    record: Record
    form: Literal["passage", "positive", "collection"] = "passage"
    """what it was made from: a record with a passage, or with a positive; or a query of a collection"""


@dataclass(frozen=True)
class Result:
    score: float
    """probability that the passage is relevant"""
    truncated: bool = False


@dataclass(frozen=True)
class Ranked:
    """Of a record with several passages."""

    scores: list[float]
    truncated: bool = False


def metric(settings: Settings) -> str:
    return "ndcg_at_10"


def read(record: Record, labelled: bool, gold: str | None = None) -> Example:
    """`gold`: which form is read of a record that carries both; positive and negatives, where it does not carry that."""
    query, i = record.text("query"), record.fields.get("id")
    if "positive" in record.fields and not (gold == "passage" and gold in gold_kinds(record)):
        passages = (record.text("positive"), *record.texts("negatives"))
        return Example(query, passages, (1.0,) + (0.0,) * (len(passages) - 1), (1.0,), i, record, "positive")
    passage = record.text("passage")
    if not labelled:
        return Example(query, (passage,), None, (), i, record)
    label = record.number("label")
    if not 0 <= label <= 1:
        raise record.error(f"{label:g} is outside the range 0 to 1", "label")
    return Example(query, (passage,), (label,), (label,) if label else (), i, record)


def gold_kinds(record: Record) -> tuple[str, ...]:
    """Forms that a record carries, the one that is read by default first."""
    with_label = ("passage",) if {"passage", "label"} <= record.fields.keys() else ()
    return ("positive",) * ("positive" in record.fields) + with_label


def is_readable(record: Record, kind: str) -> bool:
    """Whether a record can be used in a form."""
    try:
        read(record, True, kind)
    except DataError:
        return False
    return kind in gold_kinds(record)


def read_folder(folder: Path, split: str) -> list[Example]:
    """A collection. To train: each relevant document with others that BM25 finds; else BM25's best of each query.

    A query of which BM25 finds nothing is an example without passages, which counts as one that finds nothing.
    """
    collection = retrieval.read(folder, split)
    texts = {i: d.fields["text"] for i, d in collection.documents.items()}
    train = split == "train"
    found = retrieval.candidates(collection, 4 * NEGATIVES if train else CANDIDATES)
    examples = []
    for q, query in collection.queries.items():
        relevant = collection.relevant[q]
        ideal = tuple(relevant.values())
        if not train:
            gold = tuple(relevant.get(d, 0.0) for d in found[q])
            passages = tuple(texts[d] for d in found[q])
            examples.append(Example(query.fields["text"], passages, gold, ideal, q, query, "collection"))
            continue
        chance = random.Random(q).sample(
            list(texts), min(len(texts), 4 * NEGATIVES)
        )  # where BM25 finds too few
        others = [d for d in dict.fromkeys([*found[q], *chance]) if d not in relevant][:NEGATIVES]
        for document in relevant:
            passages = (texts[document], *(texts[d] for d in others))
            gold = (1.0,) + (0.0,) * len(others)
            examples.append(Example(query.fields["text"], passages, gold, ideal, q, query, "collection"))
    return examples


def uniform(examples: Sequence[Example]) -> None:
    """Raise DataError at the first example that is of another form than the first one."""
    for example in examples:
        if example.form != examples[0].form:
            raise example.record.error("missing; the other records have it", examples[0].form)


def check(example: Example, spec: Spec) -> None:
    """Any passage can be scored."""


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    """One a passage, in the order of the examples and their passages."""
    owner = [i for i, e in enumerate(examples) for _ in e.passages]
    prompt = spec.settings.prompt
    pairs = [(prompt + e.query, passage) for e in examples for passage in e.passages]
    encodings = encode(tokenizer, pairs, spec.max_length, offsets=False, side=spec.truncation_side)
    return [
        Row(i, e.ids, e.type_ids, truncated=bool(e.overflowing))
        for i, e in zip(owner, encodings, strict=True)
    ]


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> list[Any]:
    logits = np.array([o.logits[0] for o in outputs])
    if spec.settings.activation_fn == "sigmoid":
        chances = calibration.sigmoid(logits / spec.settings.temperature).tolist()
    else:
        chances = logits.tolist()
    results: list[Any] = []
    start = 0
    for example in examples:
        end = start + len(example.passages)
        cut = any(o.row.truncated for o in outputs[start:end])
        results.append(Result(chances[start], cut) if end == start + 1 else Ranked(chances[start:end], cut))
        start = end
    return results


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    if spec.settings.activation_fn == "identity":
        unchanged: Settings = spec.settings
        return unchanged
    logits = np.array([o.logits[0] for o in outputs])
    gold = np.array([min(1.0, g) for e in examples for g in e.gold or ()])
    settings: Settings = msgspec.structs.replace(
        spec.settings, temperature=calibration.fit_temperature_binary(logits, gold)
    )
    return settings


def metrics(examples: Sequence[Example], results: Sequence[Any]) -> dict[str, float]:
    """Recall, reciprocal rank and nDCG at 10 over the passages of each query.

    Records of one query are one list of passages. A collection's query without any passage is 0 in all figures.
    """
    scores: dict[Any, list[tuple[float, float]]] = {}
    ideal: dict[Any, list[float]] = {}
    for example, result in zip(examples, results, strict=True):
        query = (example.form, example.id) if example.form == "collection" else example.query
        scores.setdefault(query, []).extend(zip(_scores(result), example.gold or (), strict=True))
        ideal.setdefault(query, []).extend(example.ideal)
    return figures.mean(
        [
            figures.ranking([g for _, g in sorted(own, key=lambda p: (-p[0], p[1]))], ideal[query])
            for query, own in scores.items()
            if ideal[query]
        ]
        or [figures.ranking([], [])]
    )


def _scores(result: Any) -> list[float]:
    return [result.score] if isinstance(result, Result) else result.scores


def certainty(
    examples: Sequence[Example], results: Sequence[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of every yes or no."""
    chances = np.array([s for r in results for s in _scores(r)])
    gold = np.array([g for e in examples for g in e.gold or ()]) > 0.5
    return np.maximum(chances, 1 - chances), (chances >= 0.5) == gold


def tables(examples: Sequence[Example], results: Sequence[Any]) -> list[report.Table]:
    wrong: list[list[Any]] = [
        [abs(g - s), e.record.line, g, s, e.query, passage]
        for e, r in zip(examples, results, strict=True)
        for g, s, passage in zip(e.gold or (), _scores(r), e.passages, strict=True)
    ]
    wrong.sort(key=lambda row: -row[0])
    return [
        report.worst(
            ["line", "gold", "score", "query", "passage"], (row[1:] for row in wrong if row[0] > 0.5)
        )
    ]
