"""headway itself: a bundle through the runtime."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.answers import plain
from headway.bench.peers.base import Setting, Wanted
from headway.bench.stages import STAGES, Watched
from headway.core import tasks
from headway.core.manifest import Bundle
from headway.runtime import load
from headway.runtime.pipeline import EncoderPipeline

TASKS = tuple(tasks.names())
NEEDS_CHECKPOINT = False


def precisions(model: Path) -> list[str]:
    return list(Bundle.read(model).variants)


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    """Opened once: the choice of its engine is measured then, and remembered."""
    load(model, precision=precision, threads=wanted.threads)
    return model


def bytes_on_disk(model: Path, precision: str) -> int:
    """Of what is read for this variant."""
    declared = Bundle.read(model)
    folders = {Path(name).parent.as_posix() for name in declared.variants[precision].graphs.values()}
    read = [n for n in declared.files if n == "tokenizer.json" or Path(n).parent.as_posix() in folders]
    return sum(declared.files[name].bytes for name in read)


def open_subject(model: Path, precision: str, wanted: Wanted) -> Headway:
    pipe = load(model, precision=precision, threads=wanted.threads)
    pipe.spec = dataclasses.replace(pipe.spec, max_length=wanted.max_length)
    return Headway(pipe)


class Headway:
    def __init__(self, pipe: Any) -> None:
        self._pipe, self._task = pipe, pipe.manifest.task
        self.SETTINGS: Sequence[Setting] = (
            {"engine": getattr(pipe, "engine", "onnxruntime")},
        )  # chosen at load

    def one(self, given: Any) -> Any:
        return self._pipe([given])[0]

    def many(self, inputs: Sequence[Any], **setting: Any) -> Any:
        results = self._pipe(inputs)
        if self._task == "sentence-embedding":
            return np.array([r.embedding for r in results], np.float32)
        return [plain(self._task, r) for r in results]

    def stages(
        self, one_by_one: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[dict[str, float], float | None]:
        """Mean milliseconds of each stage of one at a time, and the share of padding of all at once."""
        if not isinstance(self._pipe, EncoderPipeline):
            return {}, None
        with Watched(self._pipe) as watched:
            for given in one_by_one:
                watched.call([given])
            spent = {stage: 1e3 * watched.seconds[stage] / len(one_by_one) for stage in STAGES}
        with Watched(self._pipe) as watched:
            watched.call(inputs)
        return spent, watched.waste
