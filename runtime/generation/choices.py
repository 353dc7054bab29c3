"""The kernel's choices of next tokens, kept to the form that a call asks of its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headway.core.errors import InputError, UsageError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.cpp_ext import Searcher
from headway.runtime.generation.base import Floats, Ints
from headway.runtime.generation.form import WORD, Bits, Draft, Form, bits_of
from headway.runtime.generation.lexicon import Lexicon, check_text

ALL = np.uint32(0xFFFFFFFF)
NOT_NUMBERS = "the model's scores of the tokens after it are not finite numbers"
"""problem of an input on which weights overflow, or meet a NaN among them"""


@dataclass
class Sentence:
    """One that is searched."""

    key: int
    settings: Search
    form: Form | None
    ends: Bits
    """the tokens that end a text (V / 32)"""
    left: int
    """tokens that may still come"""
    finished: bool = False


class Choices:
    """A `Searcher` whose sentences may have a form: the same steps, rows, tokens and parents. For one thread."""

    def __init__(self, vocabulary: int, lexicon: Lexicon | None = None) -> None:
        """`lexicon`: needed for settings that are about texts."""
        self._searcher, self._lexicon = Searcher(vocabulary), lexicon
        self._columns = -(-vocabulary // WORD)
        self._sentences: dict[int, Sentence] = {}
        self._rows: list[tuple[Sentence, Draft | None]] = []
        """of the next logits"""
        self._bits: Bits = np.zeros((0, self._columns), np.uint32)
        self.tokens: Ints
        self.parents: Ints

    def add(self, prompt: Sequence[int], settings: Search, longest: int, source: Sequence[int]) -> int:
        """A sentence enters, at any time; returns its key. Raises UsageError for a setting that cannot be met."""
        for name in ("stop_strings", settings.form):
            if name and getattr(settings, name) and self._lexicon is None:
                raise UsageError(name, "needs the tokenizer of the model")
        for text in settings.stop_strings:
            check_text("stop_strings", text)
        settings.check_room(longest - len(prompt))
        form = self._lexicon.form(settings) if self._lexicon else None
        texts = self._lexicon.texts if self._lexicon and settings.stop_strings else None
        shortest = settings.shortest(len(prompt))
        key = self._searcher.add(np.array(prompt), settings, longest, shortest, np.array(source), texts)
        ends = bits_of(settings.eos_token_id, self._columns)
        self._sentences[key] = Sentence(key, settings, form, ends, longest - len(prompt))
        self._rows.append((self._sentences[key], form.begin() if form else None))
        return key

    def advance(self, logits: Floats) -> None:
        """Choose the next tokens by logits (rows, V).

        Raises InputError, with the key of the sentence as its place, for logits that are no numbers.
        """
        formed = any(draft for _, draft in self._rows)
        try:
            self._searcher.advance(logits, self._allowed() if formed else None)
        except ValueError as error:
            bad = np.flatnonzero(~(logits < np.inf).all(axis=1))  # NaN or infinite
            if not len(bad):
                raise
            raise InputError(self._rows[bad[0]][0].key, NOT_NUMBERS) from error
        self.tokens, self.parents = self._searcher.tokens, self._searcher.parents
        for key in self.finished:
            self._sentences[key].finished = True
        for sentence in self._sentences.values():
            sentence.left -= 1
        before, self._rows = self._rows, []
        followed: set[int] = set()
        for parent in self.parents.tolist():
            sentence, draft = before[parent]
            self._rows.append((sentence, draft.copy() if draft and parent in followed else draft))
            followed.add(parent)
        for (_, draft), token in zip(self._rows, self.tokens.tolist(), strict=True):
            if draft:
                draft.take(token)

    def _allowed(self) -> Bits:
        """Which tokens may come next in each row (rows, V / 32)."""
        if len(self._bits) < len(self._rows):
            self._bits = np.empty((len(self._rows), self._columns), np.uint32)
        bits = self._bits[: len(self._rows)]
        whole = {s.key for s, draft in self._rows if s.settings.num_beams > 1 and draft and draft.complete}
        for row, (sentence, draft) in zip(bits, self._rows, strict=True):
            if draft is None:
                row[:] = ALL
            elif sentence.left == 1 and draft.complete:
                row[:] = sentence.ends
            elif sentence.left == 1 and (sentence.key in whole or self._has_ended(sentence)):
                row[:] = 0
            else:
                draft.put_allowed(row)
                if draft.complete:
                    row |= sentence.ends
        return bits

    def _has_ended(self, sentence: Sentence) -> bool:
        """Whether a beam has: such a text is better than one that ends for its length."""
        return sentence.settings.num_beams > 1 and bool(self._searcher.found(sentence.key))

    @property
    def finished(self) -> list[int]:
        """Keys of the sentences that the last step ended."""
        return self._searcher.finished

    def end(self, key: int) -> None:
        """Find what goes on of a sentence as it stands; its rows are left out from now on."""
        self._searcher.end(key)
        self._sentences[key].finished = True
        self._rows = [row for row in self._rows if row[0].key != key]
        self.tokens, self.parents = self._searcher.tokens, self._searcher.parents

    def drop(self, key: int) -> None:
        """Forget a sentence, finished or not."""
        self.end(key)
        self._searcher.drop(key)
        del self._sentences[key]

    def found(self, key: int, decode: Callable[[list[int]], str]) -> list[Hypothesis]:
        """Of a finished sentence, best first; those that are not complete come last."""
        every = [
            Hypothesis(decode(tokens), score, tokens, logs, self._complete(key, tokens))
            for tokens, score, logs in self._searcher.found(key)
        ]
        return sorted(every, key=lambda hypothesis: not hypothesis.complete)

    def _complete(self, key: int, tokens: list[int]) -> bool:
        sentence = self._sentences[key]
        if sentence.form is None:
            return all(any(contains(tokens, one) for one in p) for p in sentence.settings.phrases)
        draft = sentence.form.begin()
        for token in tokens[:-1] if tokens[-1:] and tokens[-1] in sentence.settings.eos_token_id else tokens:
            draft.take(token)
        return draft.complete

    def settled(self, key: int) -> list[int]:
        """Tokens after the prompt that the best hypothesis is sure to begin with."""
        if not self._sentences[key].finished:
            return self._searcher.settled(key)
        found = self.found(key, lambda _: "")
        return found[0].tokens if found else []


def contains(tokens: list[int], part: list[int]) -> bool:
    return any(tokens[i : i + len(part)] == part for i in range(len(tokens)))
