"""Passages for the tests of retrieval, and vectors of them without a model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.core.data import Record
from headway.runtime.retrieval.store import Origin, Vectors

WIDTH = 16
"""numbers in a vector of `Random`"""
Rows = list[dict[str, Any]]


class Random:
    """A vector that depends on the text's bytes alone."""

    def __init__(self, seal: str = "a" * 64, width: int = WIDTH) -> None:
        self.origin, self._width = Origin("random", seal, "fp32"), width

    def passages(self, records: Sequence[Record]) -> Vectors:
        return self.queries([r.text("text") for r in records])

    def queries(self, texts: Sequence[str]) -> Vectors:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.array([np.random.default_rng(s).standard_normal(self._width) for s in seeds], np.float32)


def passages(count: int, letter: str = "p") -> Rows:
    return [{"id": f"{letter}{i}", "text": f"{letter}\n“{i}”"} for i in range(count)]


def corpus(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
