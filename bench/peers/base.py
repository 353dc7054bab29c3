"""What is measured, headway and its peers alike: open a model, answer one text, answer many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from headway.core import siblings

FAMILY = "headway.bench.peers"

Setting = dict[str, Any]
"""keyword arguments of `many`, one way to run it"""


class Subject(Protocol):
    """An opened model. Answers are labels."""

    SETTINGS: Sequence[Setting]
    """ways to run `many`, of which the fastest is measured"""

    def one(self, text: str) -> str:
        """The answer for one text."""
        ...

    def many(self, texts: Sequence[str], **setting: Any) -> list[str]:
        """Answers in the order of the texts."""
        ...


class Peer(Protocol):
    """What each module of this family defines."""

    NEEDS_CHECKPOINT: bool
    """True if it runs the PyTorch checkpoint, False if it runs the bundle"""

    def precisions(self, model: Path) -> list[str]:
        """What to measure of it."""
        ...

    def open_subject(self, model: Path, precision: str, threads: int, max_length: int) -> Subject:
        """Open a model in this process."""
        ...


def load_peer(name: str) -> Peer:
    """The peer of that name. Raises UsageError."""
    return cast(Peer, siblings.load(FAMILY, name, "--against"))
