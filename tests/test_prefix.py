"""Long texts are tokenized as far as the model reads; that the tokens are the same is held by `tests.fuzz`."""

import pytest
from tokenizers import AddedToken, Tokenizer

from headway.core import tasks
from headway.core.prefix import CHARACTERS, beginning
from tests import fuzz

LENGTH = 8
LONG = "Ann's refund was late " * 200


@pytest.fixture(scope="module")
def every() -> dict[str, Tokenizer]:
    return fuzz.tokenizers()


@pytest.mark.parametrize("kind", ["bert", "cased", "bytes", "composed"])
def test_the_rest_of_a_long_text_is_left_out(kind: str, every: dict[str, Tokenizer]) -> None:
    read = beginning(every[kind], LONG, LENGTH)
    assert LONG.startswith(f"{read} ")
    assert CHARACTERS * LENGTH - 10 < len(read) < CHARACTERS * LENGTH
    assert beginning(every[kind], ("short", LONG), LENGTH) == ("short", read)
    assert beginning(every[kind], LONG[: 2 * CHARACTERS * LENGTH], LENGTH) == LONG[: 2 * CHARACTERS * LENGTH]


def test_what_is_not_proven_is_whole(every: dict[str, Tokenizer]) -> None:
    assert beginning(every["pieces"], LONG, LENGTH) is LONG  # its pieces begin with the space
    for text in ("x" * 5000, ". , " * 2000, "a  b" * 2000):  # no single space between letters
        assert beginning(every["bert"], text, LENGTH) is text
    spaced: Tokenizer = Tokenizer.from_str(every["bert"].to_str())
    spaced.add_tokens([AddedToken("late Ann's", normalized=False)])
    assert beginning(spaced, LONG, LENGTH) is LONG


def test_a_beginning_of_too_few_tokens_is_not_all_that_is_read(every: dict[str, Tokenizer]) -> None:
    tokenizer, text = every["bert"], "a b" + "\x01" * CHARACTERS * LENGTH + " c d e f g h i j" * 200
    assert beginning(tokenizer, text, LENGTH) == "a"
    (found,) = tasks.encode(tokenizer, [text], LENGTH, offsets=False)
    tokenizer.enable_truncation(LENGTH)
    assert found.ids == tokenizer.encode(text).ids
