"""What the settings of a search do to the scores of the next token, in the order in which `generate()` does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headway.core.search import Search

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEVER = np.float32(-np.inf)

Bools = NDArray[np.bool_]


class Rules:
    """The settings for one prompt."""

    def __init__(self, settings: Search, prompt: int, longest: int) -> None:
        """`prompt`: tokens of it; `longest`: tokens of prompt and continuation together, at most."""
        self.settings, self.longest = settings, longest
        self.shortest = settings.shortest(prompt)
        forced = settings.forced_bos_token_id is not None and prompt == 1
        self.first_free = prompt + forced  # length at which the first token is chosen that is not forced
        ends = [[token] for token in settings.eos_token_id]
        self.bad_words = [word for word in settings.bad_words_ids if word not in ends]

    def apply(self, scores: Floats, tokens: Ints, allowed: Bools | None = None) -> Floats:
        """Scores (K, V) of the next token, changed; `tokens` (K, T): prompt and what came after it."""
        settings, length = self.settings, tokens.shape[1]
        scores = scores.copy()
        if settings.repetition_penalty != 1:
            _penalize(scores, tokens, settings.repetition_penalty)
        if settings.no_repeat_ngram_size:
            _forbid_repeats(scores, tokens, settings.no_repeat_ngram_size)
        for word in self.bad_words:
            scores[_ends_with(tokens, word[:-1]), word[-1]] = NEVER
        if length < self.shortest:
            scores[:, settings.eos_token_id] = NEVER
        if allowed is not None:
            scores[~allowed] = NEVER
        if length == 1 and settings.forced_bos_token_id is not None:
            _force(scores, [settings.forced_bos_token_id])
        if length == self.longest - 1 and settings.forced_eos_token_id:
            _force(scores, settings.forced_eos_token_id)
        scores[:, settings.suppress_tokens] = NEVER
        if length == self.first_free:
            scores[:, settings.begin_suppress_tokens] = NEVER
        return log_softmax(scores) if settings.renormalize_logits else scores


class Allowed:
    """Which tokens may come, by all tokens."""

    def __init__(self, seed: int, vocabulary: int, share: float) -> None:
        self.seed, self.vocabulary, self.share = seed, vocabulary, share

    def rows(self, tokens: Sequence[Sequence[int]] | Ints) -> Bools:
        return np.stack([self.row(row) for row in tokens])

    def row(self, tokens: Sequence[int] | Ints) -> Bools:
        random = np.random.default_rng([self.seed, 1, *tokens])
        return random.random(self.vocabulary) < self.share


def packed(allowed: Bools) -> NDArray[np.uint32]:
    """Bits (R, V / 32) of what is allowed (R, V)."""
    wide = np.pad(allowed, ((0, 0), (0, -allowed.shape[1] % 32)))
    return np.packbits(wide, axis=1, bitorder="little").view(np.uint32)


def log_softmax(scores: Floats) -> Floats:
    """Log probabilities (K, V); a row without any token that may come stays so."""
    most = scores.max(axis=-1, keepdims=True)
    none = np.isneginf(most)
    shifted = scores - np.where(none, 0, most)
    logs: Floats = shifted - np.log(np.where(none, 1, np.exp(shifted).sum(axis=-1, keepdims=True)))
    return logs


def _penalize(scores: Floats, tokens: Ints, penalty: float) -> None:
    """Make the tokens that are there less likely; a score may be of either sign (Keskar et al. 2019)."""
    for row, seen in zip(scores, tokens, strict=True):
        found = np.unique(seen)
        row[found] = np.where(row[found] < 0, row[found] * penalty, row[found] / penalty)


def _forbid_repeats(scores: Floats, tokens: Ints, size: int) -> None:
    """No token that would make a sequence of this size come again."""
    if tokens.shape[1] < size:
        return
    for row, seen in zip(scores, tokens, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(seen, size)
        last = seen[len(seen) - size + 1 :]
        row[windows[(windows[:, :-1] == last).all(axis=1), -1]] = NEVER


def _ends_with(tokens: Ints, end: list[int]) -> NDArray[np.bool_]:
    """For each row (K, T) whether it ends so."""
    if len(end) > tokens.shape[1]:
        return np.zeros(len(tokens), bool)
    matches: NDArray[np.bool_] = (tokens[:, tokens.shape[1] - len(end) :] == end).all(axis=1)
    return matches


def _force(scores: Floats, chosen: list[int]) -> None:
    scores[:] = NEVER
    scores[:, chosen] = 0
