"""What reading refuses, of every task, and which gold a model can give."""

from typing import Any

import pytest

from headway.core import tasks
from headway.core.data import Record
from headway.core.tasks import (
    question_answering,
    sentence_embedding,
    sequential_sentence_classification,
    text2text_generation,
    text_classification,
    text_generation,
    text_ranking,
    token_classification,
)
from tests.task_examples import complaint, read, record, spec_of


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        (
            "token-classification",
            {"tokens": ["a", "b"], "tags": ["O"]},
            "field 'tags': has 1 tags for 2 tokens",
        ),
        ("token-classification", {"tokens": [], "tags": []}, "field 'tokens': has 0 entries, fewer than 1"),
        ("token-classification", {"tags": ["O"]}, "field 'tokens': missing; the record has ['tags']"),
        (
            "token-classification",
            {"tokens": ["a", " "], "tags": ["O", "O"]},
            "field 'tokens': entry 1 is empty or only white space",
        ),
        (
            "token-classification",
            {"tokens": ["a"], "tags": [3]},
            "field 'tags': entry 0 must be a text, not int",
        ),
        (
            "sequential-sentence-classification",
            {"sentences": ["a", "b"], "labels": ["x", "y", "z"]},
            "field 'labels': has 3 labels for 2 sentences",
        ),
        (
            "sequential-sentence-classification",
            {"sentences": "a", "labels": ["x"]},
            "field 'sentences': must be a list, not str",
        ),
        (
            "sequential-sentence-classification",
            {"sentences": ["a", ""], "labels": ["x", "y"]},
            "field 'sentences': entry 1 is empty or only white space",
        ),
        (
            "question-answering",
            {"question": " ", "context": "c", "answers": {"text": [], "answer_start": []}},
            "field 'question': is empty or only white space",
        ),
        (
            "question-answering",
            {"question": "q", "context": "", "answers": {"text": [], "answer_start": []}},
            "field 'context': is empty or only white space",
        ),
        ("question-answering", {"question": "q"}, "field 'context': missing; the record has ['question']"),
        ("text-classification", {"text": "t", "labels": "x"}, "field 'labels': must be a list, not str"),
        (
            "text-classification",
            {"text1": "t", "label": "x"},
            "field 'text2': missing; the record has ['label', 'text1']",
        ),
        (
            "sentence-embedding",
            {"text": "t"},
            "field 'text1': missing: wants text1 and text2, or anchor and positive",
        ),
        (
            "sentence-embedding",
            {"text1": "a", "text2": "b", "label": True},
            "field 'label': must be a text or a whole number, not bool",
        ),
        (
            "sentence-embedding",
            {"anchor": "a"},
            "field 'positive': missing; the record has ['anchor']",
        ),
        (
            "text-ranking",
            {"query": "q", "positive": "p", "negatives": []},
            "field 'negatives': has 0 entries, fewer than 1",
        ),
        (
            "text-ranking",
            {"query": "q", "passage": "p", "label": 1.5},
            "field 'label': 1.5 is outside the range 0 to 1",
        ),
        (
            "text-ranking",
            {"query": "q", "passage": "p", "label": -1},
            "field 'label': -1 is outside the range 0 to 1",
        ),
        (
            "text-ranking",
            {"passage": "p", "label": 1},
            "field 'query': missing; the record has ['label', 'passage']",
        ),
        (
            "text2text-generation",
            {"source": "s"},
            "field 'references': missing; the record has ['source']",
        ),
        (
            "text2text-generation",
            {"source": "s", "references": []},
            "field 'references': has 0 entries, fewer than 1",
        ),
        ("text-generation", {"source": "s"}, "field 'target': missing; the record has ['source']"),
        ("text-generation", {"target": "s"}, "field 'text': missing; the record has ['target']"),
    ],
)
def test_bad_records(name: str, fields: dict[str, Any], expected: str) -> None:
    assert complaint(lambda: read(name, **fields)) == f"data.jsonl:7: {expected}"


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        (
            {"text": ["fox"], "answer_start": [5]},
            "'fox' is not at character 5 of the context: 'red' is",
        ),
        ({"text": ["the"], "answer_start": [-3]}, "'the' is not at character -3 of the context: 'the' is"),
        ({"text": ["end"], "answer_start": [99]}, "'end' is not at character 99 of the context: '' is"),
        ({"text": ["the"], "answer_start": ["0"]}, "answer 'the' at '0' is not a text and a number"),
        ({"text": ["the"], "answer_start": [0.0]}, "answer 'the' at 0.0 is not a text and a number"),
        ({"text": ["the"], "answer_start": [False]}, "answer 'the' at False is not a text and a number"),
        ({"text": [""], "answer_start": [0]}, "answer '' at 0 is not a text and a number"),
        ({"text": [None], "answer_start": [0]}, "answer None at 0 is not a text and a number"),
        (
            {"text": ["the", "red"], "answer_start": [0]},
            "'text' and 'answer_start' must be lists of the same length",
        ),
        (
            {"text": "the", "answer_start": [0, 0, 0]},
            "'text' and 'answer_start' must be lists of the same length",
        ),
        ({"text": ["the"]}, "must be an object with the lists 'text' and 'answer_start'"),
        ({}, "must be an object with the lists 'text' and 'answer_start'"),
        (["the"], "must be an object with the lists 'text' and 'answer_start'"),
        (None, "must be an object with the lists 'text' and 'answer_start'"),
    ],
)
def test_bad_answers(answers: Any, problem: str) -> None:
    fields = {"question": "q", "context": "the, red fox", "answers": answers}
    message = complaint(lambda: read("question-answering", **fields))
    assert message == f"data.jsonl:7: field 'answers': {problem}"


