"""What the search asks of an engine that writes: on the processor `engine.Engine`, on a GPU `gpu.engine.GpuEngine`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headway.core.search import Search

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

Tokens = Sequence[int]
Found = tuple[list[int], float, list[float]]
"""tokens after the prompt, score, log probability of each token"""


class Decoding(Protocol):
    """What the decoder has read of a batch so far. For one thread."""

    def step(self, ids: Ints, parents: Ints | None = None) -> Floats:
        """Read more tokens: logits (R, V) after the last one of each row, valid until the next step.

        Args:
            ids: (R, step).
            parents: the row of the last step that each of the rows (R) goes on from, where they are not the same.
        """
        ...

    def join(self, other: Any) -> None:
        """Take in the rows of another decoding of an engine that is `joinable`, behind the own ones."""
        ...


class Writer(Protocol):
    """The opened graphs of one variant of a model. Several threads may use it."""

    @property
    def longest(self) -> int | None:
        """Tokens that the decoder has positions for, if they are limited."""
        ...

    @property
    def threads(self) -> int:
        """Of the processor, each of which may write a part of a batch."""
        ...

    @property
    def with_encoder(self) -> bool: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def joinable(self) -> bool:
        """Whether rows that have read more and less may go on together."""
        ...

    @property
    def on_one_thread(self) -> Writer:
        """The same, of which each of several threads uses one."""
        ...

    @property
    def workers(self) -> ThreadPoolExecutor:
        """As many as there are threads."""
        ...

    def begin(self, sources: Sequence[Tokens], start: int) -> tuple[Any, Floats]:
        """Read sources, as the encoder's input or as the decoder's prompts: a `Decoding`, and logits (B, V) of their
        first tokens.

        `start`: the token that a decoder behind an encoder begins with.
        """
        ...

    def search(
        self, sources: Sequence[Tokens], settings: Search, begun: Sequence[tuple[Tokens, int]]
    ) -> list[list[Found]] | None:
        """A whole search without the processor, best hypotheses first; none where it must choose the tokens.

        `begun`: what the decoder begins each source with, and how many tokens it may come to.
        """
        ...

    def before(self, sources: Sequence[Tokens], targets: Sequence[Tokens], start: int) -> Iterator[Floats]:
        """Logits (B, some, V) before the tokens of targets, given their sources: of the first tokens, and so on.

        Each is valid until the next. Behind shorter targets they are anything.
        """
        ...

    def logits(self, texts: Sequence[Tokens]) -> list[Floats]:
        """What a decoder alone expects after each token of each text: its logits (T, V)."""
        ...
