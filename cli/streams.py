"""The standard streams as the command uses them, whatever terminal, scheduler or locale started the process."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any

STREAMS = (("stdin", 0, os.O_WRONLY, "r"), ("stdout", 1, os.O_RDONLY, "w"), ("stderr", 2, os.O_WRONLY, "w"))
"""name, number, how it is opened where it is closed, and its mode. Then reading standard input and writing standard
output fail as they would of a closed file, messages vanish, and no other file gets one of these numbers"""


def prepare() -> None:
    """Open the standard streams that are closed, and write standard output in UTF-8. May be called again."""
    for name, number, access, mode in STREAMS:
        if getattr(sys, name) is None:
            stream = os.fdopen(
                _opened(number, access), mode, encoding="utf-8", errors="backslashreplace", closefd=False
            )
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # JSON Lines are UTF-8; a path that is none is shown by escapes
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def say(message: str) -> None:
    """A message on standard error; no work ends because it cannot be written there."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: Any) -> None:
    """Let what was not written of a stream vanish: Python would try again, and tell, when it ends."""
    with suppress(OSError, ValueError):
        empty = os.open(os.devnull, os.O_WRONLY)
        os.dup2(empty, stream.fileno())
        os.close(empty)


def _opened(number: int, access: int) -> int:
    """The empty file under the number of a closed standard stream, or under a higher one if that is taken by now."""
    empty = os.open(os.devnull, access)  # the lowest free number
    if empty == number:
        os.set_inheritable(empty, True)
    return empty
