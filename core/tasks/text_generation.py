"""text-generation: a beginning in, its continuation out, by a decoder alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.core import report
from headway.core.data import Record
from headway.core.tasks import Spec

PLAIN = {1: ("source",)}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    max_new_tokens: int = 64
    """tokens that are generated, at most"""


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


def read(record: Record, labelled: bool) -> Example:
    if "source" in record.fields:
        target = record.text("target") if labelled else ""
        return Example(record.text("source"), target, record.fields.get("id"), record)
    return Example("", record.text("text"), record.fields.get("id"), record)


def uniform(examples: Sequence[Example]) -> None:
    """Raise DataError at the first example that is of another form than the first one."""
    for example in examples:
        field = "source" if examples[0].source else "text"
        if field not in example.record.fields or bool(example.source) != bool(examples[0].source):
            raise example.record.error("missing; the other records have it", field)


def check(example: Example, spec: Spec) -> None:
    """Any text can be judged."""


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
