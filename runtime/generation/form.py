"""Texts that have a form, a pattern's or a JSON schema's: which tokens may come next, by llguidance's automata."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import UnavailableError, UsageError

Bits = NDArray[np.uint32]

WORD = 32
"""bits of a number that holds some"""
HEAD = '%llguidance {"no_forcing": true}\n'
"""of grammars: any tokens that make a text may come, not only those that a tokenizer would choose"""
SPACES = {"x-guidance": {"whitespace_pattern": " ?"}}
"""what may stand between the parts of JSON, unless a schema says something else"""


class Alphabet:
    """A model's tokens as the automata know them. What begins a text may have another text than later on."""

    def __init__(
        self, first: Sequence[bytes], later: Sequence[bytes], skipped: Collection[int], vocabulary: int
    ) -> None:
        """Raises UnavailableError.

        Args:
            first, later: the text of each token where it begins a text, and after others; there may be fewer than
                the vocabulary has.
            skipped: tokens that are left out of texts.
        """
        try:
            import llguidance
        except ImportError as error:
            raise UnavailableError(
                "what regex and json_schema need", "pip install 'headway[constraints]'"
            ) from error
        self.columns = -(-vocabulary // WORD)
        self.skipped = frozenset(skipped)
        size = self.columns * WORD
        later, first = (
            [b"" if i in self.skipped or i >= len(texts) else texts[i] for i in range(size)]
            for texts in (later, first)
        )
        self.begin = 0 if first == later else size
        """what is added to the number of a token that begins a text"""
        self.blank = {i for i in range(size) if later[i] and not first[i]}
        """tokens that add nothing where they begin a text"""
        self.blank_bits = bits_of(self.blank, self.columns)
        texts = [*later, *(first if self.begin else ())]
        self.size = len(texts) + 1
        words: Any = _Words(texts)
        self.tokenizer = llguidance.LLTokenizer(words, n_vocab=self.size)


class _Words:
    """What llguidance takes for a tokenizer; nothing is tokenized, as its grammars do not force anything."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, texts: list[bytes]) -> None:
        self.eos_token_id = len(texts)
        self.special_token_ids = [self.eos_token_id]
        self.tokens = [*texts, b"<end>"]

    def __call__(self, _: Any) -> list[int]:
        return []


class Form:
    """What all of a text shall be."""

    def __init__(self, alphabet: Alphabet, setting: str, wanted: Any) -> None:
        """Raises UsageError, naming the setting, for what cannot be read and for what no text can be."""
        from llguidance import LLMatcher, regex_to_lark

        self.alphabet = alphabet
        if setting == "regex":
            pattern = regex_to_lark(wanted, "d")  # by which a digit is one of ASCII
            grammar = f"{HEAD}start: /{pattern}/\n"
        else:
            grammar = f"{HEAD}start: %json {json.dumps(SPACES | wanted)}\n"
        self.start = LLMatcher(alphabet.tokenizer, grammar, log_level=0)
        if self.start.is_error():
            message = self.start.get_error().split("\n   1 |")[0]  # what follows shows the grammar
            raise UsageError(setting, " ".join(message.split(": ", 1)[-1].split()))
        allowed = np.zeros(alphabet.columns, np.uint32)
        draft = self.begin()
        draft.put_allowed(allowed)
        if not draft.complete and not allowed.any():
            raise UsageError(setting, "no text of this form can be written with the model's tokens")

    def begin(self) -> Draft:
        return Draft(self.alphabet, self.start.deep_copy())


class Draft:
    """A text of a form, as far as it is written."""

    def __init__(self, alphabet: Alphabet, matcher: Any, begun: bool = False) -> None:
        self._alphabet, self._matcher, self._begun = alphabet, matcher, begun

    def copy(self) -> Draft:
        return Draft(self._alphabet, self._matcher.deep_copy(), self._begun)

    @property
    def complete(self) -> bool:
        """It has the form."""
        return not self._matcher.is_error() and self._matcher.is_accepting()

    def take(self, token: int) -> None:
        """Go on with a token; with one that does not fit, it will never be complete."""
        if token in self._alphabet.skipped:
            return
        if self._begun:
            self._matcher.consume_token(token)
        elif token not in self._alphabet.blank:
            self._matcher.consume_token(token + self._alphabet.begin)
        self._begun = True

    def put_allowed(self, bits: Bits) -> None:
        """Write which tokens may come next, other than end tokens, a bit each (V / 32)."""
        room = np.zeros(-(-self._alphabet.size // WORD), np.uint32)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(room.ctypes.data, room.nbytes)
        at = 0 if self._begun else self._alphabet.begin // WORD
        bits[:] = room[at : at + len(bits)]
        if not self._begun and not self._matcher.is_error():
            bits |= self._alphabet.blank_bits


def bits_of(tokens: Collection[int], columns: int) -> Bits:
    """A row of bits (columns) with those of some tokens set."""
    found = np.zeros(columns, np.uint32)
    for token in tokens:
        found[token // WORD] |= np.uint32(1 << token % WORD)
    return found
