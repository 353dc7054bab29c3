"""As much of a long text as the model will read, where it is proven that its tokens are the same."""

from __future__ import annotations

from typing import Any

CHARACTERS = 16
"""of a text, for each token that the model reads; of texts twice as long the rest is left out"""

NORMALIZERS = ("NoneType", "BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")
"""what these make of a text's beginning does not depend on what follows a space"""
SPLITTERS = ("BertPreTokenizer", "ByteLevel", "Whitespace", "WhitespaceSplit")
"""with these no piece goes on behind a letter or digit that a space follows"""
MODELS = ("WordPiece", "BPE", "WordLevel")
"""these read each piece for itself"""


def beginning(tokenizer: Any, text: Any, tokens: int) -> Any:
    """A text, or each of a pair, up to a place from which on nothing changes the tokens before it.

    There are many characters for each of `tokens` before that place. What is not long is whole, and so are all texts
    of a `tokenizers.Tokenizer` of which the above is not proven.
    """
    if isinstance(text, tuple):
        return tuple(beginning(tokenizer, part, tokens) for part in text)
    most = CHARACTERS * tokens
    if len(text) <= 2 * most or not _splits_at_spaces(tokenizer):
        return text
    end = text.rfind(" ", 1, most)
    while end > 0 and not (text[end - 1].isalnum() and text[end + 1].isalnum()):
        end = text.rfind(" ", 1, end)
    return text[:end] if end > 0 else text


def alike(encoding: Any, read: Any, text: Any) -> bool:
    """Whether the encoding of a beginning that was read, truncated longest first, is that of the whole text or pair."""
    if read == text:
        return True
    if isinstance(text, str) or not encoding.overflowing:
        return bool(encoding.overflowing)
    counts = [encoding.sequence_ids.count(place) for place in (0, 1)]
    shorter = counts.index(min(counts))
    whole: bool = read[shorter] == text[shorter]
    return whole and counts[shorter] < sum(counts) // 2  # the other one alone was cut, here and there


def _splits_at_spaces(tokenizer: Any) -> bool:
    splitter, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    kinds = ((normalizer, NORMALIZERS), (splitter, SPLITTERS), (tokenizer.model, MODELS))
    if any(type(part).__name__ not in known for part, known in kinds):
        return False
    added = tokenizer.get_added_tokens_decoder().values()
    return getattr(splitter, "use_regex", True) and not any(
        (token.normalized and normalizer is not None) or len(token.content.split()) != 1 for token in added
    )
