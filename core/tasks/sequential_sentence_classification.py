"""sequential-sentence-classification: the sentences of a document in, one label for each out, read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, report, windows
from headway.core.data import Record
from headway.core.figures import f1_macro
from headway.core.tasks import Output, Row, Spec, encode

PLAIN: dict[int, tuple[str, ...]] = {}
GRAPH = {"logits": ("batch", "length", "classes")}
READ = ("logits",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    separator: str = "[SEP]"
    """token after each sentence"""
    pooling: Literal["separator", "mean"] = "separator"
    """what is classified: the vector of the separator after a sentence (Cohan et al. 2019), or the mean of its tokens'"""
    opening: str | None = "[CLS]"
    """token before the first sentence"""
    overlap: float = 0.25
    """share of a window that its neighbour sees, too, at most"""
    temperature: float = 1.0
    """divides the logits"""


@dataclass(frozen=True)
class Example:
    sentences: tuple[str, ...]
    labels: tuple[str, ...] | None
    id: Any
    record: Record


@dataclass(frozen=True)
class Result:
    labels: list[str]
    """one a sentence"""
    scores: list[float]
    """their probabilities"""
    truncated: bool = False
    """True if a sentence alone was longer than the model and its end was cut off"""


def metric(settings: Settings) -> str:
    return "macro_f1"


def read(record: Record, labelled: bool) -> Example:
    sentences = record.texts("sentences")
    labels = record.labels("labels") if labelled else None
    if labels is not None and len(labels) != len(sentences):
        raise record.error(f"has {len(labels)} labels for {len(sentences)} sentences", "labels")
    return Example(sentences, labels, record.fields.get("id"), record)


def check(example: Example, spec: Spec) -> None:
    for place, label in enumerate(example.labels or ()):
        if label not in spec.labels:
            raise example.record.error(
                f"entry {place} is the unknown label '{label}'; known: {', '.join(spec.labels)}", "labels"
            )


def tokens(settings: Settings) -> dict[str, str | None]:
    """Settings that name a token of the tokenizer."""
    return {"separator": settings.separator, "opening": settings.opening}


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    """Windows of whole sentences; `marks` are (sentence, its first token, its separator) in each."""
    settings: Settings = spec.settings
    separator = tokenizer.token_to_id(settings.separator)
    opening = [] if settings.opening is None else [tokenizer.token_to_id(settings.opening)]
    room = spec.max_length - len(opening)
    found = []
    sentences = [s for e in examples for s in e.sentences]
    every = encode(tokenizer, sentences, room, offsets=False, special=False)
    ends = np.cumsum([0, *(len(e.sentences) for e in examples)])
    for number, (first, last) in enumerate(pairwise(ends.tolist())):
        ids = [encoding.ids for encoding in every[first:last]]
        pieces = [[*sentence[: room - 1], separator] for sentence in ids]
        too_long = [len(sentence) >= room for sentence in ids]
        for begin, end in windows.cut([len(p) for p in pieces], room, settings.overlap):
            window = opening + [token for piece in pieces[begin:end] for token in piece]
            places = (len(opening) + np.cumsum([0, *(len(p) for p in pieces[begin:end])])).tolist()
            marks = [(begin + i, first, after - 1) for i, (first, after) in enumerate(pairwise(places))]
            found.append(Row(number, window, [0] * len(window), marks, any(too_long[begin:end])))
    return found


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> list[Result]:
    results = []
    for _, logits, cut in _merged(examples, outputs, spec):
        chances = calibration.softmax(logits / spec.settings.temperature)  # (S, C)
        best = chances.argmax(-1)
        results.append(Result([spec.labels[c] for c in best], chances.max(-1).tolist(), cut))
    return results


def _merged(
    examples: Sequence[Example], outputs: Sequence[Output], spec: Spec
) -> list[tuple[Example, NDArray[np.float32], bool]]:
    """Each document with its sentences' logits (S, C), each from the window that saw most around it."""
    parts: list[list[Output]] = [[] for _ in examples]
    for output in outputs:
        parts[output.row.example].append(output)
    merged = []
    for example, own in zip(examples, parts, strict=True):
        logits = np.empty((len(example.sentences), own[0].logits.shape[-1]), np.float32)
        owned = windows.owners([[s for s, _, _ in o.row.marks] for o in own])
        for output, mine in zip(own, owned, strict=True):
            for sentence, first, last in output.row.marks:
                if sentence in mine:
                    begin = first if spec.settings.pooling == "mean" else last
                    logits[sentence] = output.logits[begin : last + 1].mean(0)  # the head is linear
        merged.append((example, logits, any(o.row.truncated for o in own)))
    return merged


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    logits = np.concatenate([part for _, part, _ in _merged(examples, outputs, spec)])
    gold = np.array([spec.labels.index(label) for e in examples for label in e.labels or ()])
    settings: Settings = msgspec.structs.replace(
        spec.settings, temperature=calibration.fit_temperature(logits, gold)
    )
    return settings


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    """Accuracy and macro-F1 over all sentences of all documents."""
    gold, said = _flat(examples, results)
    right = np.mean([g == s for g, s in zip(gold, said, strict=True)])
    return {"accuracy": float(right), "macro_f1": f1_macro([[g] for g in gold], [[s] for s in said])}


def certainty(
    examples: Sequence[Example], results: Sequence[Result]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    gold, said = _flat(examples, results)
    scores = [score for r in results for score in r.scores]
    return np.array(scores), np.array([g == s for g, s in zip(gold, said, strict=True)])


def tables(examples: Sequence[Example], results: Sequence[Result]) -> list[report.Table]:
    gold, said = _flat(examples, results)
    wrong = [
        [e.record.line, place, e.labels[place], f"{label} ({score:.3f})", e.sentences[place]]
        for e, r in zip(examples, results, strict=True)
        for place, (label, score) in enumerate(zip(r.labels, r.scores, strict=True))
        if e.labels is not None and label != e.labels[place]
    ]
    wrong.sort(key=lambda row: -float(str(row[3])[-6:-1]))
    return [
        report.per_label([[g] for g in gold], [[s] for s in said]),
        report.confusion(gold, said),
        report.worst(["line", "sentence", "gold", "predicted", "text"], wrong),
    ]


def _flat(examples: Sequence[Example], results: Sequence[Result]) -> tuple[list[str], list[str]]:
    gold = [label for e in examples for label in e.labels or ()]
    return gold, [label for r in results for label in r.labels]
