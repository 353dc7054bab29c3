"""How long work reports how far it is: a function that wraps an iterable, as tqdm does. The library never prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """`progress(items, "reading", 100)` yields the items and may draw a bar while it does."""

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]: ...


def silent(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """No bar."""
    yield from items
