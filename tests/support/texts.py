"""Texts for the vocabularies of the tiny tokenizers, and texts to compare answers on."""

from __future__ import annotations

import functools
import json
import unicodedata
from importlib import resources
from pathlib import Path

PARITY = Path(str(resources.files("headway.export"))) / "parity_texts.txt"
SUPPORT = Path(str(resources.files("headway.examples"))) / "support" / "train.jsonl"

SHORT = (
    "Where is my parcel?",
    "THE PARCEL IS LATE",
    "The Parcel is late.",
    "refund please",
    "  two spaces   inside, and around  ",
    "tabs\tand\nlines",
    unicodedata.normalize("NFC", "Café René, naïve"),
    unicodedata.normalize("NFD", "Café René, naïve"),
    "Straße İstanbul ﬁne ２０２６",
    "Сегодня на улице холодно",
    "今天外面很冷",
    "서울에서 만나요",
    "مرحبا بالعالم",
    "วันนี้ข้างนอกหนาว",
    "great 😀 👩‍👩‍👧 ❤️",
    "zero\u200bwidth and soft\u00adhyphen",
    "u",
)
"""texts that every tiny model reads whole or nearly so; some differ by capitals or composition only"""

LONG = (
    "The first part asks for a refund. "
    + "The parcel never came and nobody answered. " * 30
    + "Now it ends.",
    "Im zweiten Text steht viel: " + "Öl, Übermut und Ärger; " * 40 + "Schluß.",
)
"""texts longer than every tiny model, whose two ends differ"""


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Texts in many scripts that the tiny tokenizers learn their tokens from."""
    rows = SUPPORT.read_text("utf-8").splitlines()[:160]
    return (*parity(), *(json.loads(row)["text"] for row in rows), *SHORT, *LONG)


@functools.cache
def parity() -> tuple[str, ...]:
    """The texts that an export is compared on."""
    return tuple(line for line in PARITY.read_text("utf-8").splitlines() if line.strip())
