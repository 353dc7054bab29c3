"""token-classification: words in; a tag for each, and the entities that the tags make, out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, report, windows
from headway.core.data import Record
from headway.core.figures import f1_macro, f1_micro, precision_recall
from headway.core.tasks import Output, Row, Spec, encode

WORD = re.compile(r"\w+|[^\w\s]")
"""what is a word of a text that comes without tokens"""

PLAIN = {1: ("text",)}
GRAPH = {"logits": ("batch", "length", "classes"), "probabilities": ("batch", "length", "classes")}
READ = ("logits",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scheme: Literal["bio", "bioes", "plain"] = "bio"
    """how tags mark entities; plain: each word has a tag of its own"""
    stride: int = 32
    """tokens that neighbouring windows of a long text share"""
    fallback: str = "O"
    """tag of a word that the tokenizer makes nothing of"""
    temperature: float = 1.0
    """divides the logits"""


@dataclass(frozen=True)
class Example:
    text: str
    words: tuple[tuple[int, int], ...]
    """begin and end of each word, in characters"""
    has_tokens: bool
    """the words are the record's own"""
    tags: tuple[str, ...] | None
    id: Any
    record: Record


@dataclass(frozen=True)
class Entity:
    start: int
    """in characters"""
    end: int
    text: str
    label: str
    score: float
    """mean probability of its words' tags"""


@dataclass(frozen=True)
class Result:
    entities: list[Entity]
    tags: list[str] | None = None
    """one a word, when the input has tokens"""
    scores: list[float] | None = None
    """their probabilities"""
    truncated: bool = False
    """always False: long texts are read in windows"""


def metric(settings: Settings) -> str:
    return "token_accuracy" if settings.scheme == "plain" else "entity_f1"


def read(record: Record, labelled: bool) -> Example:
    if labelled or "tokens" in record.fields:
        tokens = record.texts("tokens")
        text = " ".join(tokens)  # tokens may hold spaces: their places are counted, not searched for
        ends = np.cumsum([len(t) + 1 for t in tokens]) - 1
        words = tuple((int(end) - len(t), int(end)) for t, end in zip(tokens, ends, strict=True))
    else:
        text = record.text("text")
        words = tuple(m.span() for m in WORD.finditer(text))
    tags = record.texts("tags") if labelled else None
    if tags is not None and len(tags) != len(words):
        raise record.error(f"has {len(tags)} tags for {len(words)} tokens", "tags")
    return Example(text, words, "tokens" in record.fields, tags, record.fields.get("id"), record)


def scheme_of(tags: Sequence[str]) -> Literal["bio", "bioes", "plain"]:
    """The scheme that a set of tags is written in."""
    if not all(tag == "O" or re.match(r"[BIES]-.", tag) for tag in tags):
        return "plain"
    return "bioes" if any(tag[:2] in ("E-", "S-") for tag in tags) else "bio"


def check(example: Example, spec: Spec) -> None:
    check_scheme(example, spec.settings.scheme)
    for place, tag in enumerate(example.tags or ()):
        if tag not in spec.labels:
            raise example.record.error(
                f"entry {place} is the unknown tag '{tag}'; known: {', '.join(spec.labels)}", "tags"
            )


