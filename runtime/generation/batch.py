"""Sentences under way together: they enter at any step, and leave when they are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from headway.core.errors import InputError, UnavailableError, UsageError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.runtime.generation.base import Decoding, Floats, Writer
from headway.runtime.generation.choices import Choices
from headway.runtime.generation.lexicon import Lexicon


class Batch:
    """The engine's logits go through the search, its choices to the engine. For one thread.

    What becomes of a sentence does not depend on which others are under way.
    """

    def __init__(self, engine: Writer, lexicon: Lexicon | None = None) -> None:
        """`lexicon`: of the model's tokenizer, for settings that are about texts."""
        self._engine, self._choices = engine, Choices(engine.vocabulary, lexicon)
        self._decoding: Decoding | None = None
        self._entering: list[tuple[Decoding, Floats]] = []
        """with the logits of their first tokens"""
        self._under_way: dict[int, float] = {}
        """key -> when it must end, by the monotonic clock"""
        self._cancelled: set[int] = set()
        """keys that leave with the next step"""
        self._finished: set[int] = set()
        """keys that are not forgotten yet"""
        self._keys = 0
        """that were given out; the next sentence has this one"""

    def __len__(self) -> int:
        """Sentences that are not finished."""
        return len(self._under_way)

    def add(self, sources: Sequence[Sequence[int]], settings: Search) -> list[int]:
        """Read the sources of sentences that enter with the next step; returns their keys.

        Args:
            sources: tokens of each; an encoder-decoder's for its encoder.
        Raises:
            UsageError: a setting that does not fit the model, or cannot be met.
            UnavailableError: a form is asked for, and llguidance is not there; or others are under way, and this
                model's rows cannot join them.
            InputError: a source without tokens, or a prompt that leaves no room.
        """
        if not sources:
            return []
        if self._under_way and not self._engine.joinable:
            raise UnavailableError("a place beside other texts", "wait until those under way are finished")
        begin = time.monotonic()
        begun = prompts(self._engine, sources, settings)
        keys: list[int] = []
        try:
            for source, (prompt, longest) in zip(sources, begun, strict=True):
                keys.append(self._choices.add(prompt, settings, longest, source))
            self._entering.append(self._engine.begin(sources, settings.decoder_start_token_id or 0))
        except BaseException:  # those under way go on without them
            for key in keys:
                self._choices.drop(key)
            raise
        limit = float("inf") if settings.max_time is None else begin + settings.max_time
        self._under_way.update(dict.fromkeys(keys, limit))
        self._keys = keys[-1] + 1
        return keys

    def step(self) -> list[int]:
        """Choose the next token of every sentence under way; returns the keys of those that are finished by it."""
        every = []
        if self._decoding is not None:
            every.append(self._decoding.step(self._choices.tokens[:, None], self._choices.parents))
        for decoding, logits in self._entering:
            every.append(logits)
            if self._decoding is None:
                self._decoding = decoding
            else:
                self._decoding.join(decoding)
        self._entering = []
        if not every:
            return []
        self._choices.advance(every[0] if len(every) == 1 else np.concatenate(every))
        for key in self._cancelled:
            self._choices.drop(key)
        self._cancelled.clear()
        finished = [key for key in self._choices.finished if key in self._under_way]
        now = time.monotonic()
        late = [key for key, end in self._under_way.items() if end <= now and key not in finished]
        for key in late:
            self._choices.end(key)
        for key in (*finished, *late):
            del self._under_way[key]
            self._finished.add(key)
        if not len(self._choices.parents):
            self._decoding = None
        return [*finished, *late]

    def found(self, key: int, decode: Callable[[list[int]], str]) -> list[Hypothesis]:
        """Of a finished sentence, best first; those that lack the form come last. `decode`: makes their texts.

        Raises UsageError where there is no such sentence.
        """
        if not self.has_finished(key):
            raise UsageError("key", f"there is no finished text {key!r}")
        return self._choices.found(key, decode)

    def settled(self, key: int) -> list[int]:
        """Tokens after the prompt that the best hypothesis is sure to begin with. Raises UsageError as `found`."""
        if not self.has_finished(key) and not (type(key) is int and key in self._under_way):
            raise UsageError("key", f"there is no text {key!r}, or it was cancelled or forgotten")
        return self._choices.settled(key)

    def has_finished(self, key: int) -> bool:
        """Whether this is the key of a finished sentence that is not forgotten."""
        return type(key) is int and key in self._finished

    def drop(self, key: int) -> None:
        """Forget a sentence, finished or not. One under way leaves with the next step.

        Of no effect on a sentence that was dropped before. Raises UsageError for a key that no sentence had.
        """
        if type(key) is not int or not 0 <= key < self._keys:
            raise UsageError("key", f"there was no text {key!r}")
        if key in self._under_way:
            del self._under_way[key]
            self._cancelled.add(key)
        elif key in self._finished:
            self._finished.remove(key)
            self._choices.drop(key)


def prompts(
    engine: Writer, sources: Sequence[Sequence[int]], settings: Search
) -> list[tuple[Sequence[int], int]]:
    """What the decoder begins each source with, and how many tokens it may come to."""
    settings.check(engine.vocabulary)
    if engine.with_encoder and settings.decoder_start_token_id is None:
        raise UsageError("decoder_start_token_id", "an encoder-decoder needs it")
    found = []
    for index, source in enumerate(sources):
        if not len(source):
            raise InputError(index, "it has no tokens")
        prompt = [settings.decoder_start_token_id or 0] if engine.with_encoder else source
        longest = settings.longest(len(prompt))
        if engine.longest is not None:
            longest = min(longest, engine.longest)
        if longest <= len(prompt):
            raise InputError(index, f"{len(prompt)} tokens leave no room in a model of {engine.longest}")
        found.append((prompt, longest))
    return found
