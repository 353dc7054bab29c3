"""headway itself: its graphs, without the proof that export makes of them, through the runtime's search."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from headway.bench.writers.base import Found, Hypothesis, Ids, Wish, Write, told
from headway.bench.writers.generate import opened

PRECISIONS = ("fp32", "int8", "int8-weights")
EXACT = ("fp32",)
SETTINGS = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
"""of the checkpoint"""


def interpreter() -> str:
    return sys.executable


def prepared(checkpoint: Path, precision: str, folder: Path) -> None:
    from headway.export import cache, generation, store
    from headway.export.engine import base as engines
    from headway.export.precision import base as precisions

    read: Any = SimpleNamespace(folder=checkpoint, model=opened(checkpoint))
    for role, traced in generation.build(read).items():
        made = precisions.load(precision).convert(traced.model, [], [])
        made = engines.load("cpu").rewrite(made)
        if role == "decoder":
            made = cache.in_place(made, cache.declare(traced.declared), str(folder))
        store.write(made, folder / f"{role}.onnx")


def open_subject(checkpoint: Path, precision: str, folder: Path, threads: int) -> Searching:
    from headway.runtime.generation.engine import Engine

    engine = Engine({path.stem: path for path in sorted(folder.glob("*.onnx"))}, threads)
    return Searching(engine, {n: v for n, v in told(checkpoint).items() if n in SETTINGS and v is not None})


class Searching:
    def __init__(self, engine: Any, settings: dict[str, Any]) -> None:
        self._engine, self._settings = engine, settings
        self._clocks = {
            Clock(session): each.threads
            for each in (engine, engine.on_one_thread)
            for session in (each.decoder, each._encoder)
            if session is not None
        }

    def ways(self, wish: Wish, scored: bool) -> Mapping[str, Write]:
        from headway.core.search import Search
        from headway.runtime.generation.search import search

        asked = Search().changed(
            num_beams=wish.beams,
            num_return_sequences=wish.returned,
            min_new_tokens=wish.least,
            max_new_tokens=wish.new,
            **self._settings,
        )

        def write(sources: Ids) -> Found:
            found = search(self._engine, sources, asked, lambda tokens: "")
            return [[Hypothesis(h.tokens, h.score) for h in every] for every in found]

        return {"": write}

    def engine_seconds(self) -> float:
        """Of all threads: a session of one thread runs on each of them."""
        every = (clock.seconds * threads / self._engine.threads for clock, threads in self._clocks.items())
        return float(sum(every))


class Clock:
    """Measures a session's runs from outside."""

    def __init__(self, session: Any) -> None:
        self.seconds = 0.0
        for name in ("run", "run_with_iobinding"):
            setattr(session, name, self._timed(getattr(session, name)))

    def _timed(self, run: Any) -> Any:
        def timed(*given: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return run(*given, **options)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed
