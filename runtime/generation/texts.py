"""Texts under way together, for a server: each enters at any step, and leaves when it is finished or cancelled."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from headway.core.generation import Hypothesis, Result
from headway.core.search import Search
from headway.runtime.generation.batch import Batch
from headway.runtime.pipeline import Input

Read = Callable[[Input, dict[str, Any]], tuple[list[int], bool, Search]]
"""tokens of a source, whether it was cut, and how it is searched, from an input and settings"""


@dataclass
class Writing:
    """A text as far as it is known."""

    truncated: bool
    told: str = ""


class Texts:
    """Made by `GenerationPipeline.batch`. For one thread. What becomes of a text does not depend on the others."""

    def __init__(
        self,
        batch: Batch,
        read: Read,
        decode: Callable[[list[int]], str],
        byte_tokens: Container[int] = (),
        skipped_tokens: Container[int] = (),
    ) -> None:
        """`byte_tokens`: of one byte each, whose characters depend on all that stand together; `skipped_tokens`:
        those that `decode` leaves out."""
        self._batch, self._read, self._decode = batch, read, decode
        self._byte_tokens, self._skipped_tokens = byte_tokens, skipped_tokens
        self._writing: dict[int, Writing] = {}

    def __len__(self) -> int:
        """Texts that are not finished."""
        return len(self._batch)

    def add(self, given: Input, **settings: Any) -> int:
        """Let a text enter with the next step; returns its key.

        Settings and errors are those of a call; and UnavailableError where others are under way that it cannot join.
        """
        source, truncated, chosen = self._read(given, settings)
        (key,) = self._batch.add([source], chosen)
        self._writing[key] = Writing(truncated)
        return key

    def step(self) -> list[int]:
        """Write another token of every text; returns the keys of those that are finished."""
        return self._batch.step()

    def piece(self, key: int) -> str:
        """What is new of a text, and cannot change any more. Raises UsageError for a text that is dropped or unknown."""
        tokens = self._batch.settled(key)
        own, finished = self._writing[key], self._batch.has_finished(key)
        text = self._decode(tokens if finished else self._without_open_bytes(tokens))
        half = text.endswith("\ufffd")  # of a character whose other tokens are to come
        if not finished and (half or not text.startswith(own.told)):
            return ""
        piece = text[len(own.told) :]
        own.told = text
        return piece

    def _without_open_bytes(self, tokens: list[int]) -> list[int]:
        """Tokens before the byte tokens at the end: as long as others may follow, their characters may change."""
        end = len(tokens)
        for place in range(len(tokens) - 1, -1, -1):
            if tokens[place] in self._byte_tokens:
                end = place
            elif tokens[place] not in self._skipped_tokens:
                break
        return tokens[:end]

    def result(self, key: int) -> Result:
        """Of a finished text, which is forgotten by it. Raises UsageError for a text that is not."""
        found = self._batch.found(key, self._decode)
        best = found[0] if found else Hypothesis("", float("-inf"), [])
        truncated = self._writing[key].truncated
        self.drop(key)
        return Result(best.text, best.score, found, truncated)

    def drop(self, key: int) -> None:
        """Cancel a text, or forget one that is finished. To drop it again, or after its result, changes nothing.

        Raises UsageError for a key that `add` has not given.
        """
        self._batch.drop(key)
        self._writing.pop(key, None)
