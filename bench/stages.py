"""Where the time of a call goes, and how much of what the engine reads is padding, seen from outside a pipeline."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Self

from headway.runtime import pipeline
from headway.runtime.pipeline import EncoderPipeline

TOKENIZE, PLAN, RUN, DECODE = STAGES = ("tokenize", "plan", "run", "decode")
MODULE: Any = pipeline


class Watched:
    """An encoder's pipeline whose stages tell their time. What is in none of them is counted as "decode"."""

    def __init__(self, pipe: EncoderPipeline) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.tokens = self.padded = 0
        self._pipe, self._backend = pipe, pipe._backend
        self._task = pipe._encoder_task

    def __enter__(self) -> Self:
        own = {name: getattr(self._task, name) for name in dir(self._task) if not name.startswith("__")}
        task: Any = SimpleNamespace(**own | {"rows": self._timed(TOKENIZE, self._task.rows)})
        run = self._timed(RUN, self._counted(self._backend.run))
        backend: Any = SimpleNamespace(run=run, pads=self._backend.pads)
        self._pipe._encoder_task, self._pipe._backend = task, backend
        self._plan, MODULE.plan = MODULE.plan, self._timed(PLAN, MODULE.plan)
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe._encoder_task, self._pipe._backend = self._task, self._backend
        MODULE.plan = self._plan

    def call(self, given: Any) -> Any:
        """As the pipeline."""
        begin, before = time.perf_counter(), self._spent()
        result = self._pipe(given)
        self.seconds[DECODE] += time.perf_counter() - begin - (self._spent() - before)
        return result

    def _spent(self) -> float:
        return sum(self.seconds.values())

    @property
    def waste(self) -> float | None:
        """Share of padding in what the engine was given."""
        return 1 - self.tokens / self.padded if self.padded else None

    def _timed(self, stage: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return step(*given, **named)
            finally:
                self.seconds[stage] += time.perf_counter() - begin

        return timed

    def _counted(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(batches: Sequence[Any]) -> Any:
            for batch in batches:
                self.tokens += int(batch.lengths.sum())
                longest = int(batch.lengths.max())
                self.padded += len(batch) * longest if self._backend.pads else len(batch.ids)
            return run(batches)

        return counted
