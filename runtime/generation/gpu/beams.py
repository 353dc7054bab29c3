"""A whole search on a GPU: each step is one launch, from the caches that rows take over to the next tokens.

The host asks whether all sources have ended only now and then, and of a step that is long done, so that the GPU never
waits. Steps after the end change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from headway.core.errors import UnavailableError
from headway.core.search import Search
from headway.runtime.cuda import Event, Graph
from headway.runtime.generation.base import Found, Tokens
from headway.runtime.generation.gpu.reading import Model, Reading
from headway.runtime.generation.gpu.steps import Steps

INTERVAL = 8
"""steps between two questions whether all has ended"""
MOST = 256
"""candidates of a source, at most (`headway.cpp_ext.cuda.Beams`)"""


def suited(settings: Search) -> bool:
    """Whether the GPU can choose the tokens; else the processor does."""
    candidates = settings.num_beams * max(2, 1 + len(settings.eos_token_id))
    return (
        not settings.do_sample
        and settings.num_beam_groups == 1
        and not settings.force_words_ids
        and not settings.stop_strings
        and settings.form is None
        and settings.max_time is None
        and (settings.num_beams == 1 or candidates <= MOST)
    )


def key(settings: Search) -> bytes:
    """The same for settings that differ in lengths alone, which are told of each source."""
    lengths = {"max_new_tokens": None, "max_length": None, "min_new_tokens": None, "min_length": 0}
    return msgspec.json.encode(msgspec.structs.replace(settings, **lengths))


class Work:
    """Work that is given as it is at first, and captured and launched from the second time on."""

    def __init__(self, model: Model, give: Callable[[], None]) -> None:
        self._place, self._give = model.place, give
        self._runs, self._captures = 0, True
        self._graph: Graph | None = None

    def start(self) -> None:
        """Give it to the stream, which nobody else may use meanwhile."""
        stream = self._place.stream
        if self._graph is None and self._captures and self._runs > 0:
            try:
                self._graph = stream.capture(self._give)
            except UnavailableError:
                self._captures = False
        if self._graph is None:
            self._give()
        else:
            stream.launch(self._graph)
        self._runs += 1


class BeamSearch:
    """Searches over so many sources, of one size and with the same settings. For one thread."""

    def __init__(self, model: Model, settings: Search, batch: int, length: int, step: int, room: int) -> None:
        """
        Args:
            batch: sources; those that are not there end at once.
            length: tokens of a source, for the encoder.
            step: tokens of a prompt.
            room: columns of the caches.
        Raises:
            UnavailableError: the GPU has no room.
        """
        self.model, self.batch = model, batch
        place, (prompt, longest) = model.place, NOBODY
        place.device.use()
        self._reading = Reading(model, batch, length, step, kept=1)
        prompts, most, least = [list(prompt)] * batch, [longest] * batch, [0] * batch
        spare = room + 1, max(length, step)
        try:
            self._beams = place.cuda.Beams(
                model.vocabulary, prompts, settings, most, least, [[]] * batch, spare
            )
        except RuntimeError as error:  # what CUDA says
            name = f"the memory of a search over {batch} sources ({error})"
            raise UnavailableError(name, "end what else uses the GPU, or use smaller batches") from error
        rows = batch * settings.num_beams
        tokens, self._parents, self._told = self._beams.addresses
        self.steps = Steps(self._reading, rows, room, tokens)
        self._flags = [place.device.pinned(batch + 1, np.int32) for _ in range(2)]
        self.work = Work(model, self._give_begin), Work(model, self._give_next)
        """to begin, and of each step after that"""
        self.nbytes = self._reading.memory.nbytes + self.steps.memory.nbytes

    def _give_begin(self) -> None:
        self._reading.give()
        self.steps.upload()
        self._choose(self._reading.memory.at["logits"], first=True)
        self.steps.spread(self._parents)

    def _give_next(self) -> None:
        self.steps.give()
        self.steps.advance()
        self._choose(self.steps.memory.at["logits"], first=False)
        self.steps.follow(self._parents)

    def _choose(self, logits: int, first: bool) -> None:
        kind = self.model.decoder.kinds["logits"]
        self._beams.record(logits, kind, first, self.model.place.stream.pointer)

    def run(
        self, sources: Sequence[Tokens], begun: Sequence[tuple[Tokens, int]], settings: Search
    ) -> list[list[Found]]:
        """The hypotheses of each source, best first.

        `begun`: what the decoder begins each source with, and how many tokens it may come to.
        """
        place = self.model.place
        every = [*begun, *[NOBODY] * (self.batch - len(begun))]
        with place.lock:
            place.device.use()
            self._beams.begin(
                [list(prompt) for prompt, _ in every],
                [longest for _, longest in every],
                [*(settings.shortest(len(prompt)) for prompt, _ in begun), *[0] * (self.batch - len(begun))],
                [*map(list, sources), *[[]] * (self.batch - len(sources))],
                place.stream.pointer,
            )
            padding = self._reading.fill(sources, [prompt for prompt, _ in begun], left=True)
            self.steps.begin(self._reading.step, padding.repeat(settings.num_beams))
            self.work[0].start()
        self._write(max(longest - len(prompt) for prompt, longest in begun) - 1)
        with place.lock:
            place.device.use()
            return list(self._beams.found_all(place.stream.pointer)[: len(sources)])

    def _write(self, steps: int) -> None:
        """Give steps, at most so many, until all sources have ended."""
        place, asked = self.model.place, list[Event]()
        for turn, first in enumerate(range(0, steps, INTERVAL)):
            if turn > 1:  # the flags of the interval before the last are there, while the last is at work
                asked[turn - 2].synchronize()
                if self._ended(turn - 2):
                    return
            with place.lock:
                place.device.use()
                for _ in range(first, min(first + INTERVAL, steps)):
                    self.work[1].start()
                place.stream.download(self._told, self._flags[turn % 2])
                asked.append(place.stream.record())

    def _ended(self, turn: int) -> bool:
        flags = self._flags[turn % 2]
        return bool(flags[:-1].all()) or int(flags[-1]) != self.model.place.cuda.no_wrong_row


NOBODY: tuple[Tokens, int] = ((0,), 2)
"""prompt and longest of a source that is not there: it ends with its first token"""
