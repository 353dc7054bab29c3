"""Greedy and beam search in numpy: clear rather than fast, equal to `generate()`, the measure for the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headway.core.errors import UsageError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.runtime.generation.batch import prompts
from headway.runtime.generation.engine import Engine
from tests.plain_rules import Bools, Floats, Ints, Rules, log_softmax

KERNEL_ONLY = ("do_sample", "num_beam_groups", "encoder_no_repeat_ngram_size")
"""settings that this search does not have"""

OUT = np.float32(-1e9)
"""added to a score, takes a beam out of the running without making it -inf"""

Found = tuple[list[int], float]
"""tokens after the prompt, end token included, and their score"""


class Greedy:
    """The search for one prompt, always by the most probable token."""

    def __init__(self, prompt: Sequence[int], settings: Search, longest: int) -> None:
        """`longest`: tokens of prompt and continuation together, at most."""
        self.settings, self.longest, self.start = settings, longest, len(prompt)
        self.rules = Rules(settings, len(prompt), longest)
        self.tokens: Ints = np.array([prompt])  # (1, T)
        self.score = 0.0
        self.done = False
        self.parents: Ints = np.zeros(1, np.int64)
        """row of the last logits that each row goes on from"""

    def advance(self, logits: Floats, allowed: Bools | None = None) -> None:
        """Choose the next token by its logits (1, V), among those allowed (1, V)."""
        scores = self.rules.apply(logits, self.tokens, allowed)
        if allowed is not None and np.isneginf(scores).all():  # the text is as long as it can be
            self.done = True
            return
        chosen = int(scores[0].argmax())
        self.score += float(log_softmax(scores)[0, chosen])
        self.tokens = np.append(self.tokens, [[chosen]], axis=1)
        self.done = chosen in self.settings.eos_token_id or self.tokens.shape[1] >= self.longest

    def found(self) -> list[Found]:
        return [(self.tokens[0, self.start :].tolist(), self.score)]


class Beams:
    """The search for one prompt along several beams (K), as transformers 5 does it."""

    def __init__(self, prompt: Sequence[int], settings: Search, longest: int) -> None:
        """`longest`: tokens of prompt and continuation together, at most."""
        self.settings, self.longest, self.start = settings, longest, len(prompt)
        self.rules = Rules(settings, len(prompt), longest)
        beams = settings.num_beams
        self.tokens: Ints = np.tile(np.array(prompt), (beams, 1))  # (K, T)
        self.scores: Floats = np.full(beams, OUT)
        self.scores[0] = 0  # all begin alike: only the first goes on at first
        self.parents: Ints = np.arange(beams)
        self.best: list[list[int]] = [[] for _ in range(beams)]
        self.best_scores: Floats = np.full(beams, OUT)
        self.finished = np.zeros(beams, bool)  # of the best, those that have ended
        self.real = np.zeros(beams, bool)  # and those that do not go back to a beam that never began
        self.done = False

    def advance(self, logits: Floats, allowed: Bools | None = None) -> None:
        """Choose the next token of every beam by their logits (K, V), among those allowed (K, V)."""
        beams, ends = self.settings.num_beams, self.settings.eos_token_id
        scores = self.rules.apply(log_softmax(logits), self.tokens, allowed) + self.scores[:, None]
        # of so many candidates, enough for every beam do not end
        chosen = top(scores.ravel(), min(scores.size, beams * max(2, 1 + len(ends))))
        candidates = scores.ravel()[chosen]
        parents, tokens = np.divmod(chosen, scores.shape[1])
        tokens = np.append(self.tokens[parents], tokens[:, None], axis=1)  # (candidates, T + 1)
        ended = np.isin(tokens[:, -1], ends) | (tokens.shape[1] >= self.longest)
        self._keep_best(candidates, tokens, ended)
        running = candidates + np.where(ended, OUT, 0)
        going_on = top(running, beams)
        self.scores, self.tokens, self.parents = running[going_on], tokens[going_on], parents[going_on]
        self._judge(bool(ended.all()))

    def _keep_best(self, candidates: Floats, tokens: Ints, ended: Bools) -> None:
        """Put candidates that have ended among the best, if they are as likely as any that goes on."""
        beams = self.settings.num_beams
        ended = ended & (np.arange(len(ended)) < beams)
        length = tokens.shape[1] - self.start
        scores = candidates / np.float32(length**self.settings.length_penalty) + np.where(ended, 0, OUT)
        scores = np.append(self.best_scores, scores.astype(np.float32))
        every = self.best + tokens[:, self.start :].tolist()
        chosen = top(scores, beams)
        self.best, self.best_scores = [every[i] for i in chosen], scores[chosen]
        self.finished = np.append(self.finished, ended)[chosen]
        self.real = np.append(self.real, candidates > OUT / 2)[chosen]

    def _judge(self, no_way_on: bool) -> None:
        """Whether this is the end: no beam that goes on would come among the best."""
        settings, length = self.settings, self.tokens.shape[1] - self.start
        if settings.early_stopping == "never" and settings.length_penalty > 0:
            length = self.longest - self.start
        hoped = self.scores[0] / np.float32(length**settings.length_penalty)
        to_beat = self.best_scores.min() if self.finished.all() else OUT
        full = settings.early_stopping is True and bool(self.finished.all())
        self.done = no_way_on or full or bool(hoped <= to_beat)

    def found(self) -> list[Found]:
        """Best first; fewer than wanted where the settings forbid all others."""
        every = zip(self.best, self.best_scores.tolist(), self.real, strict=True)
        found = [(tokens, score) for tokens, score, real in every if real]
        return found[: self.settings.num_return_sequences]


def top(scores: Floats, count: int) -> Ints:
    """Indices of the largest scores, largest first, among equals the first."""
    least = np.partition(scores, -count)[-count]
    able = np.flatnonzero(scores >= least)
    return able[np.argsort(-scores[able], kind="stable")[:count]]


def search(
    engine: Engine, sources: Sequence[Sequence[int]], settings: Search, decode: Callable[[list[int]], str]
) -> list[list[Hypothesis]]:
    """The best continuations of each prompt, or texts for each source, best first.

    Args:
        sources: tokens of each; an encoder-decoder's for its encoder.
        decode: makes the text of a hypothesis' tokens.
    Raises:
        UsageError: a setting that does not fit the model, or that only the kernel has.
        InputError: a source without tokens, or a prompt that leaves no room.
    """
    for name in KERNEL_ONLY:
        if getattr(settings, name) != getattr(Search(), name):
            raise UsageError(name, "is not in the plain search")
    if not sources:
        return []
    running = [
        (Beams if settings.num_beams > 1 else Greedy)(prompt, settings, longest)
        for prompt, longest in prompts(engine, sources, settings)
    ]
    sentences = list(running)
    rows: Ints = np.arange(len(running))[:, None].repeat(settings.num_beams, axis=1)  # (B, K) of the logits
    decoding, logits = engine.begin(sources, settings.decoder_start_token_id or 0)
    while True:
        for sentence, own in zip(running, rows, strict=True):
            sentence.advance(logits[own])
        kept = [own[s.parents] for s, own in zip(running, rows, strict=True) if not s.done]
        running = [sentence for sentence in running if not sentence.done]
        if not running:
            break
        last = np.concatenate([sentence.tokens[:, -1:] for sentence in running])
        logits = decoding.step(last, np.concatenate(kept))
        rows = np.arange(len(last)).reshape(len(running), -1)
    return [
        [Hypothesis(decode(tokens), score, tokens) for tokens, score in sentence.found()]
        for sentence in sentences
    ]
