"""Sources longer than the model, read in parts: nothing is left out, parts fit, texts are joined or combined."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from headway.core.errors import UsageError
from headway.core.generation import Hypothesis, Result
from headway.runtime.generation import windows


def words() -> Any:
    """A tokenizer of which every word and every sign is a token."""
    made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@given(text=st.text("ab .!?\n。", max_size=200), room=st.integers(1, 12))
def test_parts_fit_and_hold_everything(text: str, room: int) -> None:
    tokenizer = words()
    found = windows.parts(text, tokenizer, room)
    assert all(len(tokenizer.encode(part).ids) <= room for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_parts_end_with_sentences() -> None:
    text = 'It rained. "Why?" she asked. Nobody knew!\nThe end came soon'
    assert windows.parts(text, words(), 8) == [
        'It rained. "Why?"',
        "she asked. Nobody knew!",
        "The end came soon",
    ]
    assert windows.parts(text, words(), 100) == [text]
    assert windows.parts("a b c d e f g. h", words(), 3) == ["a b c", "d e f", "g. h"]


def half(parts: list[str]) -> list[Result]:
    """Of every part its first half."""
    texts = [" ".join(part.split()[: (len(part.split()) + 1) // 2]) for part in parts]
    return [Result(t, -float(len(t)), [Hypothesis(t, -float(len(t)), [len(t)])]) for t in texts]


def test_texts_are_joined_or_combined() -> None:
    def split(text: str) -> list[str]:
        return windows.parts(text, words(), 4)

    texts = ["a b c d e f g h i j k l", "a b"]
    joined, short = windows.read(texts, "join", split, half)
    assert (joined.text, joined.score, joined.hypotheses[0].tokens) == ("a b e f i j", -3.0, [3, 3, 3])
    assert short == half(["a b"])[0]
    assert [r.text for r in windows.read(texts, "combine", split, half)] == ["a b", "a"]


def test_a_model_that_makes_texts_longer_comes_to_an_end() -> None:
    def double(parts: list[str]) -> list[Result]:
        return [Result(f"{p} {p}", 0.0, [Hypothesis(f"{p} {p}", 0.0, [])]) for p in parts]

    (found,) = windows.read(["a b c d"], "combine", lambda text: windows.parts(text, words(), 2), double)
    assert found.text == "a b a b c d c d"


def test_nothing_is_written_of_any_part() -> None:
    def silent(parts: list[str]) -> list[Result]:
        return [Result("", 0.0, []) for _ in parts]

    (found,) = windows.read(["a b c d"], "combine", lambda text: windows.parts(text, words(), 2), silent)
    assert found.text == ""


def test_an_unknown_way() -> None:
    with pytest.raises(
        UsageError, match="long_sources: must be one of cut, refuse, join, combine, not 'all'"
    ):
        windows.check("all")
