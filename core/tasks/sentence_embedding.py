"""sentence-embedding: a text in, a vector out, near those of texts that mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import figures, report, retrieval
from headway.core.data import Record
from headway.core.errors import DataError
from headway.core.tasks import Output, Row, Spec, encode

FIGURE = {
    "score": "spearman",
    "label": "average_precision",
    "triplet": "triplet_accuracy",
    "pair": "mrr_at_10",
    "query": "ndcg_at_10",
    "document": "ndcg_at_10",
}
"""the figure by which each form of held-out data is judged"""

GOLD = {"score": "score", "label": "label", "triplet": "negative", "pair": "positive"}
"""the field that each form of record with several texts is told by"""

Stored = Literal["float32", "int8", "binary"]
"""how a vector is stored: as it is; in 8 bits a dimension; in one"""

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
"""functions of two vectors, by sentence-transformers' names"""

PLAIN = {1: ("text",), 2: ("text1", "text2")}
GRAPH = {"sentence_embedding": ("batch", "width")}
READ = ("sentence_embedding",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pooling: Literal["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = "mean"
    """how token vectors become one, by sentence-transformers' names"""
    normalize: bool = True
    """vectors have length 1"""
    prompts: dict[str, str] = {}
    """texts that are put before an input, by name: `query` before queries, `document` before documents"""
    default_prompt_name: str | None = None
    """the prompt of an input of which nothing else is said; None: no prompt"""
    truncate_dim: int | None = None
    """so many of the vector's first dimensions are given, as they are; None: all"""
    similarity_fn_name: Similarity = "cosine"
    """how alike two vectors are; distances are negative"""
    dimensions: list[int] = []
    """prefixes of the vector that were trained to be useful alone (Kusupati et al. 2022)"""
    figure: str = "spearman"
    """what training watched on the held-out data"""


@dataclass(frozen=True)
class Example:
    texts: tuple[str, ...]
    """one; or a pair; or anchor, positive, negative"""
    form: str
    """what the record is: text, score, label, pair, triplet; of a collection: query, document"""
    gold: float | str | None
    id: Any
    record: Record
    relevant: dict[str, float] = field(default_factory=dict)
    """of a query, the relevance of its documents, by id"""
    prompt: str | None = None
    """is put before each text; None: as the form and the settings say"""


@dataclass(frozen=True)
class Result:
    embedding: list[float]
    truncated: bool = False


@dataclass(frozen=True)
class Compared:
    """Of a record with several texts."""

    embeddings: list[list[float]]
    similarities: list[float]
    """of the first text's vector to each other's, by the model's similarity function"""
    truncated: bool = False


@dataclass(frozen=True)
class Int8:
    """Of one text, for storage."""

    embedding: list[int]
    """each entry times `scale` is the vector's, to the nearest step: -127 to 127"""
    scale: float
    """the vector's greatest absolute entry over 127; cosines need it not"""
    truncated: bool = False


@dataclass(frozen=True)
class Binary:
    """Of one text, for storage."""

    embedding: list[int]
    """bytes; one bit a dimension, 1 where it is above 0, the first dimension's the highest bit of the first byte"""
    truncated: bool = False


def metric(settings: Settings) -> str:
    return settings.figure


def read(record: Record, labelled: bool, gold: str | None = None) -> Example:
    """`gold`: which form is read of a record that carries several; the first, where it does not carry that."""
    i = record.fields.get("id")
    if "anchor" not in record.fields and "text1" not in record.fields:
        if labelled:
            raise record.error("missing: wants text1 and text2, or anchor and positive", "text1")
        return Example((record.text("text"),), "text", None, i, record)
    forms = gold_kinds(record)
    form = gold if gold in forms else forms[0] if forms else "score"
    names = ["anchor", "positive"] if "anchor" in record.fields else ["text1", "text2"]
    if "anchor" in record.fields and not labelled:
        form = forms[0]
    if form == "triplet":
        names.append("negative")
    texts = tuple(record.text(name) for name in names)
    if not labelled:
        return Example(texts, "triplet" if len(texts) == 3 else "pair", None, i, record)
    return Example(texts, form, _gold(record, form), i, record)


def gold_kinds(record: Record) -> tuple[str, ...]:
    """Forms that a record with several texts can be read in, the one that is read by default first."""
    scored = tuple(kind for kind in ("score", "label") if kind in record.fields)
    if "anchor" in record.fields:
        return ("triplet" if "negative" in record.fields else "pair", *scored)
    return scored if "text1" in record.fields else ()


def gold_of(settings: Settings) -> tuple[str, ...]:
    """Form of record that a model with these settings is judged by, where its figure is of one with a gold answer."""
    return tuple(form for form in ("score", "label") if FIGURE[form] == settings.figure)


def is_readable(record: Record, kind: str) -> bool:
    """Whether a record's gold answer of a form can be used."""
    try:
        _gold(record, kind)
    except DataError:
        return False
    return kind in gold_kinds(record)


def _gold(record: Record, form: str) -> float | str | None:
    if form == "score":
        return record.number("score")
    return record.label("label") if form == "label" else None


def read_folder(folder: Path, split: str) -> list[Example]:
    """A collection. To train: a pair of query and relevant document each; else all documents and queries."""
    collection = retrieval.read(folder, split)
    if split == "train":
        return [
            Example((query.fields["text"], collection.documents[d].fields["text"]), "pair", None, q, query)
            for q, query in collection.queries.items()
            for d in collection.relevant[q]
        ]
    documents = [
        Example((d.fields["text"],), "document", None, i, d) for i, d in collection.documents.items()
    ]
    return documents + [
        Example((q.fields["text"],), "query", None, i, q, collection.relevant[i])
        for i, q in collection.queries.items()
    ]


def uniform(examples: Sequence[Example]) -> None:
    """Raise DataError at the first example that is of another form than the first one."""
    for example in examples:
        first = examples[0]
        if example.form != first.form:
            missing = GOLD.get(first.form, "text")
            if missing in example.record.fields:
                missing = GOLD[example.form]
            raise example.record.error(
                f"the first record is a {first.form}, this one a {example.form}", missing
            )


def check(example: Example, spec: Spec) -> None:
    """Any text has a vector."""


def prompt_of(example: Example, settings: Settings) -> str:
    """What is put before each text: as `encode`, `encode_query` and `encode_document` of sentence-transformers do."""
    if example.prompt is not None:
        return example.prompt
    name = example.form if example.form in ("query", "document") else settings.default_prompt_name
    return settings.prompts.get(name, "") if name is not None else ""


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    """One a text, in the order of the examples and their texts."""
    owner = [i for i, e in enumerate(examples) for _ in e.texts]
    texts = [prompt_of(e, spec.settings) + text for e in examples for text in e.texts]
    encodings = encode(tokenizer, texts, spec.max_length, offsets=False, side=spec.truncation_side)
    return [
        Row(i, e.ids, e.type_ids, truncated=bool(e.overflowing))
        for i, e in zip(owner, encodings, strict=True)
    ]


def decode(
    examples: Sequence[Example],
    outputs: Sequence[Output],
    spec: Spec,
    dimensions: int | None = None,
    output: Stored = "float32",
) -> list[Any]:
    """`dimensions`: so many of the vector's first; `output`: how a text's vector is stored."""
    results: list[Any] = []
    start = 0
    for example in examples:
        own = outputs[start : start + len(example.texts)]
        start += len(own)
        cut = any(o.row.truncated for o in own)
        vectors = prefixes(np.stack([o.logits for o in own]), dimensions, spec)  # (texts, D)
        if len(own) == 1:
            results.append(_stored(vectors[0], output, cut))
        else:
            alike = similarities(vectors[:1], vectors[1:], spec.settings.similarity_fn_name)
            results.append(Compared(vectors.tolist(), alike[0].tolist(), cut))
    return results


def prefixes(vectors: NDArray[np.float32], dimensions: int | None, spec: Spec) -> NDArray[np.float32]:
    """The first `dimensions` of vectors (N, D), of length 1 where the task's vectors are; None: `truncate_dim`, or all."""
    if dimensions is None:
        return vectors[..., : spec.settings.truncate_dim]
    if dimensions == vectors.shape[-1]:
        return vectors
    cut = vectors[..., :dimensions]
    return _unit(cut.astype(np.float64)).astype(np.float32) if spec.settings.normalize else cut


def _stored(vector: NDArray[np.float32], output: Stored, truncated: bool) -> Result | Int8 | Binary:
    if output == "binary":
        return Binary(np.packbits(vector > 0).tolist(), truncated)
    if output == "int8":
        scale = max(float(np.abs(vector).max()), 1e-30) / 127
        return Int8(np.rint(vector / scale).astype(np.int8).tolist(), scale, truncated)
    return Result(vector.tolist(), truncated)


def similarities(
    a: NDArray[np.floating], b: NDArray[np.floating], function: Similarity
) -> NDArray[np.float64]:
    """Of each vector (A, D) to each other (B, D): (A, B); the greater, the more alike."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    if function == "cosine":
        return np.asarray(_unit(left) @ _unit(right).T)
    if function == "dot":
        return left @ right.T
    norm = 2 if function == "euclidean" else 1
    rows = [-np.linalg.norm(right - vector, ord=norm, axis=-1) for vector in left]
    return np.stack(rows) if rows else np.zeros((0, len(right)))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    settings: Settings = spec.settings
    return settings


def metrics(examples: Sequence[Example], results: Sequence[Any]) -> dict[str, float]:
    """By the form of the data: correlations, average precision, triplet accuracy, or figures of retrieval."""
    form = examples[0].form
    if form == "score":
        gold = [float(e.gold or 0) for e in examples]
        said = [r.similarities[0] for r in results]
        return {"pearson": figures.pearson(gold, said), "spearman": figures.spearman(gold, said)}
    if form == "triplet":
        right = [r.similarities[0] > r.similarities[1] for r in results]
        return {"triplet_accuracy": float(np.mean(right))}
    if form == "label":
        return {"average_precision": _average_precision(examples, results)}
    if form == "pair":
        queries = np.array([r.embeddings[0] for r in results])
        documents = {e.texts[1]: r.embeddings[1] for e, r in zip(examples, results, strict=True)}
        wanted = [{e.texts[1]: 1.0} for e in examples]
        return _retrieval(queries, documents, wanted)
    both = list(zip(examples, results, strict=True))
    documents = {str(e.id): r.embedding for e, r in both if e.form == "document"}
    asked = [(e, r) for e, r in both if e.form == "query"]
    return _retrieval(np.array([r.embedding for _, r in asked]), documents, [e.relevant for e, _ in asked])


def _retrieval(
    queries: NDArray[np.float64], documents: dict[str, list[float]], wanted: Sequence[dict[str, float]]
) -> dict[str, float]:
    ids = list(documents)
    similar = _unit(queries) @ _unit(np.array(list(documents.values()))).T  # (Q, documents)
    best = np.argsort(-similar, axis=-1, kind="stable")[:, :10]
    found = [[want.get(ids[d], 0.0) for d in row] for row, want in zip(best, wanted, strict=True)]
    return figures.mean([figures.ranking(f, list(w.values())) for f, w in zip(found, wanted, strict=True)])


def _average_precision(examples: Sequence[Example], results: Sequence[Any]) -> float:
    similar = np.array([r.similarities[0] for r in results])
    same = np.array([e.gold == "1" for e in examples])
    order = np.argsort(-similar, kind="stable")
    precision = np.cumsum(same[order]) / np.arange(1, len(same) + 1)
    last = np.searchsorted(-similar[order], -similar[same], side="right") - 1  # of what is equally similar
    return float(precision[last].mean()) if same.any() else 0.0


def certainty(examples: Sequence[Example], results: Sequence[Any]) -> None:
    return None


def tables(examples: Sequence[Example], results: Sequence[Any]) -> list[report.Table]:
    form = examples[0].form
    both = list(zip(examples, results, strict=True))
    if form == "score":
        gold = [float(e.gold or 0) for e in examples]
        spread = max(gold) - min(gold) or 1.0
        error = [(g - min(gold)) / spread - r.similarities[0] for g, r in zip(gold, results, strict=True)]
        order = np.argsort(-np.abs(error), kind="stable")[: report.WORST]
        rows = [
            [both[i][0].record.line, gold[i], both[i][1].similarities[0], *both[i][0].texts] for i in order
        ]
        return [report.worst(["line", "gold", "cosine", "text1", "text2"], rows)]
    if form == "triplet":
        wrong = [(r.similarities[0] - r.similarities[1], e) for e, r in both]
        wrong = sorted((w for w in wrong if w[0] <= 0), key=lambda w: w[0])
        triplets = ([e.record.line, margin, *e.texts] for margin, e in wrong)
        return [report.worst(["line", "margin", "anchor", "positive", "negative"], triplets)]
    return []
