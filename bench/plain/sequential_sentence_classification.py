"""Plain sequential sentence classification: each sentence is classified alone. No options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headway.bench.plain import base, text_classification


def run(setting: base.Setting) -> dict[str, float]:
    """accuracy, macro_f1, of sentences."""
    return text_classification.run(replace(setting, train=_alone(setting.train), test=_alone(setting.test)))


def _alone(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"text": sentence, "label": label}
        for record in records
        for sentence, label in zip(record["sentences"], record["labels"], strict=True)
    ]
