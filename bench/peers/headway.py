"""headway itself: a bundle through the runtime."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.peers.base import Setting, Wanted
from headway.core.manifest import Bundle
from headway.runtime import load

TASKS = ("text-classification", "sentence-embedding")
NEEDS_CHECKPOINT = False


def precisions(model: Path) -> list[str]:
    return list(Bundle.read(model).variants)


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    """Opened once: the choice of its engine is measured then, and remembered."""
    load(model, precision=precision, threads=wanted.threads)
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Headway:
    pipe = load(model, precision=precision, threads=wanted.threads)
    pipe.spec = dataclasses.replace(pipe.spec, max_length=wanted.max_length)
    return Headway(pipe)


class Headway:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.SETTINGS: Sequence[Setting] = ({"engine": pipe.engine},)  # chosen at load
        self._embeds = pipe.manifest.task == "sentence-embedding"

    def one(self, text: str) -> Any:
        return self._pipe(text)

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        results = self._pipe(texts)
        if self._embeds:
            return np.array([r.embedding for r in results], np.float32)
        return [r.label for r in results]
