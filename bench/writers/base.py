"""What is measured where a model writes, headway and its peers alike: open it, give it tokens, take hypotheses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from headway.core import siblings

FAMILY = "headway.bench.writers"

Ids = list[list[int]]
"""tokens of the sources of one request, all equally many"""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What every subject is asked for alike."""

    beams: int
    returned: int
    """hypotheses of a source"""
    new: int
    """tokens that are written, at most"""
    least: int = 0
    """tokens before an end token may come"""


class Hypothesis(NamedTuple):
    tokens: list[int]
    """prompt left out; up to and with the first end token"""
    score: float
    """sum of log probabilities / tokens; 0 where scores were not asked for"""


Found = list[list[Hypothesis]]
"""of each source, best first"""
Write = Callable[[Ids], Found]


class Subject(Protocol):
    """An opened model."""

    def ways(self, wish: Wish, scored: bool) -> Mapping[str, Write]:
        """Ways to fulfil a wish by name, of which the fastest is measured; scores only where they are asked for."""
        ...

    def engine_seconds(self) -> float | None:
        """Spent within the inference engine so far; None where nobody looks."""
        ...


class Writer(Protocol):
    """What each module of this family defines."""

    PRECISIONS: Sequence[str]
    EXACT: Sequence[str]
    """precisions that search and compute as `generate()` in fp32, so that its tokens are expected"""

    def interpreter(self) -> str:
        """The Python that its processes are started with."""
        ...

    def prepared(self, checkpoint: Path, precision: str, folder: Path) -> None:
        """Write what it opens into an empty folder, before any clock starts."""
        ...

    def open_subject(self, checkpoint: Path, precision: str, folder: Path, threads: int) -> Subject:
        """Open in this process what was prepared."""
        ...


def load_writer(name: str) -> Writer:
    """The writer of that name. Raises UsageError."""
    return cast(Writer, siblings.load(FAMILY, name, "--against"))


def told(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's own settings for generation, and whether it has an encoder, as "is_encoder_decoder"."""
    found: dict[str, Any] = json.loads((checkpoint / "generation_config.json").read_text("utf-8"))
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    return found | {"is_encoder_decoder": bool(config.get("is_encoder_decoder"))}


def up_to_end(tokens: Sequence[int], end: int | None) -> list[int]:
    """Without the padding after an end token."""
    found = list(tokens)
    return found[: found.index(end) + 1] if end in found else found
