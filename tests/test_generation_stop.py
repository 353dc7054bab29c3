"""Strings that end a text: tokens and scores of generate(), for any strings and tokenizers."""

from __future__ import annotations

import functools
import string
from itertools import chain
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.modeling_outputs import CausalLMOutputWithPast

from headway.core.errors import UsageError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.export import generation_settings
from headway.runtime.generation.lexicon import Lexicon, token_texts
from headway.runtime.generation.search import search
from tests.test_generation_form import END, KINDS, SEARCHES, Machine, lexicon, tokenizer, vocabulary
from tests.test_generation_graphs import PAD, SOURCES, VOCABULARY, engine, opened
from tests.test_generation_search import TableModel, settled

LETTERS = string.ascii_letters + string.digits


class WideModel(TableModel):
    """The scores of a machine as a model of transformers."""

    def __init__(self, machine: Machine, kind: str) -> None:
        super().__init__(machine.table)
        self.config.vocab_size = vocabulary(kind)

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **_: Any) -> Any:
        logits = torch.from_numpy(self.table.logits(input_ids.numpy()))
        return CausalLMOutputWithPast(logits=logits[:, None])


def cuttings(data: Any, text: str) -> list[str]:
    """Parts of a text, across the borders of tokens too, and some that may not be there."""
    found = data.draw(st.lists(st.sampled_from(["a", "zz", " "]), max_size=2))
    for _ in range(data.draw(st.integers(1, 2))):
        begin = data.draw(st.integers(0, max(0, len(text) - 1)))
        found.append(text[begin : begin + data.draw(st.integers(1, 6))] or "b")
    return found


def said(model: Any, source: list[int], settings: dict[str, Any], made: Any) -> list[list[int]]:
    """Tokens by generate(), without the source of a decoder alone."""
    ids = torch.tensor([source])
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, tokenizer=wrapped, **settings
    )
    return found[:, 1 if model.config.is_encoder_decoder else len(source) :].tolist()


def assert_same(found: list[Hypothesis], rows: list[list[int]], fillers: set[int]) -> None:
    assert [row[: len(h.tokens)] for row, h in zip(rows, found, strict=True)] == [h.tokens for h in found]
    assert all(set(row[len(h.tokens) :]) <= fillers for row, h in zip(rows, found, strict=True))


@profile(max_examples=60)
@given(st.data(), st.integers(0, 10**6), st.sampled_from(list(KINDS)), st.sampled_from([1, 3]))
def test_any_strings(data: Any, seed: int, kind: str, beams: int) -> None:
    machine, made = Machine(seed, kind), tokenizer(kind)
    settings = {
        "max_new_tokens": 12,
        "num_beams": beams,
        "num_return_sequences": beams,
        "eos_token_id": [END],
    }
    prompt = data.draw(st.lists(st.integers(3, vocabulary(kind) - 4), min_size=1, max_size=4))
    (free,) = search(machine, [prompt], Search(**settings), made.decode)
    settings["stop_strings"] = cuttings(data, free[-1].text.replace("\ufffd", ""))
    (found,) = search(machine, [prompt], Search(**settings), made.decode, lexicon(kind))
    rows = said(WideModel(machine, kind), prompt, settings | {"pad_token_id": 2}, made)
    assert_same(found, rows, {2, END})


@functools.cache
def small() -> Any:
    """A tokenizer of as many tokens as the tiny models have."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    texts = ["the cat sat on the mat and the dog ran after the cat", "abcdef: a dog and a cat sat there"]
    trainer = trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>")
    made.train_from_iterator(texts, trainer)
    return made


@pytest.mark.parametrize("name", ["t5", "gpt2"])
@pytest.mark.parametrize("beams", [1, 4])
def test_tiny_models(name: str, beams: int) -> None:
    machine, model = engine(name), opened(name).model
    settings: dict[str, Any] = {"max_new_tokens": 14, "num_beams": beams, "num_return_sequences": beams}
    own = generation_settings.read(opened(name)).changed(**settings)
    words = Lexicon(small(), VOCABULARY)
    ended = 0
    for source in SOURCES:
        (free,) = search(machine, [source], own, small().decode)
        middle = len(free[0].text) // 2
        settings["stop_strings"] = [free[0].text[middle : middle + 3] or "a", "zz"]
        (found,) = search(machine, [source], own.changed(**settings), small().decode, words)
        assert_same(found, said(model, source, settings, small()), {PAD, 2})
        ended += any(settings["stop_strings"][0] in h.text for h in found)
    assert ended


@pytest.mark.parametrize("kind", KINDS)
def test_samples_end_where_their_text_contains_one(kind: str) -> None:
    own = Search(max_new_tokens=30, do_sample=True, num_return_sequences=6, seed=4)
    machine, made = Machine(3, kind), tokenizer(kind)
    (free,) = search(machine, [[5]], own, made.decode)
    (found,) = search(machine, [[5]], own.changed(stop_strings=["a", "12"]), made.decode, lexicon(kind))

    later = [*token_texts(made, ["a"]), b"\0", b"\0", b"\0"]  # the model has three more

    def cut(tokens: list[int]) -> list[int]:
        texts = [b"".join(later[i] for i in tokens[: end + 1]) for end in range(len(tokens))]
        met = [i for i, text in enumerate(texts) if b"a" in text or b"12" in text]
        return tokens[: met[0] + 1] if met else tokens

    assert {tuple(h.tokens) for h in found} == {tuple(cut(h.tokens)) for h in free}
    assert any(len(h.tokens) < 30 for h in found)


@pytest.mark.parametrize("how", SEARCHES)
def test_pieces_end_as_the_best_does(how: dict[str, Any]) -> None:
    machine = Machine(6, "unigram")
    own = Search(max_new_tokens=20, stop_strings=[*LETTERS]).changed(**how)
    ((best, *_),) = search(machine, [[7]], own, tokenizer("unigram").decode, lexicon("unigram"))
    pieces = list(chain(*settled(machine, [7], own, lexicon("unigram"))))
    assert pieces == best.tokens
    assert len(pieces) < 20
    assert set(LETTERS) & set(best.text)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="stop_strings: holds an empty one"):
        Search().changed(stop_strings=["a", ""])
    with pytest.raises(UsageError, match="stop_strings: needs the tokenizer"):
        search(Machine(1, "unigram"), [[5]], Search(stop_strings=["a"]), str)
    assert Search().changed(stop_strings="ab").stop_strings == ["ab"]