def test_the_second_answer_is_checked_too() -> None:
    answers = {"text": ["red", "fox"], "answer_start": [0, 0]}
    message = complaint(lambda: read("question-answering", question="q", context="red fox", answers=answers))
    assert message == "data.jsonl:7: field 'answers': 'fox' is not at character 0 of the context: 'red' is"


NO_NUMBERS = [True, "x", "", float("nan"), float("inf"), "nan", None, [1], 10**400]


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("text-classification", {"text": "t"}, "score"),
        ("sentence-embedding", {"text1": "a", "text2": "b"}, "score"),
        ("text-ranking", {"query": "q", "passage": "p"}, "label"),
    ],
)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda v: repr(v)[:9])
def test_what_is_no_number(name: str, fields: dict[str, Any], field: str, value: Any) -> None:
    message = complaint(lambda: read(name, **fields, **{field: value}))
    assert message == f"data.jsonl:7: field '{field}': must be a number, not {value!r}"


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("sentence-embedding", {"text1": "a", "text2": "b"}, "score"),
        ("text-ranking", {"query": "q", "passage": "p"}, "label"),
    ],
)
def test_missing_number(name: str, fields: dict[str, Any], field: str) -> None:
    message = complaint(lambda: read(name, **fields))
    assert message == f"data.jsonl:7: field '{field}': must be a number, not None"


@pytest.mark.parametrize("value", [2, 2.0, "2", " 2.0 "])
def test_numbers_as_csv_has_them(value: Any) -> None:
    assert read("sentence-embedding", text1="a", text2="b", score=value).gold == 2.0


