"""Models that write on a GPU, by any engine that runs their graphs there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from headway.core.search import Search
from headway.runtime.fork_safety import ForkSafeLock, PerProcess
from headway.runtime.generation.base import Floats, Found, Tokens
from headway.runtime.generation.gpu.beams import BeamSearch, key, suited
from headway.runtime.generation.gpu.device import rounded
from headway.runtime.generation.gpu.reading import Model, Reading
from headway.runtime.generation.gpu.stepwise import Stepwise

SHORTEST = 16
"""tokens of the shortest shape"""
LOGITS = 1 << 24
"""numbers in the logits that are downloaded at once, at most (one text may have more)"""
MANY = 1 << 20
"""rows, where an engine has no limit"""
KEPT = 2 << 30
"""bytes of the GPU's memory for searches that are kept ready, those last used, at most (one may need more)"""


class GpuEngine:
    """The opened graphs of one variant of a model. Several threads may use it; their work takes turns."""

    threads, joinable = 1, False

    def __init__(self, model: Model) -> None:
        self._model = model
        self.longest, self.vocabulary = model.longest, model.vocabulary
        self.with_encoder = model.encoder is not None
        self._idle: OrderedDict[object, list[BeamSearch]] = OrderedDict()
        self._lock = ForkSafeLock()
        self._workers = PerProcess(partial(ThreadPoolExecutor, 1, thread_name_prefix="headway-write"))

    @property
    def on_one_thread(self) -> GpuEngine:
        """The same: the GPU needs no thread of its own for a part of a batch."""
        return self

    @property
    def workers(self) -> ThreadPoolExecutor:
        return self._workers()

    def begin(self, sources: Sequence[Tokens], start: int) -> tuple[Stepwise, Floats]:
        """Read sources, as the encoder's input or as the decoder's prompts: logits (B, V) of their first tokens."""
        texts = [[start]] * len(sources) if self.with_encoder else sources
        length, step = self._sizes(sources, texts)
        reading = Reading(self._model, rounded(len(sources), 1), length, step, kept=1)
        padding = reading.fill(sources, texts, left=True)
        logits = reading.logits()[: len(sources), 0]
        return Stepwise(reading, padding, len(sources)), logits

    def search(
        self, sources: Sequence[Tokens], settings: Search, begun: Sequence[tuple[Tokens, int]]
    ) -> list[list[Found]] | None:
        """A whole search on the GPU; none for settings with which the processor must choose the tokens."""
        if not suited(settings):
            return None
        most = min(
            self._model.sources or len(sources), max(1, (self._model.rows or MANY) // settings.num_beams)
        )
        parts = [slice(first, first + most) for first in range(0, len(sources), most)]
        return [found for part in parts for found in self._search(sources[part], settings, begun[part])]

    def _search(
        self, sources: Sequence[Tokens], settings: Search, begun: Sequence[tuple[Tokens, int]]
    ) -> list[list[Found]]:
        length, step = self._sizes(sources, [prompt for prompt, _ in begun])
        new = max(longest - len(prompt) for prompt, longest in begun)
        shape = (rounded(len(sources), 1), length, step, rounded(step + new - 1, SHORTEST))
        kind = (key(settings), *shape)
        held = self._taken(kind) or BeamSearch(self._model, settings, *shape)
        found = held.run(sources, begun, settings)
        self._keep(kind, held)
        return found

    def before(self, sources: Sequence[Tokens], targets: Sequence[Tokens], start: int) -> Iterator[Floats]:
        """Logits (B, T, V) before the tokens of targets, given their sources."""
        begun = [[start]] * len(sources) if self.with_encoder else sources
        texts = [[*first, *target[:-1]] for first, target in zip(begun, targets, strict=True)]
        found = np.zeros((len(texts), max(map(len, targets)), self.vocabulary), np.float32)
        for i, logits in enumerate(self._read(sources, texts)):
            found[i, : len(targets[i])] = logits[len(begun[i]) - 1 :]
        yield found

    def logits(self, texts: Sequence[Tokens]) -> list[Floats]:
        """What a decoder alone expects after each token of each text: its logits (T, V)."""
        return [logits.copy() for logits in self._read(texts, texts)]

    def _read(self, sources: Sequence[Tokens], texts: Sequence[Tokens]) -> Iterator[Floats]:
        """Logits (T, V) after each token of what the decoder reads, of as many texts at once as there is room for."""
        length, step = self._sizes(sources, texts)
        most = self._model.judged or max(1, LOGITS // (step * self.vocabulary))
        reading = Reading(self._model, min(rounded(len(texts), 1), most), length, step, kept=step)
        for first in range(0, len(texts), reading.batch):
            part = slice(first, first + reading.batch)
            reading.fill(sources[part], texts[part], left=False)
            for logits, text in zip(reading.logits(), texts[part], strict=False):
                yield logits[: len(text)]

    def _sizes(self, sources: Sequence[Tokens], texts: Sequence[Tokens]) -> tuple[int, int]:
        """Tokens of a source for the encoder, and of what the decoder reads."""
        longest = max(map(len, texts))
        step = 1 if longest == 1 else rounded(longest, SHORTEST)
        return rounded(max(map(len, sources)), SHORTEST) if self.with_encoder else 1, step

    def _taken(self, kind: object) -> BeamSearch | None:
        with self._lock:
            held = self._idle.get(kind)
            return held.pop() if held else None

    def _keep(self, kind: object, search: BeamSearch) -> None:
        with self._lock:
            self._idle.setdefault(kind, []).append(search)
            self._idle.move_to_end(kind)
            while (
                len(self._idle) > 1 and sum(s.nbytes for every in self._idle.values() for s in every) > KEPT
            ):
                self._idle.popitem(last=False)
