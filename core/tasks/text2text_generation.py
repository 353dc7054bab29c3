"""text2text-generation: a text in, a text out, by an encoder-decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.core import generation, report
from headway.core.data import Record
from headway.core.generation import Result
from headway.core.tasks import Spec

PLAIN = {1: ("source",)}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    max_new_tokens: int | None = 64
    """tokens that are generated, at most; None: as the checkpoint's generation settings have it"""
    num_beams: int | None = 1
    """beams in evaluation; 1: the most probable next token each time; None: as the checkpoint's generation settings
    have it"""
    separate_targets: bool = False
    """targets have a tokenizer of their own, which the bundle does not have: they cannot be scored"""


@dataclass(frozen=True)
class Example:
    source: str
    references: tuple[str, ...] | None
    """right answers; training uses the first"""
    id: Any
    record: Record


def metric(settings: Settings) -> str:
    return "rougeL"


def read(record: Record, labelled: bool) -> Example:
    references = None
    if labelled and "target" in record.fields:
        references = (record.text("target"),)
    if labelled and (references is None or "references" in record.fields):
        others = record.texts("references")
        references = tuple(dict.fromkeys([*(references or ()), *others]))
    return Example(record.text("source"), references, record.fields.get("id"), record)


def check(example: Example, spec: Spec) -> None:
    """Any text can be generated."""


def decode(examples: Sequence[Example], outputs: Sequence[Result], spec: Spec) -> list[Result]:
    return list(outputs)


def calibrate(examples: Sequence[Example], outputs: Sequence[Result], spec: Spec) -> Settings:
    settings: Settings = spec.settings
    return settings


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    return generation.compare([r.text for r in results], [e.references or () for e in examples])


def certainty(examples: Sequence[Example], results: Sequence[Result]) -> None:
    return None


def tables(examples: Sequence[Example], results: Sequence[Result]) -> list[report.Table]:
    rows = [
        [
            e.record.line,
            generation.likeness(r.text, e.references or ()),
            e.source,
            (e.references or ("",))[0],
            r.text,
        ]
        for e, r in zip(examples, results, strict=True)
    ]
    rows.sort(key=lambda row: float(str(row[1])))
    return [report.worst(["line", "chrf", "source", "reference", "generated"], rows)]
