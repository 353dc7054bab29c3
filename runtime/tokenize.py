"""The bundle's tokenizer, opened by the `tokenizers` library alone."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from headway.core.errors import BundleError


def open_tokenizer(path: Path) -> Tokenizer:
    """Read `tokenizer.json`. Raises BundleError."""
    try:
        return Tokenizer.from_buffer(path.read_bytes())  # by itself the library opens names in UTF-8 only
    except Exception as error:  # the library raises bare Exception, and OSError may come
        raise BundleError(path.parent, f"{path.name} cannot be read: {error}") from error
