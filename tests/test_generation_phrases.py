"""Phrases that must come: every text contains them, whatever the settings; tokens and scores of transformers 4.52."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from headway.core.errors import UsageError
from headway.core.search import Search
from headway.runtime.generation.search import search
from tests.test_generation_search import WORDS, Table, TableEngine, settled
from tests.tolerance import MODEL

END = 2
ANSWERS: list[tuple[int, dict[str, Any], list[list[int]], list[float]]] = [
    (
        24,
        {
            "max_new_tokens": 9,
            "num_beams": 4,
            "num_return_sequences": 3,
            "length_penalty": 1.0,
            "early_stopping": False,
            "force_words_ids": [[6]],
        },
        [[11, 6, 6, 6, 6, 6, 6, 6, 6], [11, 11, 0, 6, 6, 8, 5, 3, 12], [11, 11, 0, 6, 6, 8, 5, 3, 10]],
        [-0.6317379, -0.7095031, -0.7154667],
    ),
    (
        49,
        {
            "max_new_tokens": 9,
            "num_beams": 4,
            "num_return_sequences": 4,
            "length_penalty": 0.0,
            "early_stopping": True,
            "force_words_ids": [[6, 7]],
        },
        [
            [11, 6, 7, 7, 10, 10, 12, 2],
            [11, 6, 7, 7, 10, 10, 12, 8, 2],
            [11, 6, 7, 7, 10, 10, 12, 0, 2],
            [11, 6, 7, 7, 10, 10, 12, 0, 12],
        ],
        [-6.4883919, -6.7079172, -6.8741121, -7.2480917],
    ),
    (
        270,
        {
            "max_new_tokens": 11,
            "num_beams": 5,
            "num_return_sequences": 2,
            "length_penalty": 1.0,
            "early_stopping": False,
            "force_words_ids": [[3, 11], [4, 9, 5]],
        },
        [[8, 4, 9, 5, 8, 1, 7, 7, 6, 3, 11], [8, 4, 9, 5, 8, 1, 7, 7, 7, 3, 11]],
        [-1.5816423, -2.2266946],
    ),
    (
        31,
        {
            "max_new_tokens": 11,
            "num_beams": 4,
            "num_return_sequences": 4,
            "length_penalty": 0.0,
            "early_stopping": True,
            "force_words_ids": [[[7, 6], [10], [11, 5, 3]], [8]],
        },
        [
            [8, 12, 10, 11, 2],
            [8, 12, 9, 9, 10, 4, 10, 11, 2],
            [8, 12, 9, 9, 10, 4, 10, 9, 10, 4, 8],
            [8, 12, 9, 9, 10, 4, 12, 9, 1, 3, 12],
        ],
        [-5.8527832, -8.7652893, -9.7962322, -10.1700993],
    ),
    (
        4,
        {
            "max_new_tokens": 9,
            "num_beams": 5,
            "num_return_sequences": 2,
            "length_penalty": 0.0,
            "early_stopping": True,
            "force_words_ids": [[7]],
        },
        [[0, 11, 7, 3, 2], [9, 3, 9, 3, 7, 3, 6, 5, 5]],
        [-4.9023075, -6.6660643],
    ),
    (
        35,
        {
            "max_new_tokens": 9,
            "num_beams": 2,
            "num_return_sequences": 2,
            "length_penalty": 2.0,
            "early_stopping": "never",
            "force_words_ids": [[[3, 6], [9], [4, 5, 7]], [11]],
        },
        [[9, 11, 8, 1, 7, 9, 1, 5, 9], [9, 11, 8, 1, 7, 9, 1, 8, 9]],
        [-0.1459079, -0.1479709],
    ),
    (
        51,
        {
            "max_new_tokens": 7,
            "num_beams": 2,
            "num_return_sequences": 2,
            "length_penalty": 1.0,
            "early_stopping": False,
            "force_words_ids": [[[10, 4], [9], [5, 7, 11]], [12]],
        },
        [[12, 9, 1, 0, 10, 4, 3], [12, 9, 1, 0, 10, 1, 3]],
        [-1.1182526, -1.1225663],
    ),
    (
        239,
        {
            "max_new_tokens": 10,
            "num_beams": 5,
            "num_return_sequences": 2,
            "length_penalty": 2.0,
            "early_stopping": "never",
            "force_words_ids": [[[3, 6], [7], [4, 9, 11]], [10]],
        },
        [[10, 4, 8, 6, 7, 3, 8, 5, 6, 4], [10, 4, 8, 6, 7, 3, 8, 3, 6, 4]],
        [-0.0710427, -0.0899858],
    ),
]
"""a table's seed, settings, and the tokens and scores that transformers 4.52.4 writes after the prompt [1]"""


