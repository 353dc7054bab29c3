"""Texts of stated lengths, and lengths of texts, in tokens of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from headway.core import data
from headway.core.errors import UsageError
from headway.runtime.load import TOKENIZER
from headway.runtime.tokenize import open_tokenizer

SEED = 1


def texts(bundle: Path, source: Path, lengths: str, count: int) -> Iterator[str]:
    """So many texts in a random order, of words that stand in a file of texts, with the lengths "16:0.7,64:0.3".

    Lengths are in tokens of the bundle, special ones included; shares need not sum to one. Raises UsageError.
    """
    tokenizer = open_tokenizer(bundle / TOKENIZER)
    tokenizer.no_truncation()
    words = cycle(word for record in data.read(source) for word in record.text("text").split())
    for wanted in drawn(lengths, count):
        text = next(words)
        while len(tokenizer.encode(longer := f"{text} {next(words)}").ids) <= wanted:
            text = longer
        yield text


def drawn(lengths: str, count: int) -> list[int]:
    """So many lengths in a random order. Raises UsageError."""
    shares = _shares(lengths)
    chances = np.array(list(shares.values())) / sum(shares.values())
    found: list[int] = np.random.default_rng(SEED).choice(list(shares), count, p=chances).tolist()
    return found


def tokens(bundle: Path, inputs: Sequence[Any], max_length: int) -> list[int]:
    """Of each input (what stands side by side counts together), cut at so many."""
    tokenizer = open_tokenizer(bundle / TOKENIZER)
    tokenizer.no_truncation()
    joined = [" ".join(_texts(given)) for given in inputs]
    return [min(len(e.ids), max_length) for e in tokenizer.encode_batch(joined)]


def _texts(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    else:
        for part in given.values() if isinstance(given, dict) else given:
            yield from _texts(part)


def _shares(lengths: str) -> dict[int, float]:
    found = {}
    for part in lengths.split(","):
        length, colon, share = part.partition(":")
        try:
            found[int(length)] = float(share) if colon else 1.0
        except ValueError:
            found[0] = 0.0
    if not all(length >= 1 and 0 < share < float("inf") for length, share in found.items()):
        raise UsageError("--lengths", f"wants tokens and shares, as 16:0.7,64:0.3; got '{lengths}'")
    return found
