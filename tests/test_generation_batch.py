"""Sentences that enter at any step and leave: each is what it is alone; those that are cancelled disturb nobody."""

from typing import Any

import pytest

from headway.core.errors import UnavailableError, UsageError
from headway.core.search import Search
from headway.runtime.generation.batch import Batch
from headway.runtime.generation.search import search
from tests.test_generation_graphs import END, SOURCES, START, engine

WANTED = [
    {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 9},
    {"max_new_tokens": 4},
    {"num_beams": 4, "max_new_tokens": 7, "length_penalty": 0.5},
    {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 6, "seed": 5},
]


def settings(**given: Any) -> Search:
    return Search(**given, decoder_start_token_id=START, eos_token_id=[END])


def no_text(_: list[int]) -> str:
    return ""


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "opt"])
def test_sentences_enter_at_any_step(name: str, every: int) -> None:
    asked = [(source, settings(**own)) for source, own in zip(SOURCES, WANTED, strict=True)]
    batch, keys, ended = Batch(engine(name)), [], []
    for step in range(40):
        if step % every == 0 and asked[step // every :]:
            source, own = asked[step // every]
            keys += batch.add([source], own)
        ended += batch.step()
    assert sorted(ended) == keys
    assert len(batch) == 0
    for key, (source, own) in zip(keys, asked, strict=True):
        (alone,) = search(engine(name), [source], own, no_text)
        found = batch.found(key, no_text)
        assert [h.tokens for h in found] == [h.tokens for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone], abs=1e-4)
        assert batch.settled(key) == alone[0].tokens


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_to_cancel_disturbs_nobody(name: str) -> None:
    own = settings(num_beams=3, max_new_tokens=12, min_new_tokens=12)
    batch = Batch(engine(name))
    first, second, third = batch.add(SOURCES[:3], own)
    batch.step()
    (late,) = batch.add(SOURCES[3:], own)
    batch.drop(first)
    batch.drop(late)
    batch.step()  # after which they are left out
    batch.step()
    assert batch._decoding is not None
    assert len(batch._decoding) == 6
    while len(batch):
        batch.step()
    for key, source in ((second, SOURCES[1]), (third, SOURCES[2])):
        (alone,) = search(engine(name), [source], own, no_text)
        assert batch.found(key, no_text)[0].tokens == alone[0].tokens
        batch.drop(key)
    for key in (first, second, late):
        with pytest.raises(UsageError, match=f"there is no finished text {key}"):
            batch.found(key, no_text)


def test_all_are_cancelled_and_the_next_is_answered() -> None:
    own = settings(num_beams=2, max_new_tokens=5)
    batch = Batch(engine("t5"))
    for key in batch.add(SOURCES[:2], own):
        batch.drop(key)
    assert batch.step() == []
    assert (batch._decoding, len(batch)) == (None, 0)
    (key,) = batch.add(SOURCES[2:3], own)
    while len(batch):
        batch.step()
    assert (
        batch.found(key, no_text)[0].tokens == search(engine("t5"), SOURCES[2:3], own, no_text)[0][0].tokens
    )


def test_what_cannot_enter_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    own = settings(num_beams=2, max_new_tokens=5)
    batch = Batch(engine("gpt2"))
    (key,) = batch.add(SOURCES[:1], own)
    batch.step()
    with monkeypatch.context() as changed:
        changed.setattr(engine("gpt2"), "begin", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batch.add(SOURCES[1:3], own)
    assert len(batch) == 1
    while len(batch):
        batch.step()
    assert (
        batch.found(key, no_text)[0].tokens == search(engine("gpt2"), SOURCES[:1], own, no_text)[0][0].tokens
    )


def test_rows_that_cannot_join_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(engine("t5"))
    batch.add(SOURCES[:1], settings(max_new_tokens=3))
    with monkeypatch.context() as changed:
        changed.setattr(engine("t5"), "joinable", False)
        with pytest.raises(UnavailableError, match="a place beside other texts"):
            batch.add(SOURCES[1:2], settings(max_new_tokens=3))
    while len(batch):
        batch.step()
    assert batch.add(SOURCES[1:2], settings(max_new_tokens=3))
