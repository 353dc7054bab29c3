"""Drawing of tokens in the search kernel: probabilities of transformers, frequencies, reproducible samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from headway.core.search import Search
from headway.cpp_ext import Searcher
from tests.plain_rules import log_softmax
from tests.test_kernel_search import Asked, Wide, enter, run
from tests.tolerance import TOLERANCE


def warped(logits: Any, own: Search) -> Any:
    """What transformers makes of scores (V) where tokens are drawn, without the logarithm's constant."""
    least = 1 if own.num_beams == 1 else 1 + len(own.eos_token_id)
    scores, nothing = torch.from_numpy(logits)[None], torch.zeros(1, 1, dtype=torch.int64)
    warpers: list[Any] = [transformers.TemperatureLogitsWarper(own.temperature)]
    if own.top_k:
        warpers.append(transformers.TopKLogitsWarper(own.top_k, min_tokens_to_keep=least))
    if own.top_p < 1:
        warpers.append(transformers.TopPLogitsWarper(own.top_p, min_tokens_to_keep=least))
    if own.min_p:
        warpers.append(transformers.MinPLogitsWarper(own.min_p, min_tokens_to_keep=least))
    if own.typical_p < 1:
        warpers.append(transformers.TypicalLogitsWarper(own.typical_p, min_tokens_to_keep=least))
    for warper in warpers:
        scores = warper(nothing, scores)
    if own.num_beams == 1 or own.renormalize_logits:
        scores = torch.log_softmax(scores, dim=-1)
    return scores[0].numpy()


@st.composite
def drawing(draw: Any) -> Search:
    return Search(
        do_sample=True,
        seed=draw(st.integers(0, 2**64 - 1)),
        num_beams=draw(st.sampled_from([1, 1, 3])),
        max_new_tokens=draw(st.integers(1, 3)),
        temperature=draw(st.sampled_from([1.0, 0.3, 2.5])),
        top_k=draw(st.sampled_from([0, 1, 7, 50])),
        top_p=draw(st.sampled_from([1.0, 0.93, 0.4])),
        min_p=draw(st.sampled_from([0.0, 0.013, 0.3])),
        typical_p=draw(st.sampled_from([1.0, 0.91, 0.35])),
        renormalize_logits=draw(st.booleans()),
        eos_token_id=draw(st.sampled_from([[], [3], [3, 4]])),
        num_return_sequences=3,
    )


@given(st.integers(0, 10**6), st.sampled_from([13, 60, 1000]), drawing())
def test_probabilities_are_those_of_transformers(seed: int, vocabulary: int, own: Search) -> None:
    """Of every token that was drawn; and one that may not come never is."""
    model = Wide(seed, vocabulary)
    rtol, atol = TOLERANCE["float32"]
    for tokens, score, logs in run(model, vocabulary, [Asked([1], own)])[0]:
        for place, (token, log) in enumerate(zip(tokens, logs, strict=True)):
            logits = model.logits(np.array([[1, *tokens[:place]]]))
            scores = (log_softmax(logits) if own.num_beams > 1 else logits)[0]
            np.testing.assert_allclose(log, warped(scores, own)[token], 10 * rtol, 10 * atol)
        np.testing.assert_allclose(sum(logs) / (len(logs) if own.num_beams > 1 else 1), score, rtol, atol)


@pytest.mark.parametrize("own", [{}, {"top_k": 4}, {"top_p": 0.8, "top_k": 0}, {"temperature": 0.5}])
def test_frequencies_are_the_probabilities(own: dict[str, Any]) -> None:
    settings = Search(do_sample=True, max_new_tokens=1, num_return_sequences=20_000).changed(**own)
    logits = Wide(5, 13).logits(np.array([[1]]))
    searcher = Searcher(13)
    key = enter(searcher, Asked([1], settings))
    searcher.advance(logits)
    drawn = np.array([tokens[0] for tokens, _, _ in searcher.found(key)])
    counts, chances = np.bincount(drawn, minlength=13), np.exp(warped(logits[0], settings))
    assert_frequencies(counts, chances)


def assert_frequencies(counts: Any, chances: Any) -> None:
    """Within 4 standard deviations."""
    number = counts.sum()
    assert (np.abs(counts - number * chances) <= 4 * np.sqrt(number * chances * (1 - chances)) + 1e-9).all()


def test_beams_are_drawn_without_replacement() -> None:
    logits = np.array([[0.0, 1.0, 2.0, 0.5]], np.float32)
    chances = np.exp(log_softmax(logits))[0]
    searcher = Searcher(4)
    keys = [
        enter(
            searcher,
            Asked(
                [1], Search(do_sample=True, num_beams=2, num_return_sequences=2, max_new_tokens=1, seed=seed)
            ),
        )
        for seed in range(20_000)
    ]
    searcher.advance(np.repeat(logits, len(keys), axis=0))
    counts = np.zeros((4, 4))
    for key in keys:
        one, other = sorted(tokens[0] for tokens, _, _ in searcher.found(key))
        counts[one, other] += 1
    pairs = np.outer(chances, chances) / (1 - chances)[:, None]  # first the row's, then the column's
    assert_frequencies(counts, np.triu(pairs + pairs.T, 1))


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    model = Wide(8, 300)
    own = Search(do_sample=True, max_new_tokens=6, num_return_sequences=3, eos_token_id=[4, 5, 6], seed=7)
    beams = own.changed(num_beams=3)
    for settings in (own, beams):
        (alone,) = run(model, 300, [Asked([1], settings)])
        asked = [
            Asked([2], own),
            Asked([3], beams),
            Asked([1], settings, 3),
            Asked([1], settings.changed(seed=8), 3),
        ]
        *_, together, differing = run(model, 300, asked)
        assert together == alone
        assert differing != alone
