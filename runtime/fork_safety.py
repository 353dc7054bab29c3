"""Threads and locks do not survive a fork: what has them is made again in the child.

A child has its parent's memory and only the thread that forked. There a pool waits for threads that do not exist, a lock
that another thread held is never released, and the destructor of a C++ object with threads waits for them for ever.
"""

from __future__ import annotations

import ctypes
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from tokenizers import Tokenizer

T = TypeVar("T")

PARALLEL_TOKENIZING = "TOKENIZERS_PARALLELISM"
"""variable of the `tokenizers` library. Where it is not set, the library itself sets it to false in the child of a process
that tokenized in several threads, and says so on standard error; where it is "true", tokenizing hangs in the child"""


class ForkAware(ABC):
    """What is told that this process is a child of the one that it was made in."""

    def __init__(self) -> None:
        _known.add(self)

    @abstractmethod
    def after_fork(self) -> None:
        """Called in the child, before anything else runs there. May take no lock that others of the parent take."""


class PerProcess(ForkAware, Generic[T]):
    """A value that is made when a process first asks for it, and again in each forked child that asks."""

    def __init__(self, make: Callable[[], T], *, shared: bool = False) -> None:
        """`shared`: the value has no threads, and children go on with the parent's, in the same memory.

        `make` must not hold the owner of this object, which would then be freed late.
        """
        self._make, self._shared = make, shared
        self._value: T | None = None
        self._making = Lock()
        super().__init__()

    def __call__(self) -> T:
        """The value. Raises what `make` raises."""
        if (known := self._value) is not None:
            return known
        with self._making:
            if self._value is None:
                self._value = self._make()
            return self._value

    def after_fork(self) -> None:
        self._making = Lock()
        if self._value is not None and not self._shared:
            _keep_for_ever(self._value)
            self._value = None


class ForkSafeLock(ForkAware):
    """A lock that is free in a forked child. What it guards must bear to be left half changed."""

    def __init__(self, kind: Callable[[], Any] = Lock) -> None:
        """`kind`: `threading.Lock` or `RLock`."""
        self._kind, self._lock = kind, kind()
        super().__init__()

    def acquire(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def after_fork(self) -> None:
        self._lock = self._kind()


class TokenizerLock(ForkSafeLock):
    """A tokenizer, and the lock of those who set its truncation or padding.

    The library has a lock inside that a child cannot release: where another thread was tokenizing at the fork, the child
    has a copy of the tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        super().__init__()

    def after_fork(self) -> None:
        if self._lock.locked():
            _keep_for_ever(self.tokenizer)
            self.tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        super().after_fork()


_known: WeakSet[ForkAware] = WeakSet()


def _keep_for_ever(value: object) -> None:
    """Let no destructor run, not even when the process ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _in_child() -> None:
    if _known and os.environ.get(PARALLEL_TOKENIZING, "") not in ("", "0", "off", "false", "f", "n", "no"):
        os.environ[PARALLEL_TOKENIZING] = "false"
    for known in list(_known):
        known.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
