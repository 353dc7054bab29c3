"""What was streamed is final: pieces joined are the text, whatever the bytes of its tokens come to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from headway.core.search import Search
from headway.runtime.generation.pipeline import GenerationPipeline
from headway.runtime.generation.texts import Texts

WORDS = ["<unk>", "</s>", "▁a", "b", "▁", "▁word", "�", "é"]


def byte_fallback() -> Tokenizer:
    """As Llama's: a token of each byte beside the words, and a decoder that makes � of each byte of a bad run."""
    vocabulary = {token: i for i, token in enumerate([*WORDS, *(f"<0x{byte:02X}>" for byte in range(256))])}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken("</s>", special=True)])
    return made


def byte_level() -> Tokenizer:
    """As GPT-2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["</s>", *alphabet, "Ġa", "âĢ"])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("</s>", special=True)])
    return made


MADE = {"byte fallback": byte_fallback(), "byte level": byte_level()}


class Growing:
    """A batch in which one text gets given tokens, some at a time."""

    def __init__(self, tokens: list[int], sizes: list[int]) -> None:
        self.tokens, self.sizes, self.known = tokens, sizes, 0

    def add(self, sources: Any, settings: Search) -> list[int]:
        return [0]

    def step(self) -> list[int]:
        self.known += self.sizes.pop() if self.sizes else 1
        return [0] if self.known >= len(self.tokens) else []

    def has_finished(self, key: int) -> bool:
        return self.known >= len(self.tokens)

    def settled(self, key: int) -> list[int]:
        return self.tokens[: self.known]


def bare(tokenizer: Tokenizer) -> Any:
    """The pipeline's own views of a tokenizer."""
    pipe = GenerationPipeline.__new__(GenerationPipeline)
    pipe._tokenizing = SimpleNamespace(tokenizer=tokenizer)
    return pipe


def pieces(tokenizer: Tokenizer, tokens: list[int], sizes: list[int]) -> list[str]:
    pipe, batch = bare(tokenizer), Growing(tokens, sizes)
    texts = Texts(
        batch,  # type: ignore[arg-type]
        lambda given, settings: ([1], False, Search()),
        pipe._text, pipe._byte_tokens, pipe._skipped_tokens,
    )  # fmt: skip
    key, found, finished = texts.add(""), [], False
    while not finished:
        finished = bool(texts.step())
        found.append(texts.piece(key))
    return found


@pytest.mark.parametrize("name", MADE)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_pieces_are_never_taken_back(name: str, data: st.DataObject) -> None:
    tokenizer = MADE[name]
    texts = st.text(st.sampled_from("a\n é漢😀�"), min_size=1, max_size=3)
    whole = texts.map(lambda text: [tokenizer.token_to_id(token) for token in _bytes_of(name, text)])
    any_token = st.integers(0, tokenizer.get_vocab_size() - 1).map(lambda token: [token])
    tokens = [
        t for part in data.draw(st.lists(st.one_of(whole, any_token), min_size=1, max_size=8)) for t in part
    ]
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=10))
    assert "".join(pieces(tokenizer, tokens, sizes)) == bare(tokenizer)._text(tokens)


def _bytes_of(name: str, text: str) -> list[str]:
    """Tokens of a text's bytes."""
    if name == "byte fallback":
        return [f"<0x{byte:02X}>" for byte in text.encode()]
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [letter for part, _ in split.pre_tokenize_str(text) for letter in part]


def test_a_newline_before_a_cut_emoji() -> None:
    """The decoder makes � of the newline, too, as long as the run of bytes is no UTF-8."""
    tokenizer = MADE["byte fallback"]
    tokens = [tokenizer.token_to_id(token) for token in ("▁a", "<0x0A>", "<0xF0>")]
    assert pieces(tokenizer, tokens, []) == ["a", "", "��"]
    tokens += [tokenizer.token_to_id(token) for token in ("<0x9F>", "<0x98>", "<0x80>", "b")]
    assert pieces(tokenizer, tokens, []) == ["a", "", "", "", "", "", "\n😀b"]