def check_scheme(example: Example, scheme: str) -> None:
    """Raise DataError for an I- or E- that continues nothing."""
    before = "O"
    for place, tag in enumerate(example.tags or ()):
        inside = scheme != "plain" and tag[:2] in ("I-", "E-")
        if inside and (before[:2] not in ("B-", "I-") or before[2:] != tag[2:]):
            raise example.record.error(
                f"entry {place} is {tag} after {before}, not inside a {tag[2:]}", "tags"
            )
        before = tag


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    """Windows of each text; `marks` are (word, place of its first token) in each."""
    stride = min(spec.settings.stride, spec.max_length // 4)
    found = []
    encodings = encode(tokenizer, [e.text for e in examples], spec.max_length, stride)
    for number, (example, encoding) in enumerate(zip(examples, encodings, strict=True)):
        begins = np.array([begin for begin, _ in example.words])
        first_seen: dict[int, int] = {}  # where each word's first token begins
        for window in (encoding, *encoding.overflowing):
            marks = []
            seen = -1
            for place, ((begin, end), special) in enumerate(
                zip(window.offsets, window.special_tokens_mask, strict=True)
            ):
                if special or begin == end:
                    continue
                while begin < end - 1 and example.text[begin].isspace():
                    begin += 1  # byte-level tokenizers count the space before a word in
                word = int(np.searchsorted(begins, begin, side="right")) - 1
                if word > seen and first_seen.setdefault(word, begin) == begin:
                    marks.append((word, place))
                seen = max(seen, word)
            found.append(Row(number, window.ids, window.type_ids, marks))
    return found


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> list[Result]:
    results = []
    merged = _merged(examples, outputs)
    for example, own in zip(examples, merged, strict=True):
        tags, scores = [spec.settings.fallback] * len(example.words), [0.0] * len(example.words)
        if own:
            chances = calibration.softmax(np.stack(list(own.values())) / spec.settings.temperature)
            for word, row in zip(own, chances, strict=True):
                tags[word], scores[word] = spec.labels[int(row.argmax())], float(row.max())
        entities = [
            _entity(example, label, begin, end, scores)
            for label, begin, end in spans(tags, spec.settings.scheme)
        ]
        results.append(Result(entities, tags, scores) if example.has_tokens else Result(entities))
    return results


def _merged(examples: Sequence[Example], outputs: Sequence[Output]) -> list[dict[int, NDArray[np.float32]]]:
    """For each example its words' logits, each from the window that saw most around the word."""
    parts: list[list[Output]] = [[] for _ in examples]
    for output in outputs:
        parts[output.row.example].append(output)
    merged = []
    for own in parts:
        owned = windows.owners([[w for w, _ in o.row.marks] for o in own])
        merged.append(
            {
                word: output.logits[place]
                for output, mine in zip(own, owned, strict=True)
                for word, place in output.row.marks
                if word in mine
            }
        )
    return merged


def _entity(example: Example, label: str, begin: int, end: int, scores: Sequence[float]) -> Entity:
    start, stop = example.words[begin][0], example.words[end - 1][1]
    return Entity(start, stop, example.text[start:stop], label, float(np.mean(scores[begin:end])))


def spans(tags: Sequence[str], scheme: str) -> list[tuple[str, int, int]]:
    """Entities (label, first word, word after the last), read as conlleval and seqeval do.

    An I- or E- that continues nothing begins an entity, as these two have it. Plain tags: each word is one.
    """
    if scheme == "plain":
        return [(tag, i, i + 1) for i, tag in enumerate(tags)]
    found: list[tuple[str, int, int]] = []
    before = "O"
    for i, tag in enumerate(tags):
        if tag != "O":
            continues = tag[0] in "IE" and before[0] in "BI" and before[2:] == tag[2:]
            label, begin, _ = found.pop() if continues else (tag[2:], i, i)
            found.append((label, begin, i + 1))
        before = tag
    return found


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    logits, gold = [], []
    for example, own in zip(examples, _merged(examples, outputs), strict=True):
        for word, row in own.items():
            logits.append(row)
            gold.append(spec.labels.index((example.tags or ())[word]))
    settings: Settings = spec.settings
    if not logits:
        return settings
    temperature = calibration.fit_temperature(np.stack(logits), np.array(gold))
    return msgspec.structs.replace(settings, temperature=temperature)


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    """Entity-F1, precision and recall of exact spans (as seqeval), or macro-F1 of plain tags; token accuracy."""
    pairs = [
        (g, s)
        for e, r in zip(examples, results, strict=True)
        for g, s in zip(e.tags or (), r.tags or (), strict=True)
    ]
    accuracy = {"token_accuracy": float(np.mean([g == s for g, s in pairs]))}
    if scheme_of([tag for pair in pairs for tag in pair]) == "plain":
        return accuracy | {"macro_f1": f1_macro([[g] for g, _ in pairs], [[s] for _, s in pairs])}
    gold, said = _entities(examples, results)
    precision, recall = precision_recall(gold, said)
    return {"entity_f1": f1_micro(gold, said), "precision": precision, "recall": recall} | accuracy


def certainty(
    examples: Sequence[Example], results: Sequence[Result]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    right = [
        g == s
        for e, r in zip(examples, results, strict=True)
        for g, s in zip(e.tags or (), r.tags or (), strict=True)
    ]
    return np.array([score for r in results for score in r.scores or ()]), np.array(right)


def tables(examples: Sequence[Example], results: Sequence[Result]) -> list[report.Table]:
    gold = [tag for e in examples for tag in e.tags or ()]
    said = [tag for r in results for tag in r.tags or ()]
    if scheme_of([*gold, *said]) == "plain":
        shown = [report.per_label([[g] for g in gold], [[s] for s in said])]
    else:
        shown = [_per_entity(*_entities(examples, results))]
    wrong: list[list[Any]] = [
        [e.record.line, w, e.text[slice(*e.words[w])], (e.tags or ())[w], f"{tag} ({score:.3f})", score]
        for e, r in zip(examples, results, strict=True)
        for w, (tag, score) in enumerate(zip(r.tags or (), r.scores or (), strict=True))
        if tag != (e.tags or ())[w]
    ]
    wrong.sort(key=lambda row: -row[-1])
    return [
        *shown,
        report.confusion(gold, said),
        report.worst(["line", "word", "text", "gold", "predicted"], (row[:-1] for row in wrong)),
    ]


def _entities(examples: Sequence[Example], results: Sequence[Result]) -> tuple[list[Any], list[Any]]:
    return (
        [spans(e.tags or (), "bio") for e in examples],
        [spans(r.tags or (), "bio") for r in results],
    )


def _per_entity(gold: Sequence[Any], said: Sequence[Any]) -> report.Table:
    """As `report.per_label`, by the type of entity; an entity is right if type and span are."""
    types = sorted({label for found in (*gold, *said) for label, _, _ in found})
    rows = []
    for t in types:
        g, s = ([[x for x in found if x[0] == t] for found in side] for side in (gold, said))
        precision, recall = precision_recall(g, s)
        rows.append([t, precision, recall, f1_micro(g, s), sum(map(len, g)), sum(map(len, s))])
    return report.Table("Per label", ["label", "precision", "recall", "f1", "gold", "predicted"], rows)
