"""Say what to install when a verb's packages are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headway.core.errors import UnavailableError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports inside the block may miss packages that `headway[extra]` brings: then raise UnavailableError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("headway"):
            raise
        raise UnavailableError(f"the package '{error.name}'", f"pip install 'headway[{extra}]'") from error
