"""What training makes of answers: each is a target in some window, or counted by the reason why not."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from headway.core.errors import CheckpointError, DataError
from headway.core.tasks import question_answering as task
from headway.train.tasks import question_answering as training
from headway.train.tasks import token_classification
from headway.train.tasks.base import Prepared
from tests.task_examples import read, spec_of
from tests.test_offsets import ANSWERS, BROKEN, KINDS, nfd, squad, tokenizer_of

OPTIONS: Any = SimpleNamespace(train="squad.jsonl", max_length=64, stride=None, name="model")


def prepared(examples: Sequence[Any], kind: str, max_length: int = 64, **settings: Any) -> Prepared:
    tokenizer: Any = SimpleNamespace(backend_tokenizer=tokenizer_of(kind))
    spec = spec_of(task, [], max_length, **settings)
    return training.prepare(examples, tokenizer, None, spec, OPTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_an_answer_is_a_target(kind: str) -> None:
    examples = [
        squad(f"The painter {answer} was born here", answer, len("The painter "))
        for answer in ANSWERS.values()
    ]
    found = prepared(examples, kind, 128, max_answer_tokens=100)
    assert found.counts == {}
    assert [row["labels"] != [0, 0] for row in found.rows] == [True] * len(examples)


@pytest.mark.parametrize("kind", ["WordPiece uncased", "WordPiece cased", "BPE NFC"])
@pytest.mark.parametrize("length", [12, 40])
def test_an_answer_longer_than_the_overlap_has_a_window_of_its_own(kind: str, length: int) -> None:
    """Windows of 64 tokens share 8: an answer that none of them holds is in a further one."""
    tokenizer = tokenizer_of(kind)
    answer = " ".join(["Amsterdam"] * length)
    further = 0
    for before in range(20, 60, 3):
        context = "It is" + " painter" * before + f" {answer}" + " painter" * 60
        start = context.index("A")
        example = squad(context, answer, start)
        windows = task.rows([example], tokenizer, spec_of(task, [], 64))
        found = prepared([example], kind, max_answer_tokens=100)
        if any(task.target(example, row) != (0, 0) for row in windows):
            assert found.counts == {}
            assert len(found.rows) == len(windows)
            continue
        further += 1
        assert found.counts == {training.LONGER_THAN_OVERLAP: 1}
        assert len(found.rows) == len(windows) + 1
        assert all(row["labels"] == [0, 0] for row in found.rows[:-1])
        row = found.rows[-1]
        first, last = row["labels"]
        assert len(row["input_ids"]) == len(row["token_type_ids"]) == 64
        assert row["input_ids"][first : last + 1] == [tokenizer.encode("It Amsterdam").ids[-2]] * length
        question = int((windows[0].marks[:, 0] >= 0).argmax())
        assert row["input_ids"][:question] == windows[0].ids[:question]
        assert row["input_ids"][-1] == windows[0].ids[-1]
    assert further


def test_answers_are_counted_by_their_reason() -> None:
    football = "The café was half Amsterdam " + "5 " * 80
    long = " ".join(["u"] * 100)
    examples = [
        squad(football, "café", football.index("café")),
        squad(football, "fé", football.index("fé")),
        squad("It is \u200b , here", "\u200b", 6),
        squad("It is \x01 here", "\x01", 6),
        squad(f"It is {long} here", long, 6),
        squad("5 " * 40 + "u " * 20 + "5 " * 40, "u " * 19 + "u", 80),
        squad("It is 5 5 5 5 5 5 here", "5 5 5 5 5", 6),
        read("question-answering", question="q", context="x", answers={"text": [], "answer_start": []}),
    ]
    found = prepared(examples, "WordPiece uncased", max_answer_tokens=4)
    assert found.counts == {
        training.INSIDE_TOKEN: 1,
        training.DROPPED: 2,
        training.LONGER_THAN_WINDOW: 1,
        training.LONGER_THAN_OVERLAP: 1,
        training.LONGER_THAN_PREDICTED.format(4): 2,
    }


@pytest.mark.parametrize(
    ("context", "answer", "reason"),
    [
        ("It is \u200b , here", "\u200b", training.DROPPED),
        ("It is " + "u " * 100, "u " * 99 + "u", training.LONGER_THAN_WINDOW),
    ],
)
def test_training_without_any_answer_is_refused(context: str, answer: str, reason: str) -> None:
    none = read("question-answering", question="q", context="x", answers={"text": [], "answer_start": []})
    lost = squad(context, answer, 6)
    with pytest.raises(DataError) as caught:
        prepared([lost, none, lost], "WordPiece uncased")
    assert str(caught.value) == f"squad.jsonl: none of its 2 answers can be learnt: {reason}"
    assert prepared([none], "WordPiece uncased").counts == {}
    kept = squad("It is 5", "5", 6)
    assert prepared([lost, kept], "WordPiece uncased").counts == {reason: 1}


def test_a_tokenizer_with_wrong_offsets_is_not_trained() -> None:
    tokenizer: Any = SimpleNamespace(backend_tokenizer=BROKEN)
    with pytest.raises(CheckpointError, match="checkpoint model: its tokenizer .* gives wrong offsets"):
        training.describe([squad("the half past", "half", 4)], [], tokenizer, OPTIONS)
    tagged = read("token-classification", tokens=["the", "half"], tags=["O", "B-X"])
    with pytest.raises(CheckpointError, match="checkpoint model: its tokenizer .* gives wrong offsets"):
        token_classification.describe([tagged], [], tokenizer, OPTIONS)


def test_the_example_of_a_painter_in_decomposed_form() -> None:
    context = nfd("The painter René was born here.")
    example = squad(context, nfd("René"), context.index("R"))
    found = prepared([example] * 16, "WordPiece uncased")
    assert found.counts == {}
