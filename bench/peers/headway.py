"""headway itself: a bundle through the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from headway.bench.peers.base import Setting
from headway.core.manifest import Bundle
from headway.core.tasks.text_classification import Result
from headway.runtime import Pipeline, load

NEEDS_CHECKPOINT = False


def precisions(model: Path) -> list[str]:
    return list(Bundle.read(model).variants)


def open_subject(model: Path, precision: str, threads: int, max_length: int) -> Headway:
    return Headway(load(model, precision=precision, threads=threads))


class Headway:
    SETTINGS: Sequence[Setting] = ({},)

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe

    def one(self, text: str) -> str:
        return cast(Result, self._pipe(text)).label

    def many(self, texts: Sequence[str], **setting: Any) -> list[str]:
        return [cast(Result, r).label for r in self._pipe(texts)]
