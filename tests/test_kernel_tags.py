"""Decoding of tags against NumPy and against a search over all sequences, and their errors."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.core.tasks import token_classification as task
from headway.core.tasks.token_classification import Grammar
from headway.cpp_ext import stretch_chances, tags
from tests.tolerance import TOLERANCE

BIO = ("B-x", "B-y", "I-x", "I-y", "O")
BIOES = (*BIO, "E-x", "E-y", "S-x", "S-y")
SCHEMES = {"bio": BIO, "bioes": BIOES}

seeds = st.integers(0, 2**32 - 1)
sizes = st.lists(st.integers(0, 12), max_size=5)


def rules_of(grammar: Grammar) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    return grammar.follows, grammar.begins, grammar.ends


def texts_of(lengths: list[int], classes: int, seed: int, ties: bool) -> tuple[Any, Any]:
    """Scores (W, C), of few different values if there shall be ties, and offsets (B + 1)."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(sum(lengths), classes))
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return (np.rint(scores) if ties else scores).astype(np.float32), offsets


def is_allowed(said: list[str], scheme: str) -> bool:
    """By the definition of the schemes, tag by tag."""
    for before, after in pairwise(["O", *said, "O"]):
        inside = after[:2] in ("I-", "E-")
        if inside and (before[:2] not in ("B-", "I-") or before[2:] != after[2:]):
            return False
        if scheme == "bioes" and before[:2] in ("B-", "I-") and not inside:
            return False
    return True


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_grammar_is_the_schemes(scheme: str) -> None:
    labels = SCHEMES[scheme]
    rules = task.grammar(labels, scheme)
    for length in (1, 2, 3):
        for said in product(range(len(labels)), repeat=length):
            steps = all(rules.follows[a, b] for a, b in pairwise(said))
            allowed = bool(rules.begins[said[0]] and steps and rules.ends[said[-1]])
            assert allowed == is_allowed([labels[tag] for tag in said], scheme), said


def test_a_label_without_its_first_tag_may_begin_with_any() -> None:
    rules = task.grammar(("I-x", "O"), "bio")
    assert rules.follows.all()
    assert rules.begins.all()


@pytest.mark.parametrize("scheme", SCHEMES)
@given(lengths=sizes, seed=seeds, ties=st.booleans())
def test_tags_are_those_of_the_plain_way(scheme: str, lengths: list[int], seed: int, ties: bool) -> None:
    labels = SCHEMES[scheme]
    rules = task.grammar(labels, scheme)
    scores, offsets = texts_of(lengths, len(labels), seed, ties)
    found = tags(scores, offsets, *rules_of(rules))
    for begin, end in pairwise(offsets.tolist()):
        own = found[begin:end]
        np.testing.assert_array_equal(own, task.best_tags(scores[begin:end].astype(np.float64), rules))
        assert is_allowed([labels[tag] for tag in own], scheme)
        alone = tags(scores[begin:end], np.array([0, end - begin]), *rules_of(rules))
        np.testing.assert_array_equal(alone, own)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(length=st.integers(1, 4), seed=seeds, ties=st.booleans())
def test_no_allowed_sequence_is_better(scheme: str, length: int, seed: int, ties: bool) -> None:
    labels = SCHEMES[scheme][:5] if scheme == "bio" else ("B-x", "E-x", "I-x", "O", "S-x")
    rules = task.grammar(labels, scheme)
    scores, offsets = texts_of([length], len(labels), seed, ties)
    found = tags(scores, offsets, *rules_of(rules))

    def total(said: Any) -> float:
        return float(scores[np.arange(length), list(said)].astype(np.float64).sum())

    allowed = (s for s in product(range(5), repeat=length) if is_allowed([labels[t] for t in s], scheme))
    assert total(found) == pytest.approx(max(map(total, allowed)), *TOLERANCE["float32"])


@pytest.mark.parametrize("scheme", SCHEMES)
@given(lengths=sizes, seed=seeds, ties=st.booleans())
def test_what_is_allowed_already_stays(scheme: str, lengths: list[int], seed: int, ties: bool) -> None:
    """Bit for bit: sums that round alike change nothing."""
    labels = SCHEMES[scheme]
    rules = task.grammar(labels, scheme)
    scores, offsets = texts_of(lengths, len(labels), seed, ties)
    best = scores.argmax(1)
    said = tags(scores, offsets, *rules_of(rules))  # an allowed sequence, to be made each word's best
    scores[np.arange(len(said)), said] = scores.max(1, initial=-np.inf) + np.float32(0 if ties else 1e-3)
    again = tags(scores, offsets, *rules_of(rules))
    for begin, end in pairwise(offsets.tolist()):
        best = scores[begin:end].argmax(1)
        if is_allowed([labels[tag] for tag in best], scheme):
            np.testing.assert_array_equal(again[begin:end], best)