@pytest.mark.parametrize(
    ("task", "fields", "options", "expected"),
    [
        (
            token_classification,
            {"tokens": ["a", "b"], "tags": ["O", "B-z"]},
            {},
            "field 'tags': entry 1 is the unknown tag 'B-z'; known: B-x, I-x, O",
        ),
        (
            sequential_sentence_classification,
            {"sentences": ["a", "b"], "labels": ["O", "z"]},
            {},
            "field 'labels': entry 1 is the unknown label 'z'; known: B-x, I-x, O",
        ),
        (
            text_classification,
            {"text": "t", "label": "z"},
            {},
            "field 'label': unknown label 'z'; known: B-x, I-x, O",
        ),
        (
            text_classification,
            {"text": "t", "labels": ["O", "z"]},
            {"kind": "multi"},
            "field 'labels': unknown label 'z'; known: B-x, I-x, O",
        ),
        (
            text_classification,
            {"text": "t", "score": 5.5},
            {"kind": "regression", "score_range": [0.0, 5.0]},
            "field 'score': 5.5 is outside the declared range 0 to 5",
        ),
        (
            text_classification,
            {"text": "t", "score": -0.1},
            {"kind": "regression", "score_range": [0.0, 5.0]},
            "field 'score': -0.1 is outside the declared range 0 to 5",
        ),
        (
            text_classification,
            {"text1": "t", "text2": "u", "label": "O"},
            {},
            "field 'text1': the other records have one text, 'text'",
        ),
        (
            text_classification,
            {"text": "t", "label": "O"},
            {"pair": True},
            "field 'text': the other records have two texts, text1 and text2",
        ),
        (
            text_classification,
            {"text": "t", "label": "O"},
            {"kind": "multi"},
            "field 'labels': missing; the other records have it",
        ),
    ],
)
def test_gold_that_a_model_cannot_give(
    task: Any, fields: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    spec = spec_of(task, ["B-x", "I-x", "O"], **options)
    example = task.read(record(**fields), labelled=True)
    assert complaint(lambda: task.check(example, spec)) == f"data.jsonl:7: {expected}"


@pytest.mark.parametrize(
    ("task", "fields", "options"),
    [
        (token_classification, {"tokens": ["a", "b"], "tags": ["B-x", "I-x"]}, {}),
        (sequential_sentence_classification, {"sentences": ["a"], "labels": ["O"]}, {}),
        (text_classification, {"text": "t", "label": "O"}, {}),
        (text_classification, {"text1": "t", "text2": "u", "label": "O"}, {"pair": True}),
        (text_classification, {"text": "t", "labels": []}, {"kind": "multi"}),
        (text_classification, {"text": "t", "labels": ["O", "B-x"]}, {"kind": "multi"}),
        (text_classification, {"text": "t", "score": 9}, {"kind": "regression"}),
        (text_classification, {"text": "t", "score": 0}, {"kind": "regression", "score_range": [0.0, 5.0]}),
        (text_classification, {"text": "t", "score": 5}, {"kind": "regression", "score_range": [0.0, 5.0]}),
    ],
)
def test_gold_that_a_model_can_give(task: Any, fields: dict[str, Any], options: dict[str, Any]) -> None:
    task.check(task.read(record(**fields), labelled=True), spec_of(task, ["B-x", "I-x", "O"], **options))


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ("I-x", "entry 0 is I-x after O, not inside a x"),
        ("O I-x", "entry 1 is I-x after O, not inside a x"),
        ("B-x I-y", "entry 1 is I-y after B-x, not inside a y"),
        ("B-x I-x I-y", "entry 2 is I-y after I-x, not inside a y"),
        ("B-x O I-x", "entry 2 is I-x after O, not inside a x"),
        ("E-x", "entry 0 is E-x after O, not inside a x"),
        ("B-y E-x", "entry 1 is E-x after B-y, not inside a x"),
        ("S-x I-x", "entry 1 is I-x after S-x, not inside a x"),
        ("B-x E-x E-x", "entry 2 is E-x after E-x, not inside a x"),
        ("B-x E-x I-x", "entry 2 is I-x after E-x, not inside a x"),
    ],
)
def test_tags_that_continue_nothing(tags: str, problem: str) -> None:
    entries = tags.split()
    example = read("token-classification", tokens=["w"] * len(entries), tags=entries)
    expected = f"data.jsonl:7: field 'tags': {problem}"
    assert complaint(lambda: token_classification.check_scheme(example, "bioes")) == expected
    spec = spec_of(token_classification, sorted(set(entries)), scheme="bioes")
    assert complaint(lambda: token_classification.check(example, spec)) == expected
    token_classification.check_scheme(example, "plain")


@pytest.mark.parametrize("tags", ["O", "B-x I-x I-x", "B-x B-x", "B-x I-x B-y I-y", "S-x B-x I-x E-x S-y"])
def test_tags_that_are_right(tags: str) -> None:
    entries = tags.split()
    example = read("token-classification", tokens=["w"] * len(entries), tags=entries)
    token_classification.check_scheme(example, "bioes")


