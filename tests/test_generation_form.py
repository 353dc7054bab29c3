"""Texts of a form: every one that is complete matches, whatever the search, the tokenizer and the pattern."""

from __future__ import annotations

import functools
import json
import re
import string
import sys
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from headway.core.errors import UnavailableError, UsageError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.runtime.generation.choices import Choices
from headway.runtime.generation.lexicon import Lexicon, token_texts
from headway.runtime.generation.search import search
from tests.test_generation_search import TableEngine, settled

END = 0
SPECIAL = ["</s>", "<unk>", "<pad>"]
TEXTS = ["ab cab, 12 (äöa) bad! can't 0abd", '{"a": 12, "b": [true, "no"]} d\'a 3.4', string.printable] * 2
SEARCHES: list[dict[str, Any]] = [
    {},
    {"num_beams": 4, "num_return_sequences": 4},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "num_return_sequences": 4},
    {"do_sample": True, "num_return_sequences": 3, "seed": 3},
    {"do_sample": True, "num_beams": 3, "num_return_sequences": 3},
]


def byte_level() -> tuple[Any, Any]:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return made, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)


def unigram() -> tuple[Any, Any]:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made, trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>")


def word_piece() -> tuple[Any, Any]:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return made, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL)


def byte_fallback() -> tuple[Any, Any]:
    """As those of Llama 2."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    every = [f"<0x{byte:02X}>" for byte in range(256)]
    return made, trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL + every)


KINDS = {made.__name__: made for made in (byte_level, unigram, word_piece, byte_fallback)}


@functools.cache
def tokenizer(kind: str) -> Any:
    made, trainer = KINDS[kind]()
    made.train_from_iterator(TEXTS, trainer)
    if kind == "byte_fallback":  # its bytes belong to texts
        shown = json.loads(made.to_str())
        shown["added_tokens"] = shown["added_tokens"][: len(SPECIAL)]
        made = Tokenizer.from_str(json.dumps(shown))
    return made


@functools.cache
def lexicon(kind: str) -> Lexicon:
    return Lexicon(tokenizer(kind), vocabulary(kind))


def vocabulary(kind: str) -> int:
    """Of the model, which has some more than the tokenizer."""
    return int(tokenizer(kind).get_vocab_size()) + 3


class Chances:
    """Scores of the next token by the last one and how many there are."""

    def __init__(self, seed: int, words: int, end: float = 0.0) -> None:
        random = np.random.default_rng(seed)
        self.last = random.normal(0, 1.5, (words, words)).astype(np.float32)
        self.place = random.normal(0, 1, (256, words)).astype(np.float32)
        self.place[:, END] += end

    def logits(self, tokens: Any) -> Any:
        return self.last[tokens[:, -1]] + self.place[tokens.shape[1]]


class Machine(TableEngine):
    def __init__(self, seed: int, kind: str, end: float = 0.0) -> None:
        super().__init__(Chances(seed, vocabulary(kind), end))
        self.vocabulary = vocabulary(kind)


def written(kind: str, machine: Machine, settings: Search, prompts: int = 2) -> list[list[Hypothesis]]:
    sources = [[5 + i] for i in range(prompts)]
    return search(machine, sources, settings, tokenizer(kind).decode, lexicon(kind))


def patterns() -> Any:
    atoms = st.sampled_from(
        ["a", "b", "[a-d]", "[^a]", "[0-9]", " ", ",", "ä", ".", "can't", "d", r"\d", "/"]
    )

    def larger(part: Any) -> Any:
        ends = st.sampled_from(["?", "*", "+", "{1,3}", "{2}"])
        return st.one_of(
            st.tuples(part, part).map("".join),
            st.tuples(part, part).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            st.tuples(part, ends).map(lambda two: f"(?:{two[0]}){two[1]}"),
        )

    return st.recursive(atoms, larger, max_leaves=6)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_tokens_add_up(kind: str) -> None:
    """The text of any tokens is that of the first, then those of the others."""
    made = tokenizer(kind)
    first, later = token_texts(made, []), token_texts(made, ["a"])
    random = np.random.default_rng(1)
    compared = 0
    for _ in range(500):
        ids = random.integers(len(SPECIAL), made.get_vocab_size(), 3).tolist()
        text = first[ids[0]] + b"".join(later[i] for i in ids[1:])
        if text.decode(errors="ignore").encode() == text:  # no half characters
            assert text.decode() == made.decode(ids)
            compared += 1
    assert compared > 30


@profile(max_examples=60)
@given(st.integers(0, 10**6), patterns(), st.sampled_from(list(KINDS)), st.sampled_from(SEARCHES))
def test_a_text_is_complete_if_and_only_if_it_matches(
    seed: int, pattern: str, kind: str, how: dict[str, Any]
) -> None:
    settings = Search(max_new_tokens=12, eos_token_id=[END], regex=pattern).changed(**how)
    try:
        found = written(kind, Machine(seed, kind), settings)
    except UsageError:  # it begins with a character that no token has
        assert kind in ("unigram", "word_piece")
        return
    for hypotheses in found:
        for h in hypotheses:
            cut = h.text.endswith("\ufffd") and not h.complete  # within a character
            assert cut or h.complete == bool(re.fullmatch(pattern, h.text)), h
            assert h.tokens.count(END) == (h.tokens[-1:] == [END])
        assert hypotheses == sorted(hypotheses, key=lambda h: (not h.complete, -h.score))


@pytest.mark.parametrize("how", SEARCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_complete_where_there_is_room(kind: str, how: dict[str, Any]) -> None:
    pattern = r"(a|b)[a-d]{0,3} [0-9]{1,2}|no"
    settings = Search(max_new_tokens=12, eos_token_id=[END], regex=pattern).changed(**how)
    texts = [
        h.text for seed in range(8) for some in written(kind, Machine(seed, kind), settings) for h in some
    ]
    assert texts
    assert all(re.fullmatch(pattern, text) for text in texts)
    assert len(set(texts)) > 4


SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": -20, "maximum": 300},
        "b": {"type": "array", "items": {"enum": ["no", True, None]}, "maxItems": 2},
        "c": {"type": "string", "maxLength": 3},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("how", SEARCHES)
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_json(kind: str, how: dict[str, Any]) -> None:
    settings = Search(max_new_tokens=70, eos_token_id=[END], json_schema=SCHEMA).changed(**how)
    for seed in range(3):
        for hypotheses in written(kind, Machine(seed, kind), settings):
            assert hypotheses
            for h in hypotheses:
                assert h.complete, h
                said = json.loads(h.text)
                assert set(said) in ({"a", "b"}, {"a", "b", "c"})
                assert type(said["a"]) is int
                assert -20 <= said["a"] <= 300
                assert len(said["b"]) <= 2
                assert all(part in ("no", True, None) for part in said["b"])
                assert len(said.get("c", "")) <= 3


def test_texts_that_end_for_their_length() -> None:
    """They are told of; where beams find others, those are returned instead."""
    kind, own = "byte_level", Search(max_new_tokens=4, eos_token_id=[END], regex="[0-9]{9}")
    for how in SEARCHES:
        for hypotheses in written(kind, Machine(1, kind), own.changed(**how)):
            assert hypotheses
            assert not any(h.complete for h in hypotheses)
            assert all(re.fullmatch("[0-9]+", h.text) for h in hypotheses)
    either = own.changed(regex="[0-9]{9}|[a-d]{2}", num_beams=12, num_return_sequences=12)
    found = written(kind, Machine(1, kind, end=8.0), either)[0]
    assert found
    assert all(h.complete for h in found)


def test_a_text_ends_where_nothing_may_come() -> None:
    """The settings forbid what the form asks for: what there is so far, not complete."""
    kind = "byte_level"
    digits = [tokenizer(kind).token_to_id(d) for d in string.digits]
    own = Search(max_new_tokens=5, eos_token_id=[END], regex="[ab]{2}7", suppress_tokens=digits)
    for how in ({}, {"do_sample": True, "num_return_sequences": 2}):
        for h in written(kind, Machine(2, kind), own.changed(**how))[0]:
            assert re.fullmatch("[ab]{2}", h.text)
            assert not h.complete
    assert written(kind, Machine(2, kind), own.changed(num_beams=3))[0] == []


@pytest.mark.parametrize("how", [*SEARCHES[:2], SEARCHES[3]])
def test_pieces_are_those_of_the_best(how: dict[str, Any]) -> None:
    for seed in range(5):
        machine = Machine(seed, "unigram")
        own = Search(max_new_tokens=8, eos_token_id=[END], regex="[a-d]+( [0-9]{2})?").changed(**how)
        pieces = list(settled(machine, [5], own, lexicon("unigram")))
        best = search(machine, [[5]], own, str, lexicon("unigram"))[0][0]
        assert list(chain(*pieces)) == best.tokens


def test_sentences_of_several_forms_enter_and_leave_as_they_like() -> None:
    """What is found of one does not depend on the others: they enter at their step, and one is dropped."""
    kind, machine = "byte_level", Machine(5, "byte_level")
    asked = [
        Search(max_new_tokens=9, num_beams=beams, eos_token_id=[END], regex=pattern)
        for beams, pattern in [(3, "[a-d ]+"), (1, None), (4, "[0-9]{2}|no"), (2, None), (2, "[^a]*")]
    ]
    choices, rows, found = Choices(machine.vocabulary, lexicon(kind)), [], {}
    for step in range(20):
        if step % 2 == 0 and step < 10:
            found[choices.add([5], asked[step // 2], 10, [5])] = asked[step // 2]
            rows.append([5])
        if not rows:
            break
        choices.advance(np.concatenate([machine.table.logits(np.array([row])) for row in rows]))
        if step == 5:
            choices.drop(2)
        rows = [[*rows[i], t] for i, t in zip(choices.parents, choices.tokens.tolist(), strict=True)]
    del found[2]
    for key, settings in found.items():
        alone = search(machine, [[5]], settings, str, lexicon(kind))[0]
        assert choices.found(key, str) == alone
        assert choices.settled(key) == alone[0].tokens


def test_alone_equals_in_a_batch() -> None:
    own = Search(max_new_tokens=9, eos_token_id=[END], regex="[a-d ]+", num_beams=3, num_return_sequences=3)
    machine = Machine(7, "byte_level")
    together = written("byte_level", machine, own, 5)
    for place, hypotheses in enumerate(together):
        alone = search(machine, [[5 + place]], own, tokenizer("byte_level").decode, lexicon("byte_level"))
        assert alone == [hypotheses]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"regex": "a("}, "regex: .*unclosed group"),
        ({"regex": "a(?=b)"}, "regex: .*look-around"),
        ({"regex": "[a&&b]"}, "regex: no text of this form"),
        ({"regex": "☃"}, "regex: no text of this form"),
        ({"json_schema": {"type": "number", "minimum": 3, "maximum": 2}}, "json_schema: .*Unsatisfiable"),
        ({"json_schema": {"type": "string", "not": {"const": "a"}}}, "json_schema: .*Unimplemented"),
        ({"json_schema": {"type": "foo"}}, "json_schema: .*Invalid type"),
        ({"regex": "a", "json_schema": {}}, "json_schema: is one form and regex another"),
        (
            {"regex": "a", "stop_strings": ["b"]},
            "stop_strings: would end a text before it has the form of regex",
        ),
        ({"regex": "a", "eos_token_id": []}, "regex: a text of such a form ends by an eos_token_id"),
    ],
)
def test_forms_that_cannot_be_met_are_refused_before_the_first_step(
    settings: dict[str, Any], problem: str
) -> None:
    machine = Machine(1, "unigram")
    with pytest.raises(UsageError, match=problem):
        own = Search(eos_token_id=[END]).changed(**settings)
        search(machine, [[5]], own, str, lexicon("unigram"))
    assert machine.ran == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Search(eos_token_id=[END], regex="a")
    with pytest.raises(UsageError, match="regex: needs the tokenizer"):
        search(Machine(1, "unigram"), [[5]], own, str)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnavailableError, match=r"pip install 'headway\[constraints\]'"):
        search(Machine(1, "unigram"), [[5]], own, str, Lexicon(tokenizer("unigram"), vocabulary("unigram")))
    odd = Tokenizer(models.BPE())
    odd.decoder = decoders.BPEDecoder()
    with pytest.raises(UnavailableError, match="single tokens by a BPEDecoder"):
        token_texts(odd, [])


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"type": "array", "items": found}
    return found


def circular() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["items"] = found
    return found


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"stop_strings": ["fine", "\ud83d"]}, "half of a surrogate pair"),
        ({"regex": "a\udc00"}, "half of a surrogate pair"),
        ({"json_schema": {"const": "\ud83d"}}, "half of a surrogate pair"),
        ({"json_schema": {"\ud83d": 1}}, "half of a surrogate pair"),
        ({"json_schema": nested(150)}, None),
        ({"json_schema": nested(1500)}, None),
        ({"json_schema": nested(100_000)}, "too many lists and objects in each other"),
        ({"json_schema": circular()}, None),
        ({"json_schema": {"const": object()}}, "is no JSON"),
        ({"json_schema": {"const": {1, 2}}}, None),
    ],
)
def test_settings_that_no_text_can_meet(wrong: dict[str, Any], problem: str | None) -> None:
    """Bad settings are the caller's: no error of the engine's, of the encoder's or of Python's stack."""
    choices = Choices(vocabulary("byte_level"), lexicon("byte_level"))
    with pytest.raises(UsageError, match=problem) as caught:
        choices.add([1], Search(eos_token_id=[END]).changed(**wrong), 9, [1])
    assert caught.value.option in (*wrong, "generation settings")
    choices.add([1], Search(eos_token_id=[END]), 9, [1])
