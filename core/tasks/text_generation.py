"""text-generation: a beginning in, its continuation out, by a decoder alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.core import report
from headway.core.data import Record
from headway.core.errors import DataError
from headway.core.tasks import Row, Spec

GOLD = {"continuation": "target", "text": "text"}
"""what each thing that can be learned of a record is told by"""

PLAIN = {1: ("source",)}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    max_new_tokens: int | None = 64
    """tokens that are generated, at most; None: as the checkpoint's generation settings have it"""
    special_tokens: bool = False
    """prompts get the tokenizer's special tokens, as a model expects that learned with them"""


@dataclass(frozen=True)
class Example:
    source: str
    """what is given; empty for a plain text"""
    target: str
    """what is learned and judged: the whole text, or the continuation of the source"""
    id: Any
    record: Record


@dataclass(frozen=True)
class Result:
    """How probable the model finds a text."""

    loss: float
    """sum of the negative log probabilities (natural logarithm) of the judged tokens"""
    tokens: int
    """how many were judged; the first of each block is not"""
    words: int
    """of the text, as white space parts them"""
    truncated: bool = False


def metric(settings: Settings) -> str:
    return "perplexity"


def read(record: Record, labelled: bool, gold: str | None = None) -> Example:
    """`gold`: what is learned and judged of a record that has both; the continuation, where it does not have that."""
    if "source" in record.fields and not (labelled and gold == "text" and gold in gold_kinds(record)):
        target = record.text("target") if labelled else ""
        return Example(record.text("source"), target, record.fields.get("id"), record)
    return Example("", record.text("text"), record.fields.get("id"), record)


def gold_kinds(record: Record) -> tuple[str, ...]:
    """What of a record can be learned, the one that is read by default first."""
    continuation = ("continuation",) if {"source", "target"} <= record.fields.keys() else ()
    return (*continuation, "text") if "text" in record.fields else continuation


def is_readable(record: Record, kind: str) -> bool:
    """Whether a record can be learned from as this."""
    try:
        read(record, True, kind)
    except DataError:
        return False
    return kind in gold_kinds(record)


def uniform(examples: Sequence[Example]) -> None:
    """Raise DataError at the first example that is of another form than the first one."""
    for example in examples:
        field = "source" if examples[0].source else "text"
        if field not in example.record.fields or bool(example.source) != bool(examples[0].source):
            raise example.record.error("missing; the other records have it", field)


def check(example: Example, spec: Spec) -> None:
    """Any text can be judged."""


def rows(
    examples: Sequence[Example], tokenizer: Any, spec: Spec, end: int | None
) -> tuple[list[Row], list[bool]]:
    """Blocks that do not overlap; of a continuation one row, which loses the source's beginning if it is too long.

    `marks` is how many tokens at the end of the row are judged; `end` closes every text. Also, of each example,
    whether something was cut.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    closed = [] if end is None else [end]
    found, cut = [], []
    for i, example in enumerate(examples):
        source = tokenizer.encode(example.source, add_special_tokens=False).ids if example.source else []
        target = [*tokenizer.encode(example.target, add_special_tokens=False).ids, *closed]
        if source:
            kept = target[: spec.max_length - 1]
            ids = (source + kept)[-spec.max_length :]
            cut.append(len(ids) < len(source) + len(target))
            found.append(Row(i, ids, [], len(kept)))
        else:
            cut.append(False)
            blocks = [target[b : b + spec.max_length] for b in range(0, len(target), spec.max_length)]
            found += [Row(i, block, [], len(block)) for block in blocks if len(block) > 1]
    return found, cut


def results(
    examples: Sequence[Example], rows: Sequence[Row], losses: Sequence[float], cut: Sequence[bool]
) -> list[Result]:
    """Results from the loss of each row (over its judged tokens; the first of a block has none)."""
    loss, tokens = [0.0] * len(examples), [0] * len(examples)
    for row, own in zip(rows, losses, strict=True):
        loss[row.example] += own
        tokens[row.example] += min(row.marks, len(row.ids) - 1)
    return [
        Result(loss[i], tokens[i], len(example.target.split()), cut[i]) for i, example in enumerate(examples)
    ]


def decode(examples: Sequence[Example], outputs: Sequence[Result], spec: Spec) -> list[Result]:
    return list(outputs)


def calibrate(examples: Sequence[Example], outputs: Sequence[Result], spec: Spec) -> Settings:
    settings: Settings = spec.settings
    return settings


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    """exp of the mean loss per token, and per word (which does not depend on the tokenizer)."""
    loss = sum(r.loss for r in results)
    return {
        "perplexity": _exp(loss / max(1, sum(r.tokens for r in results))),
        "word_perplexity": _exp(loss / max(1, sum(r.words for r in results))),
    }


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def certainty(examples: Sequence[Example], results: Sequence[Result]) -> None:
    return None


def tables(examples: Sequence[Example], results: Sequence[Result]) -> list[report.Table]:
    rows = [
        [e.record.line, _exp(r.loss / max(1, r.tokens)), r.tokens, (e.source + e.target)[:200]]
        for e, r in zip(examples, results, strict=True)
    ]
    rows.sort(key=lambda row: -float(str(row[1])))
    return [report.worst(["line", "perplexity", "tokens", "text"], rows)]
