"""The search kernel against the plain search: any settings, sentences that enter at any time, ties, any vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from headway.core.search import Search
from headway.cpp_ext import Searcher, level, levels, set_level
from tests.plain_rules import Allowed, packed
from tests.plain_search import Beams, Greedy
from tests.test_generation_search import WORDS, Table, any_settings
from tests.tolerance import TOLERANCE

Found = list[tuple[list[int], float, list[float]]]


class Wide:
    """Scores of the next token by all tokens, for any vocabulary."""

    def __init__(self, seed: int, vocabulary: int, ties: bool = False) -> None:
        self.seed, self.vocabulary, self.ties = seed, vocabulary, ties

    def logits(self, tokens: Any) -> Any:
        return np.stack([self.row(row.tolist()) for row in tokens])

    def row(self, tokens: list[int]) -> Any:
        random = np.random.default_rng([self.seed, *tokens])
        if not self.ties:
            found = random.normal(0, 2, self.vocabulary)
            found[random.random(self.vocabulary) < 0.2] = -np.inf
            return found.astype(np.float32)
        # exp() of all but the greatest is 0, so that sums and log probabilities have no rounding at all
        found = random.choice([-128.0, -256.0, -384.0, -np.inf], self.vocabulary)
        found[random.integers(self.vocabulary)] = 0
        return found.astype(np.float32)


@dataclass
class Asked:
    """A sentence, and the step at which it enters."""

    prompt: list[int]
    settings: Search
    step: int = 0


def run(model: Any, vocabulary: int, asked: list[Asked], allowed: Allowed | None = None) -> list[Found]:
    """What the kernel finds; the tokens of its rows are followed from outside, as an engine's cache would."""
    searcher = Searcher(vocabulary)
    held: list[list[int]] = []  # tokens of each row
    places: dict[int, int] = {}
    found: list[Found] = [[] for _ in asked]
    settled: list[list[int]] = [[] for _ in asked]
    step = 0
    while held or step <= max(sentence.step for sentence in asked):
        for place, sentence in enumerate(asked):
            if sentence.step == step:
                places[enter(searcher, sentence)] = place
                held.append(sentence.prompt)
        assert searcher.rows == len(held)
        if held:
            logits = np.concatenate([model.logits(np.array([row])) for row in held])
            before = logits.copy()
            searcher.advance(logits, allowed and packed(allowed.rows(held)))
            np.testing.assert_array_equal(logits, before)
        for key, place in places.items():
            now = searcher.settled(key)
            nothing = key in searcher.finished and not searcher.found(key)  # all was forbidden at last
            assert nothing or now[: len(settled[place])] == settled[place], "what was sent is taken back"
            settled[place] = now
        for key in searcher.finished:
            place = places.pop(key)
            found[place] = searcher.found(key)
            assert settled[place] == (found[place][0][0] if found[place] else [])
            searcher.drop(key)
        tokens, parents = searcher.tokens.tolist(), searcher.parents.tolist()
        held = [[*held[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        step += 1
    return found


def enter(searcher: Searcher, sentence: Asked) -> int:
    prompt, own = sentence.prompt, sentence.settings
    return searcher.add(np.array(prompt), own, own.longest(len(prompt)), own.shortest(len(prompt)))


def plain(model: Any, sentence: Asked, allowed: Allowed | None = None) -> list[tuple[list[int], float]]:
    prompt, own = sentence.prompt, sentence.settings
    searched = (Beams if own.num_beams > 1 else Greedy)(prompt, own, own.longest(len(prompt)))
    while not searched.done:
        searched.advance(model.logits(searched.tokens), allowed and allowed.rows(searched.tokens))
    return searched.found()


def assert_equal(model: Any, vocabulary: int, asked: list[Asked], allowed: Allowed | None = None) -> None:
    rtol, atol = TOLERANCE["float32"]
    for sentence, found in zip(asked, run(model, vocabulary, asked, allowed), strict=True):
        own = sentence.settings
        expected = plain(model, sentence, allowed)
        assert [tokens for tokens, _, _ in found] == [tokens for tokens, _ in expected]
        np.testing.assert_allclose([score for _, score, _ in found], [s for _, s in expected], rtol, atol)
        for tokens, score, logs in found:
            assert len(logs) == len(tokens)
            length = len(tokens) ** own.length_penalty if own.num_beams > 1 else 1
            np.testing.assert_allclose(sum(logs) / length, score, rtol, atol)


@st.composite
def sentences(draw: Any) -> list[Asked]:
    """Some, each with its own settings."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        given = {n: v for n, v in draw(any_settings()).items() if n != "pad_token_id"}
        prompt = draw(st.lists(st.integers(1, WORDS - 1), min_size=1, max_size=4))
        found.append(Asked(prompt, Search().changed(**given), draw(st.integers(0, 6))))
    return found


@profile(max_examples=150)
@given(st.integers(0, 10**6), sentences(), st.sampled_from(levels()))
def test_any_settings(seed: int, asked: list[Asked], simd: str) -> None:
    fastest = level()
    set_level(simd)
    try:
        assert_equal(Table(seed), WORDS, asked)
    finally:
        set_level(fastest)


@given(st.integers(0, 10**6), sentences(), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from(levels()))
def test_only_what_is_allowed(seed: int, asked: list[Asked], share: float, simd: str) -> None:
    fastest = level()
    set_level(simd)
    try:
        assert_equal(Table(seed), WORDS, asked, Allowed(seed, WORDS, share))
    finally:
        set_level(fastest)


@st.composite
def wide(draw: Any) -> tuple[int, list[Asked]]:
    """A vocabulary, and sentences with settings of theirs."""
    vocabulary = draw(st.sampled_from([5, 16, 17, 511, 513, 1000]))
    token = st.integers(0, vocabulary - 1)
    few = st.lists(token, max_size=3)
    found = []
    for _ in range(draw(st.integers(1, 3))):
        own = Search(
            max_new_tokens=draw(st.integers(1, 8)),
            num_beams=draw(st.integers(1, 5)),
            eos_token_id=draw(few),
            suppress_tokens=draw(few),
            bad_words_ids=[[word] for word in draw(few)],
            repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
            renormalize_logits=draw(st.booleans()),
            early_stopping=draw(st.sampled_from([True, False, "never"])),
        )
        own = own.changed(num_return_sequences=own.num_beams)
        found.append(Asked(draw(st.lists(token, min_size=1, max_size=4)), own, draw(st.integers(0, 4))))
    return vocabulary, found


@given(st.integers(0, 10**6), wide(), st.booleans(), st.sampled_from([None, 0.05, 0.5]))
def test_any_vocabulary(seed: int, asked: tuple[int, list[Asked]], ties: bool, share: float | None) -> None:
    """With tokens that may not come, and with equal scores, of which the first is taken."""
    vocabulary, sentences = asked
    allowed = None if share is None else Allowed(seed, vocabulary, share)
    assert_equal(Wide(seed, vocabulary, ties), vocabulary, sentences, allowed)


@pytest.mark.parametrize(
    "own", [{"num_beams": 4, "num_beam_groups": 2}, {"do_sample": True, "num_return_sequences": 3}]
)
def test_what_is_not_allowed_never_comes(own: dict[str, Any]) -> None:
    """Where there is no plain search: every token of every hypothesis is one that its own bits allow."""
    allowed = Allowed(3, 700, 0.02)
    asked = [Asked([seed], Search(max_new_tokens=8, eos_token_id=[3]).changed(**own)) for seed in range(5)]
    for sentence, found in zip(asked, run(Wide(4, 700), 700, asked, allowed), strict=True):
        assert found
        for tokens, _, _ in found:
            for place, token in enumerate(tokens):
                assert allowed.row([*sentence.prompt, *tokens[:place]])[token]


@pytest.mark.parametrize("ties", [False, True])
def test_a_large_vocabulary(ties: bool) -> None:
    settings = [{}, {"num_beams": 4, "no_repeat_ngram_size": 2}, {"num_beams": 8, "eos_token_id": [3]}]
    asked = [Asked([7], Search(max_new_tokens=6).changed(**own)) for own in settings]
    assert_equal(Wide(1, 50_000, ties), 50_000, asked)


def test_beams_stay_in_the_rows_of_their_parents() -> None:
    model, own = Wide(2, 200), Search(num_beams=6, max_new_tokens=30)
    searcher = Searcher(200)
    enter(searcher, Asked([1], own))
    held = [[1]]
    moved = 0
    for step in range(29):
        searcher.advance(np.concatenate([model.logits(np.array([row])) for row in held]))
        tokens, parents = searcher.tokens.tolist(), searcher.parents.tolist()
        if step:
            assert all(parents[parent] == parent for parent in parents)
            moved += sum(row != parent for row, parent in enumerate(parents))
        held = [[*held[parent], token] for parent, token in zip(parents, tokens, strict=True)]
    assert 0 < moved < 6 * 28 / 2


@pytest.mark.parametrize("beams", [1, 3])
def test_bad_logits_are_refused_and_change_nothing(beams: int) -> None:
    searcher = Searcher(40)
    key = enter(searcher, Asked([1], Search(num_beams=beams, max_new_tokens=2)))
    good = Wide(3, 40).logits(np.array([[1]]))
    for place in (0, 15, 39):
        for value, name in ((np.nan, "NaN"), (np.inf, r"\+inf")):
            bad = good.copy()
            bad[0, place] = value
            with pytest.raises(ValueError, match=f"row 0 of 1 holds {name}"):
                searcher.advance(bad)
    with pytest.raises(ValueError, match=r"logits are \(2, 40\), not \(1, 40\)"):
        searcher.advance(np.repeat(good, 2, axis=0))
    with pytest.raises(TypeError):
        searcher.advance(good.astype(np.float64))
    with pytest.raises(ValueError, match=r"allowed is \(1, 1\), not \(1, 2\)"):
        searcher.advance(good, np.zeros((1, 1), np.uint32))
    assert searcher.found(key) == []
    searcher.advance(good)
    assert good.argmax() in searcher.tokens
    searcher.advance(np.repeat(good, beams, axis=0))
    assert searcher.finished == [key]
    assert searcher.rows == 0
    searcher.drop(key)
    with pytest.raises(IndexError):
        searcher.found(key)


def test_a_sentence_without_a_token_that_may_come() -> None:
    """Greedy search takes the first, as generate() does; beams find nothing."""
    nothing = np.full((1, 4), -np.inf, np.float32)
    searcher = Searcher(4)
    greedy, beams = (enter(searcher, Asked([1], Search(num_beams=n, max_new_tokens=1))) for n in (1, 2))
    searcher.advance(np.repeat(nothing, 2, axis=0))
    assert searcher.found(greedy) == [([0], -np.inf, [-np.inf])]
    assert searcher.found(beams) == []


@given(data=st.data(), seed=st.integers(0, 99), steps=st.integers(1, 6))
def test_to_end_a_sentence_is_to_reach_its_longest(data: Any, seed: int, steps: int) -> None:
    how = data.draw(
        st.sampled_from(
            [
                {},
                {"num_beams": 3, "num_return_sequences": 3},
                {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
                {"do_sample": True, "num_return_sequences": 3},
                {"num_beams": 3, "force_words_ids": [[4]]},
            ]
        )
    )
    own = Search(eos_token_id=[2], max_new_tokens=60, **how)
    model, found = Table(seed), []
    for settings, ended in ((own, True), (own.changed(max_new_tokens=steps), False)):
        searcher, held = Searcher(WORDS), [[5, 3]]
        key = enter(searcher, Asked([5, 3], settings))
        for _ in range(steps):
            if held:
                searcher.advance(np.concatenate([model.logits(np.array([row])) for row in held]))
                tokens = searcher.tokens.tolist()
                held = [[*held[p], t] for p, t in zip(searcher.parents.tolist(), tokens, strict=True)]
        if ended:
            searcher.end(key)
        assert (searcher.rows, len(searcher.tokens)) == (0, 0)
        found.append(searcher.found(key))
    assert found[0] == found[1]
