"""Exact characters of tokens, in every script, from the offsets that a tokenizer gives."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import CheckpointError

SOLID = np.array([not chr(code).isspace() for code in range(0x3002)])
"""whether a character is something else than white space; all behind these are"""
TEXTS = {"question-answering": "context", "token-classification": "text"}
"""tasks whose answers are characters of a text, and the field of an example that has this text"""
MAX_CHECKED = 500
"""texts of a user that `check` reads"""
BYTE_LEVEL_SPACE = "Ġ"
"""first character of a byte-level token that begins with a space, or with the space that its splitter put there"""
ZERO_WIDTH_SPACE = "\u200b"
OPENING = frozenset(
    "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
"""format characters that belong to what follows: embeddings, overrides and isolates of the bidirectional algorithm, and
the characters with the property Prepended_Concatenation_Mark"""
SPACE_LIKE = re.compile("[\u200b\u200e\u200f\ufeff]+")
"""format characters that the rule `nmt_nfkc` of sentencepiece makes a space of, which then belongs to the next token"""
HALF_WIDTH_SOUND_MARKS = ("\uff9e", "\uff9f")

Spans = NDArray[np.int64]
"""(T, 2): first character of each token and the character after its last; (-1, -1) for tokens of another text"""


def token_spans(text: str, windows: Sequence[Any], sequence: int = 0) -> list[Spans]:
    """Characters of a text's tokens in each of its windows, which are `tokenizers` encodings.

    `sequence`: which text of a pair it is. The offsets are the tokenizer's, except that

    - a token whose begin was trimmed though no space is there begins where its characters do (a `ByteLevel`
      with a prefix space behind another splitter trims the first character of each word);
    - characters that no token covers belong to the token that they stand at: combining marks, vowel signs and
      jamo that the normalizer strips or composes, format characters (zero-width spaces and joiners, soft hyphens,
      byte order marks), and letters that the model has no token for. They belong to the token before them; to the
      one behind them where white space is before them. A zero-width space between two words belongs to neither.

    White space that a tokenizer counts into a token stays there.
    """
    found = [_offsets(window, sequence) for window in windows]
    solid = _solid(text)
    missing = _missing(solid, found)
    has_space_like = not text.isascii() and SPACE_LIKE.search(text) is not None
    if len(found) == 1 and not has_space_like and not missing.any():
        return found
    for number, (window, spans) in enumerate(zip(windows, found, strict=True)):
        if has_space_like:
            _skip_space_like(text, spans)
        _restore_begins(spans, solid, _missing(solid, [spans]), window, is_first=number == 0)
    missing = _missing(solid, found)
    if missing.any():
        _attach(text, missing, found)
    return found


def solid_places(text: str) -> NDArray[np.int64]:
    """Where a text has no white space."""
    return np.flatnonzero(_solid(text))


def is_attached(text: str) -> bool:
    """Whether a text has nothing but white space and what belongs to characters beside it."""
    return all(c.isspace() or c in OPENING or _is_attached(c) for c in text)


def is_format(character: str) -> bool:
    """Whether a character is white space or a format character."""
    return character.isspace() or (not character.isascii() and unicodedata.category(character) == "Cf")


def strip_format(text: str) -> str:
    """A text without the format characters and white space around it."""
    if text.isascii():
        return text
    first, after = 0, len(text)
    while first < after and is_format(text[first]):
        first += 1
    while first < after and is_format(text[after - 1]):
        after -= 1
    return text[first:after]


def check(
    task: str,
    checkpoint: str | Path,
    tokenizer: Any,
    examples: Sequence[Any] = (),
    texts: Sequence[str] = (),
) -> None:
    """Raise CheckpointError if a letter or digit of a text is in no token, though the tokenizer has tokens for it.

    Answers would come back without it. Looked at are `texts` and some of the examples, for the tasks of `TEXTS`,
    except those with control characters, behind which the offsets of `tokenizers`' `Precompiled` are wrong.
    `tokenizer` is a `tokenizers.Tokenizer`, whose truncation is left off.
    """
    if task not in TEXTS:
        return
    own = islice(dict.fromkeys(getattr(example, TEXTS[task]) for example in examples), MAX_CHECKED)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for text in chain(texts, own):
        if any(_is_control(c) and not c.isspace() for c in text):
            continue
        encoding = tokenizer.encode(text, add_special_tokens=False)
        missing = _missing(_solid(text), token_spans(text, [encoding]))
        for place in np.flatnonzero(missing).tolist():
            if text[place].isalnum() and tokenizer.encode(text[place], add_special_tokens=False).ids:
                begin = max(0, place - 10)
                raise CheckpointError(
                    checkpoint,
                    f"its tokenizer ({_describe(tokenizer)}) gives wrong offsets: no token covers "
                    f"'{text[place]}', character {place - begin} of '{text[begin : place + 10]}'",
                )


def _describe(tokenizer: Any) -> str:
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model, tokenizer.post_processor)
    return ", ".join(type(part).__name__ for part in parts if part is not None)


def _offsets(window: Any, sequence: int) -> Spans:
    sequences = window.sequence_ids
    spans: Spans = np.full((len(sequences), 2), -1)
    if sequence in sequences:
        begin = sequences.index(sequence)
        end = begin + sequences.count(sequence)
        flat = chain.from_iterable(window.offsets[begin:end])
        spans[begin:end] = np.fromiter(flat, np.int64, 2 * (end - begin)).reshape(-1, 2)
    return spans


def _solid(text: str) -> NDArray[np.bool_]:
    """(N): whether each character is something else than white space."""
    if text.isascii():
        codes: NDArray[Any] = np.frombuffer(text.encode("ascii"), np.uint8)
    else:
        codes = np.minimum(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"), len(SOLID) - 1)
    solid: NDArray[np.bool_] = SOLID[codes]
    return solid


def _missing(solid: NDArray[np.bool_], found: Sequence[Spans]) -> NDArray[np.bool_]:
    """(N): which characters are no white space and in no token."""
    size = len(solid) + 2
    spans = found[0] if len(found) == 1 else np.concatenate(found)
    begins, ends = np.bincount(spans[:, 0] + 1, minlength=size), np.bincount(spans[:, 1] + 1, minlength=size)
    depth = np.cumsum(begins - ends)  # tokens of other texts begin and end at the first place
    missing: NDArray[np.bool_] = solid & (depth[1:-1] == 0)
    return missing


def _skip_space_like(text: str, spans: Spans) -> None:
    """Let tokens begin behind a zero-width space, or its like, that stands at the word before."""
    for match in SPACE_LIKE.finditer(text):
        begin, end = match.span()
        if begin > 0 and not text[begin - 1].isspace():
            spans[(spans[:, 0] == begin) & (spans[:, 1] > end), 0] = end


def _restore_begins(
    spans: Spans, solid: NDArray[np.bool_], missing: NDArray[np.bool_], window: Any, is_first: bool
) -> None:
    """Undo the trim of tokens that begin with a space which is not in the text.

    `solid`: what is no white space: a token that begins with white space of the text was not trimmed. `missing`: what no
    token of this window has. `tokenizers` does not trim the first token of a further window.
    """
    before = (spans[:, 0] > 0) & missing[np.maximum(spans[:, 0] - 1, 0)]
    is_empty = (
        spans[:, 0] == spans[:, 1]
    )  # of one character, which was trimmed: what stands there is behind it
    before &= is_empty | solid[np.minimum(spans[:, 0], len(solid) - 1)]
    if not is_first:
        before[np.argmax(spans[:, 0] >= 0)] = False
    places = np.flatnonzero(before).tolist()
    tokens = window.tokens if places else []
    for place in places:
        begin, spaces = int(spans[place, 0]), 0
        text = tokens[place].lstrip(BYTE_LEVEL_SPACE)
        if text:
            spaces = len(tokens[place]) - len(text)
        while spaces and begin and missing[begin - 1]:
            begin, spaces = begin - 1, spaces - 1
        spans[place, 0] = begin


def _attach(text: str, missing: NDArray[np.bool_], found: Sequence[Spans]) -> None:
    """Extend tokens, in place, over the characters beside them that no token has and that belong to them."""
    begins = np.arange(len(text) + 1)  # of tokens that begin at each place, after they are extended
    ends = begins.copy()
    steps = np.flatnonzero(np.diff(np.concatenate(([False], missing, [False])).astype(np.int8)))
    for first, after in steps.reshape(-1, 2).tolist():
        end, begin = first, after
        if first > 0 and not text[first - 1].isspace():
            end = _end_of_word(text, first, after)
        while begin > end and _precedes(text, begin - 1):
            begin -= 1
        while begin < after and unicodedata.category(text[begin])[0] == "M":
            begin += 1  # marks of something that belongs to no token
        ends[first], begins[after] = end, begin
    for spans in found:
        full = np.flatnonzero(spans[:, 1] > spans[:, 0])
        spans[full] = np.stack([begins[spans[full, 0]], ends[spans[full, 1]]], 1)


def _end_of_word(text: str, place: int, after: int) -> int:
    """How far a word goes on over characters that are in no token; control characters inside it are its own."""
    end = place
    while place < after and not _separates(text, place) and text[place] not in OPENING:
        if not (_in_word(text[place]) or _is_attached(text[place]) or _is_control(text[place])):
            break
        place += 1
        if not _is_control(text[place - 1]):
            end = place
    return end


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _in_word(character: str) -> bool:
    """Letters, digits, marks, and what stands for a letter that was lost."""
    return unicodedata.category(character)[0] in "LMN" or character == "\ufffd"


def _is_attached(character: str) -> bool:
    """Marks, jamo and signs that go on with the character before them, and format characters."""
    if character.isascii():
        return False
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
        or "\u1160" <= character <= "\u11ff"  # vowels and final consonants of Hangul
        or "\ud7b0" <= character <= "\ud7fb"
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # colours of skin
        or character in HALF_WIDTH_SOUND_MARKS
    )


def _precedes(text: str, place: int) -> bool:
    """Whether a character that belongs to none before it belongs to the one behind it."""
    character = text[place]
    if character == ZERO_WIDTH_SPACE:
        return place == 0 or text[place - 1].isspace()
    return _in_word(character) or unicodedata.category(character) == "Cf"


def _separates(text: str, place: int) -> bool:
    """Whether a zero-width space parts two words, as in Khmer, Thai or Burmese."""
    following = text[place + 1 : place + 2]
    return text[place] == ZERO_WIDTH_SPACE and bool(following) and _in_word(following)