@pytest.mark.parametrize(
    ("name", "first", "second", "problem"),
    [
        (
            "text-classification",
            {"text": "t", "label": "x"},
            {"text": "t", "labels": ["x"]},
            "field 'label': missing; the other records have it",
        ),
        (
            "text-classification",
            {"text": "t", "score": 1},
            {"text": "t", "label": "x"},
            "field 'score': missing; the other records have it",
        ),
        (
            "text-classification",
            {"text1": "t", "text2": "u", "label": "x"},
            {"text": "t", "label": "x"},
            "field 'text': the other records have two texts, text1 and text2",
        ),
        (
            "text-classification",
            {"text": "t", "label": "x"},
            {"text1": "t", "text2": "u", "label": "x"},
            "field 'text1': the other records have one text, 'text'",
        ),
        (
            "sentence-embedding",
            {"anchor": "a", "positive": "b", "negative": "c"},
            {"anchor": "a", "positive": "b"},
            "field 'negative': the first record is a triplet, this one a pair",
        ),
        (
            "sentence-embedding",
            {"anchor": "a", "positive": "b"},
            {"anchor": "a", "positive": "b", "negative": "c"},
            "field 'negative': the first record is a pair, this one a triplet",
        ),
        (
            "sentence-embedding",
            {"text1": "a", "text2": "b", "score": 1},
            {"text1": "a", "text2": "b", "label": "1"},
            "field 'score': the first record is a score, this one a label",
        ),
        (
            "sentence-embedding",
            {"text1": "a", "text2": "b", "label": "1"},
            {"anchor": "a", "positive": "b"},
            "field 'label': the first record is a label, this one a pair",
        ),
        (
            "text-generation",
            {"text": "t"},
            {"source": "s", "target": "t"},
            "field 'text': missing; the other records have it",
        ),
        (
            "text-generation",
            {"source": "s", "target": "t"},
            {"text": "t"},
            "field 'source': missing; the other records have it",
        ),
        (
            "text-ranking",
            {"query": "q", "passage": "p", "label": 1},
            {"query": "q", "positive": "p", "negatives": ["n"]},
            "field 'passage': missing; the other records have it",
        ),
        (
            "text-ranking",
            {"query": "q", "positive": "p", "negatives": ["n"]},
            {"query": "q", "passage": "p", "label": 1},
            "field 'positive': missing; the other records have it",
        ),
    ],
)
def test_records_of_two_forms(name: str, first: dict[str, Any], second: dict[str, Any], problem: str) -> None:
    task: Any = tasks.load(name)
    one = task.read(Record(first, "data.jsonl", 1), labelled=True)
    other = task.read(Record(second, "data.jsonl", 3), labelled=True)
    task.uniform([one, one])
    task.uniform([other, other])
    assert complaint(lambda: task.uniform([one, one, other])) == f"data.jsonl:3: {problem}"


def test_reading_without_gold() -> None:
    def unlabelled(task: Any, **fields: Any) -> Any:
        return task.read(record(**fields), labelled=False)

    assert unlabelled(text_classification, text="t", id=3).id == 3
    assert unlabelled(text_classification, text="t").gold is None
    assert unlabelled(question_answering, question="q", context="c").answers is None
    assert unlabelled(sequential_sentence_classification, sentences=["a"]).labels is None
    assert unlabelled(token_classification, tokens=["a b", "c"]).words == ((0, 3), (4, 5))
    assert unlabelled(sentence_embedding, text="t").texts == ("t",)
    assert unlabelled(sentence_embedding, text1="t", text2="u").texts == ("t", "u")
    assert unlabelled(text_ranking, query="q", passage="p").gold is None
    assert unlabelled(text2text_generation, source="s").references is None
    assert unlabelled(text_generation, source="s").source == "s"


def test_references_are_the_target_first_and_none_twice() -> None:
    example = read("text2text-generation", source="s", target="b", references=["a", "b", "c"])
    assert example.references == ("b", "a", "c")


def test_answers_without_one_of_their_lists() -> None:
    fields = {"question": "q", "context": "c", "answers": {"text": ["c"], "x": 1}}
    assert "must be an object with the lists" in complaint(lambda: read("question-answering", **fields))


def test_a_record_with_two_kinds_of_gold() -> None:
    first, second = (
        read("text-classification", text="t", labels=["x"]),
        read("text-classification", text="t", labels=["x"], label="x"),
    )
    assert "field 'labels': the other records have no 'label'" in complaint(
        lambda: text_classification.uniform([first, second])
    )
