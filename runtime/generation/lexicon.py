"""What the tokens of a model add to a text: for strings that end a text, and for texts of a form."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from typing import Any

from headway.core.errors import UnavailableError, UsageError
from headway.core.search import Search
from headway.cpp_ext import TokenTexts
from headway.runtime.generation.form import Alphabet, Form

ANCHOR = "a"
"""stands before a token whose text is asked for, as some have another text where they begin one"""
UNFIT = ("BPEDecoder", "CTC")
"""decoders by which a token's text depends on the tokens after it"""
FORMS = 16
"""that are kept ready"""


class Lexicon:
    """By a `tokenizers.Tokenizer`. Several threads may use it."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        """`vocabulary`: tokens of the model; the tokenizer may have fewer."""
        self._tokenizer, self._vocabulary = tokenizer, vocabulary

    @cached_property
    def texts(self) -> TokenTexts:
        """Raises UnavailableError."""
        return TokenTexts(self._later)

    def form(self, settings: Search) -> Form | None:
        """What the settings ask of a whole text. Raises UsageError, naming the setting, or UnavailableError."""
        name = settings.form
        if name is None:
            return None
        try:
            wanted = json.dumps(getattr(settings, name), ensure_ascii=False)
            check_text(name, wanted)
            return _form(self._alphabet, name, wanted)
        except (TypeError, ValueError) as error:  # a value that JSON has not, or that holds itself
            raise UsageError(name, f"is no JSON: {error}") from error
        except RecursionError as error:
            raise UsageError(name, "has too many lists and objects in each other") from error

    @cached_property
    def _later(self) -> list[bytes]:
        return token_texts(self._tokenizer, [ANCHOR])

    @cached_property
    def _alphabet(self) -> Alphabet:
        added = self._tokenizer.get_added_tokens_decoder()
        skipped = [number for number, token in added.items() if token.special]
        return Alphabet(token_texts(self._tokenizer, []), self._later, skipped, self._vocabulary)


def check_text(setting: str, text: str) -> None:
    """Raise UsageError for a text that no tokens can come to."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(setting, f"holds half of a surrogate pair: {text[error.start]!r}") from error


@lru_cache(FORMS)
def _form(alphabet: Alphabet, setting: str, wanted: str) -> Form:
    return Form(alphabet, setting, json.loads(wanted))


def token_texts(tokenizer: Any, before: list[str]) -> list[bytes]:
    """What each token adds to a text of other tokens, in UTF-8; parts of characters too.

    Raises UnavailableError for tokenizers of which none can say that.
    """
    decoder = tokenizer.decoder
    kinds = _kinds(json.loads(decoder.__getstate__())) if decoder else set()
    if unfit := kinds.intersection(UNFIT):
        raise UnavailableError(
            f"the text of single tokens by a {unfit.pop()}", "leave out stop_strings, regex and json_schema"
        )
    decode = decoder.decode if decoder else " ".join
    begin = len(decode(before))
    own = _byte_level if "ByteLevel" in kinds else _byte_fallback if "ByteFallback" in kinds else _no_bytes
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    found = [b""] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        single = own(token)
        found[number] = decode([*before, token])[begin:].encode() if single is None else single
    return found


def _kinds(decoder: dict[str, Any]) -> set[str]:
    """Types of a decoder and of those that it is made of."""
    return {decoder["type"]}.union(*map(_kinds, decoder.get("decoders", [])))


def _no_bytes(_: str) -> None:
    return None


def _byte_level(token: str) -> bytes | None:
    """GPT-2 writes every byte as one character."""
    return bytes(BYTES[c] for c in token) if all(c in BYTES for c in token) else None


def _byte_fallback(token: str) -> bytes | None:
    """SentencePiece writes bytes that are no token as <0xC3>; those that are characters decode by themselves."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">") and int(token[3:5], 16) > 127:
        return bytes([int(token[3:5], 16)])
    return None


SHOWN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
"""bytes that stand for themselves; the others have the characters from 256 on"""
HIDDEN = [byte for byte in range(256) if byte not in SHOWN]
BYTES = {chr(byte): byte for byte in SHOWN} | {chr(256 + i): byte for i, byte in enumerate(HIDDEN)}