@pytest.mark.parametrize(("seed", "settings", "tokens", "scores"), ANSWERS)
def test_answers_of_transformers(
    seed: int, settings: dict[str, Any], tokens: list[list[int]], scores: list[float]
) -> None:
    own = Search(eos_token_id=[END]).changed(**settings)
    (found,) = search(TableEngine(Table(seed)), [[1]], own, str)
    assert [h.tokens for h in found] == tokens
    rtol, atol = MODEL["fp32"]
    np.testing.assert_allclose([h.score for h in found], scores, rtol=rtol, atol=atol)


@st.composite
def wanted(draw: Any) -> list[Any]:
    """Phrases of other tokens each, some with alternatives."""
    tokens = draw(st.permutations(range(3, WORDS)))
    found: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        first, tokens = tokens[: draw(st.integers(1, 3))], tokens[3:]
        other = draw(st.lists(st.integers(0, WORDS - 1).filter(lambda t: t != END), min_size=1, max_size=3))
        found.append([first, other] if draw(st.booleans()) and first[0] != other[0] else first)
    return found


def contains(tokens: list[int], phrase: list[Any]) -> bool:
    parts = phrase if isinstance(phrase[0], list) else [phrase]
    text = "," + ",".join(map(str, tokens)) + ","
    return any("," + ",".join(map(str, part)) + "," in text for part in parts)


@profile(max_examples=150)
@given(st.integers(0, 10**6), wanted(), st.integers(2, 5), st.integers(9, 14), st.booleans())
def test_every_text_contains_them(seed: int, phrases: list[Any], beams: int, new: int, early: bool) -> None:
    own = Search(
        max_new_tokens=new,
        num_beams=beams,
        num_return_sequences=beams,
        early_stopping=early,
        eos_token_id=[END],
        force_words_ids=phrases,
    )
    prompts, machine = [[1], [4, 3], [5, 5, 5]], TableEngine(Table(seed))
    together = search(machine, prompts, own, str)
    for prompt, hypotheses in zip(prompts, together, strict=True):
        assert hypotheses
        for h in hypotheses:
            assert h.complete
            assert all(contains(h.tokens, phrase) for phrase in phrases)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        assert search(machine, [prompt], own, str) == [hypotheses]
    pieces = [token for piece in settled(machine, prompts[0], own) for token in piece]
    assert pieces == together[0][0].tokens


def test_what_other_settings_forbid_is_told() -> None:
    own = Search(
        max_new_tokens=6, num_beams=3, eos_token_id=[END], force_words_ids=[[5, 6]], bad_words_ids=[[6]]
    )
    (found,) = search(TableEngine(Table(1)), [[1]], own, str)
    assert found
    assert not any(h.complete for h in found)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_beams": 1}, "are for num_beams above 1"),
        ({"do_sample": True}, "are for num_beams above 1, without do_sample"),
        ({"num_beam_groups": 2}, "are for num_beams above 1, without do_sample and groups"),
        ({"regex": "a"}, "are not for regex"),
        ({"force_words_ids": [[]]}, "holds a sequence without tokens"),
        ({"force_words_ids": [[[3], []]]}, "holds a sequence without tokens"),
        ({"force_words_ids": [[3, [4]]]}, "both tokens and sequences"),
        ({"force_words_ids": [[[3], [3, 4]]]}, r"\[3\] begins another one"),
        ({"suppress_tokens": [4]}, r"\[3, 4\] has one of suppress_tokens"),
        ({"max_new_tokens": 1}, "are 2 tokens, of 1 that may come"),
        ({"max_length": 2}, "are 2 tokens, of 1 that may come"),
        ({"force_words_ids": [[WORDS]]}, "the model has no token 13"),
    ],
)
def test_what_cannot_be_met_is_refused_before_the_first_step(settings: dict[str, Any], problem: str) -> None:
    machine = TableEngine(Table(1))
    with pytest.raises(UsageError, match=f"force_words_ids: .*{problem}"):
        own = Search(num_beams=2, eos_token_id=[END], force_words_ids=[[3, 4]]).changed(**settings)
        search(machine, [[1]], own, str)
    assert machine.ran == []
