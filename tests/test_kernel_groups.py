"""Groups of beams in the search kernel against a plain version of them, and what the encoder's source forbids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from headway.core.search import Search
from headway.cpp_ext import Searcher
from tests.plain_rules import Rules, log_softmax
from tests.plain_search import OUT, top
from tests.test_generation_search import WORDS, Table
from tests.test_kernel_search import Asked, run
from tests.tolerance import TOLERANCE


class PlainGroups:
    """Diverse beam search in numpy, as transformers 4 does it."""

    def __init__(self, prompt: list[int], settings: Search) -> None:
        self.own, self.prompt, self.longest = settings, prompt, settings.longest(len(prompt))
        self.rules = Rules(settings, len(prompt), self.longest)
        self.size = settings.num_beams // settings.num_beam_groups
        self.groups = [
            [(0.0 if i == 0 else OUT, list(prompt)) for i in range(self.size)]
            for _ in range(settings.num_beam_groups)
        ]
        self.ended: list[list[tuple[float, list[int], bool]]] = [[] for _ in self.groups]
        self.done = [False for _ in self.groups]

    def search(self, model: Any) -> list[tuple[list[int], float]]:
        length = len(self.prompt)
        while length < self.longest and not all(self.done):
            length += 1
            chosen: list[int] = []
            for number in range(len(self.groups)):
                if self.done[number]:
                    padding = self.own.pad_token_id
                    chosen += [self.own.eos_token_id[0] if padding is None else padding] * self.size
                else:
                    self.step(model, number, chosen)
                    chosen += [tokens[-1] for _, tokens in self.groups[number]]
        for number, beams in enumerate(self.groups):
            for score, tokens in beams if not self.done[number] else []:
                self.add(number, score, tokens)
        every = [own for ended in self.ended for own in ended]
        best = sorted(every, key=lambda own: own[0])[::-1]
        found = [(tokens[len(self.prompt) :], score) for score, tokens, real in best if real]
        return found[: self.own.num_return_sequences]

    def step(self, model: Any, number: int, chosen: list[int]) -> None:
        beams, ends = self.groups[number], self.own.eos_token_id
        tokens = np.array([tokens for _, tokens in beams])
        scores = log_softmax(model.logits(tokens))
        for token in chosen:
            scores[:, token] -= np.float32(self.own.diversity_penalty)
        scores = self.rules.apply(scores, tokens) + np.array([[score] for score, _ in beams], np.float32)
        best = top(scores.ravel(), self.size * max(2, 1 + len(ends)))
        self.groups[number] = []
        for rank, place in enumerate(best.tolist()):
            beam, token = divmod(place, scores.shape[1])
            line, score = [*beams[beam][1], token], float(scores.ravel()[place])
            if token not in ends:
                self.groups[number].append((score, line))
            elif rank < self.size:
                self.add(number, score, line)
            if len(self.groups[number]) == self.size:
                break
        ended, penalty = self.ended[number], self.own.length_penalty
        hoped = len(line) - len(self.prompt)
        if self.own.early_stopping == "never" and penalty > 0:
            hoped = self.longest - len(self.prompt)
        hope = float(scores.ravel()[best[0]]) / hoped**penalty
        full = len(ended) == self.size
        self.done[number] = full and (
            self.own.early_stopping is True or min(ended, key=lambda own: own[0])[0] >= hope
        )

    def add(self, number: int, score: float, tokens: list[int]) -> None:
        ended = self.ended[number]
        own = score / (len(tokens) - len(self.prompt)) ** self.own.length_penalty
        worst = min(range(len(ended)), key=lambda i: ended[i][0], default=-1)
        if len(ended) == self.size:
            if own <= ended[worst][0]:
                return
            del ended[worst]
        ended.append((own, tokens, score > OUT / 2))


@given(st.integers(0, 10**6), st.data())
def test_groups_of_beams(seed: int, data: Any) -> None:
    groups, size = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 3))
    optional = {
        "length_penalty": st.sampled_from([-1.0, 0.0, 2.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "no_repeat_ngram_size": st.just(2),
        "repetition_penalty": st.sampled_from([0.7, 1.3]),
        "min_new_tokens": st.integers(1, 4),
        "suppress_tokens": st.lists(st.integers(1, 12), max_size=2),
        "pad_token_id": st.integers(0, 12),
        "eos_token_id": st.lists(st.integers(0, 12), min_size=1, max_size=2, unique=True),
    }
    chosen = data.draw(st.sets(st.sampled_from(sorted(optional)), max_size=4)) | {"eos_token_id"}
    own = Search(
        max_new_tokens=data.draw(st.integers(4, 9)),
        num_beams=groups * size,
        num_return_sequences=groups * size,
        num_beam_groups=groups,
        diversity_penalty=data.draw(st.sampled_from([0.0, 0.3, 2.0])),
    ).changed(**{name: data.draw(optional[name]) for name in sorted(chosen)})
    model, asked = Table(seed), Asked(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)), own)
    other = Asked([1], Search(num_beams=2, max_new_tokens=5), 2)
    found, _ = run(model, WORDS, [asked, other])
    expected = PlainGroups(asked.prompt, own).search(model)
    assert [tokens for tokens, _, _ in found] == [tokens for tokens, _ in expected]
    rtol, atol = TOLERANCE["float32"]
    np.testing.assert_allclose([score for _, score, _ in found], [s for _, s in expected], rtol, atol)


@given(st.integers(0, 10**6), st.integers(1, 3), st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=30))
def test_sequences_of_the_source_do_not_come(seed: int, size: int, source: list[int]) -> None:
    rule = transformers.EncoderNoRepeatNGramLogitsProcessor(size, torch.tensor([source]))
    table, tokens = Table(seed), [1]
    searcher = Searcher(WORDS)
    own = Search(max_new_tokens=8, encoder_no_repeat_ngram_size=size)
    key = searcher.add(np.array([1]), own, 9, 0, np.array(source))
    for _ in range(8):
        logits = table.logits(np.array([tokens]))
        tokens.append(int(rule(torch.tensor([tokens]), torch.from_numpy(logits)).argmax()))
        searcher.advance(logits)
        assert searcher.settled(key) == tokens[1:]