def test_a_certain_word_is_kept_and_one_without_any_allowed_tag_is_best_alone() -> None:
    rules = task.grammar(BIO, "bio")
    scores = np.full((3, 5), -np.inf, np.float32)
    scores[:, 4] = scores[1, 2] = 0  # O, I-x or O, O
    assert tags(scores, np.array([0, 3]), *rules_of(rules)).tolist() == [4, 4, 4]
    scores[1, 4] = -np.inf  # now nothing is allowed
    assert tags(scores, np.array([0, 3]), *rules_of(rules)).tolist() == [4, 2, 4]
    chosen = np.array([4, 2, 4], np.int32)
    chance = stretch_chances(
        scores, np.array([0, 3]), *rules_of(rules), rules.continues, chosen, stretch(1, 2)
    )
    assert chance.tolist() == [0.0]


def stretch(first: int, after: int) -> NDArray[np.int64]:
    return np.array([[first, after]])


@pytest.mark.parametrize("scheme", SCHEMES)
@given(length=st.integers(1, 5), seed=seeds, data=st.data())
def test_an_entitys_chance_is_its_share_of_all_allowed_sequences(
    scheme: str, length: int, seed: int, data: st.DataObject
) -> None:
    labels = BIO if scheme == "bio" else ("B-x", "E-x", "I-x", "O", "S-x")
    rules = task.grammar(labels, scheme)
    scores, offsets = texts_of([length], len(labels), seed, ties=False)
    chosen = tags(scores, offsets, *rules_of(rules))
    first = data.draw(st.integers(0, length - 1))
    after = data.draw(st.integers(first + 1, length))
    own = chosen[first:after].tolist()
    share, whole = 0.0, 0.0
    for said in product(range(5), repeat=length):
        if not is_allowed([labels[t] for t in said], scheme):
            continue
        weight = float(np.exp(scores[np.arange(length), list(said)].astype(np.float64).sum()))
        whole += weight
        goes_on = after < length and rules.continues[said[after - 1], said[after]]
        share += weight if list(said[first:after]) == own and not goes_on else 0.0
    found = stretch_chances(scores, offsets, *rules_of(rules), rules.continues, chosen, stretch(first, after))
    assert found[0] == pytest.approx(share / whole, *TOLERANCE["float32"])


def test_errors() -> None:
    rules = task.grammar(BIO, "bio")
    scores = np.zeros((4, 5), np.float32)
    offsets = np.array([0, 2, 4])
    chosen = np.full(4, 4, np.int32)

    def chances(stretches: Any, said: Any = chosen) -> Any:
        return stretch_chances(scores, offsets, *rules_of(rules), rules.continues, said, np.array(stretches))

    with pytest.raises(ValueError, match="offsets end at 2, but there are 4"):
        tags(scores, offsets[:2], *rules_of(rules))
    with pytest.raises(ValueError, match="words have 3 scores, but there are 5 tags"):
        tags(np.zeros((4, 3), np.float32), offsets, *rules_of(rules))
    with pytest.raises(ValueError, match="follows must have a row and a column per tag"):
        tags(scores, offsets, rules.follows[:4], rules.begins, rules.ends)
    with pytest.raises(ValueError, match="begins and ends must have one entry per tag"):
        tags(scores, offsets, rules.follows, rules.begins, rules.ends[:4])
    with pytest.raises(ValueError, match="stretches must have two columns"):
        chances([[0, 1, 2]])
    for wrong in ([[1, 3]], [[1, 1]], [[2, 3], [0, 1]], [[3, 5]], [[-1, 1]]):
        with pytest.raises(ValueError, match="not in order in one text"):
            chances(wrong)
    with pytest.raises(ValueError, match="there are 3 tags for 4 words"):
        chances([[0, 1]], chosen[:3])
    with pytest.raises(ValueError, match="word 0 has tag 5: it must be 0 to 4"):
        chances([[0, 1]], chosen + 1)
    for value in (np.nan, np.inf):
        scores[3, 1] = value
        with pytest.raises(ValueError, match=r"word 3 of 4 holds NaN or \+inf"):
            tags(scores, offsets, *rules_of(rules))
    with pytest.raises(TypeError):
        tags(scores.astype(np.float64), offsets, *rules_of(rules))
