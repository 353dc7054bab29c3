"""Every task's reading, windows and decoding, with real tokenizers; a model that knows all is read as knowing all."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from headway.core import generation, report, retrieval, tasks, windows
from headway.core.data import Record
from headway.core.errors import DataError
from headway.core.tasks import (
    Output,
    Row,
    Spec,
    question_answering,
    sentence_embedding,
    sequential_sentence_classification,
    text2text_generation,
    text_classification,
    text_generation,
    text_ranking,
    token_classification,
)
from tests.conftest import records
from tests.tolerance import TOLERANCE

KINDS = ["wordpiece", "byte-level"]
CLOSE = TOLERANCE["float32"]
few = settings(max_examples=50)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="session")
def tokenizers(pretrained: Path) -> dict[str, Tokenizer]:
    """A WordPiece tokenizer without capitals and accents, and a byte-level one whose tokens begin with spaces."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([r["text"] for r in records("train", 160)], trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return {"wordpiece": Tokenizer.from_file(str(pretrained / "tokenizer.json")), "byte-level": raw}


def whole(tokenizer: Tokenizer, text: str) -> Any:
    """The encoding of a text without special tokens, however long it is."""
    tokenizer.no_truncation()
    return tokenizer.encode(text, add_special_tokens=False)


def record(**fields: Any) -> Record:
    return Record(fields, "data.jsonl", 7)


def read(name: str, **fields: Any) -> Any:
    return tasks.load(name).read(record(**fields), labelled=True)


def spec_of(task: Any, labels: Sequence[str] = (), max_length: int = 16, **options: Any) -> Spec:
    return Spec(list(labels), max_length, task.Settings(**options))


def outputs_of(logits: Sequence[Sequence[float]], truncated: Sequence[bool] | None = None) -> list[Output]:
    cut = truncated or [False] * len(logits)
    return [
        Output(Row(i, [1, 2], [0, 0], truncated=c), np.array(x, np.float32))
        for i, (x, c) in enumerate(zip(logits, cut, strict=True))
    ]


def complaint(attempt: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        attempt()
    return str(caught.value)


# --- what reading refuses


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
            "field 'label': must be a text, not bool",
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


# --- what a model cannot give


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


# --- token-classification


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-x I-x", "bio"),
        ("O B-x", "bio"),
        ("O S-x", "bioes"),
        ("O B-x E-x", "bioes"),
        ("NOUN VERB", "plain"),
        ("O NOUN", "plain"),
        ("B-x NOUN", "plain"),
        ("B- O", "plain"),
        ("X-y O", "plain"),
        ("O", "bio"),
    ],
)
def test_schemes(tags: str, scheme: str) -> None:
    assert token_classification.scheme_of(tags.split()) == scheme


def test_words_of_a_text_without_tokens() -> None:
    example = token_classification.read(record(text="Ann's  naïve 漢字, ok."), labelled=False)
    found = [example.text[slice(*w)] for w in example.words]
    assert found == ["Ann", "'", "s", "naïve", "漢", "字", ",", "ok", "."]


@few
@given(st.text(st.sampled_from("aé \u0301\x01.漢字は㐀豈𠀀𫝀´£$°½😀\u200d")))
def test_words_are_those_of_berts_tokenizer(text: str) -> None:
    """As far as anything is left of them when it has removed accents and control characters."""
    normal: Any = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    wanted = [
        word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal.normalize_str(text))
    ]
    found = [normal.normalize_str(text[a:b]).strip() for a, b in token_classification.words_of(text)]
    assert [word for word in found if word] == wanted


def test_an_entity_ends_where_its_tokens_do() -> None:
    """A tokenizer that is not BERT's may make one token of several ideographs."""
    task, raw = token_classification, Tokenizer(models.WordLevel({"東京": 0, "都": 1, "?": 2}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split("東京", "isolated")  # type: ignore[assignment]
    example, spec = task.read(record(text="東京都"), labelled=False), spec_of(task, ["O", "B-x"], 8)
    assert len(example.words) == 3
    (row,) = task.rows([example], raw, spec)
    found = task.decode([example], [Output(row, np.array([[0, 9], [9, 0]], np.float32))], spec)
    assert [(e.text, e.start, e.end) for e in found[0].entities] == [("東京", 0, 2)]


compact = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15
).filter(lambda word: not any(c.isspace() for c in word))
"""words of any characters but white space; many are long in tokens, and of some no token is left"""
plain_words = st.text("abcdeé漢😀-.x1", min_size=1, max_size=8)
"""words of which every tokenizer here makes something"""


def first_tokens(tokenizer: Tokenizer, example: Any) -> dict[int, int]:
    """Where, in the tokens of the whole text, each word's first one is: the first that touches the word alone."""
    found: dict[int, int] = {}
    taken = -1
    offsets = whole(tokenizer, example.text).offsets
    for word, (begin, end) in enumerate(example.words):
        touching = [i for i, (a, b) in enumerate(offsets) if max(a, begin) < min(b, end) and i > taken]
        if touching:
            found[word] = touching[0]
            taken = touching[-1]
    return found


@pytest.mark.parametrize("kind", KINDS)
@few
@given(
    documents=st.lists(st.lists(compact | plain_words, min_size=1, max_size=25), min_size=1, max_size=3),
    max_length=st.integers(6, 24),
    stride=st.integers(0, 32),
)
def test_every_word_is_marked_once_at_its_first_token(
    tokenizers: dict[str, Tokenizer], kind: str, documents: list[list[str]], max_length: int, stride: int
) -> None:
    task, tokenizer = token_classification, tokenizers[kind]
    spec = spec_of(task, ["O"], max_length, stride=stride)
    examples = [read("token-classification", tokens=d, tags=["O"] * len(d)) for d in documents]
    rows = task.rows(examples, tokenizer, spec)
    assert [row.example for row in rows] == sorted(row.example for row in rows)
    for number, example in enumerate(examples):
        own = [row for row in rows if row.example == number]
        ids = whole(tokenizer, example.text).ids
        shared = min(stride, max_length // 4)
        starts = range(0, len(own) * (max_length - 2 - shared), max_length - 2 - shared)
        for row, start in zip(own, starts, strict=True):  # what a window holds of the whole text
            assert row.ids[1:-1] == ids[start : start + max_length - 2]
            assert len(row.ids) <= max_length
        found = {}
        owned = windows.owners([[word for word, _ in row.marks] for row in own])
        for row, start, mine in zip(own, starts, owned, strict=True):
            for word, place in row.marks:
                if word in mine:
                    assert word not in found
                    found[word] = start + place - 1
        assert found == first_tokens(tokenizer, example)


def spread(rows: Sequence[Row], classes: int, seed: int) -> list[Output]:
    """Random answers to rows, to be overwritten where it matters."""
    random = np.random.default_rng(seed)
    return [Output(row, random.normal(size=(len(row.ids), classes)).astype(np.float32)) for row in rows]


@st.composite
def entity_documents(draw: st.DrawFn, scheme: str) -> tuple[list[str], list[str], list[tuple[str, int, int]]]:
    """Words, their tags, and the entities that these are: label, first word, word after the last."""
    words: list[str] = []
    tags: list[str] = []
    entities = []
    pieces = st.tuples(st.sampled_from(["O", "x", "y"]), st.lists(plain_words, min_size=1, max_size=3))
    for label, piece in draw(st.lists(pieces, min_size=1, max_size=10)):
        inner = [f"I-{label}"] * (len(piece) - 1)
        if label == "O":
            tags += ["O"] * len(piece)
        else:
            entities.append((label, len(words), len(words) + len(piece)))
            if scheme == "bioes":
                inner = [*inner[:-1], f"E-{label}"] if inner else []
            first = "S" if scheme == "bioes" and not inner else "B"
            tags += [f"{first}-{label}", *inner]
        words += piece
    return words, tags, entities


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
@pytest.mark.parametrize("kind", KINDS)
@few
@given(data=st.data(), max_length=st.integers(8, 20), seed=seeds)
def test_right_tags_give_the_gold_entities(
    tokenizers: dict[str, Tokenizer], kind: str, scheme: str, data: st.DataObject, max_length: int, seed: int
) -> None:
    task = token_classification
    documents = data.draw(st.lists(entity_documents(scheme), min_size=1, max_size=3))
    labels = ["O", *(f"{letter}-{name}" for letter in "BIES" for name in "xy")]
    spec = spec_of(task, labels, max_length, scheme=scheme, temperature=2.0)
    examples = [read("token-classification", tokens=words, tags=tags) for words, tags, _ in documents]
    outputs = spread(task.rows(examples, tokenizers[kind], spec), len(labels), seed)
    for output in outputs:
        for word, place in output.row.marks:
            output.logits[place] = (
                20 * np.eye(len(labels))[labels.index(examples[output.row.example].tags[word])]
            )
    results = task.decode(examples, outputs, spec)
    sure = float(scipy.special.softmax(20 / 2 * np.eye(len(labels))[0]).max())
    for (words, tags, entities), example, result in zip(documents, examples, results, strict=True):
        assert result.tags == tags
        assert result.scores == pytest.approx([sure] * len(tags))
        starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
        expected = [
            (label, starts[first], starts[last - 1] + len(words[last - 1]), " ".join(words[first:last]))
            for label, first, last in entities
        ]
        assert [(e.label, e.start, e.end, e.text) for e in result.entities] == expected
        assert [e.score for e in result.entities] == pytest.approx([sure] * len(entities))
        assert all(example.text[e.start : e.end] == e.text for e in result.entities)
        assert not result.truncated
    figures = task.metrics(examples, results)
    assert figures["token_accuracy"] == 1.0


def test_words_without_a_token_get_the_fallback(tokenizers: dict[str, Tokenizer]) -> None:
    """Of a lone accent and a control character WordPiece makes nothing."""
    task = token_classification
    tokens = ["a", "\u0301", "b", "\x01", "\x02"]
    spec = spec_of(task, ["N", "V"], scheme="plain", fallback="V")
    example = read("token-classification", tokens=tokens, tags=["N"] * 5)
    (row,) = task.rows([example], tokenizers["wordpiece"], spec)
    assert [word for word, _ in row.marks] == [0, 2]
    logits = np.zeros((len(row.ids), 2), np.float32)
    logits[:, 0] = 50
    (result,) = task.decode([example], [Output(row, logits)], spec)
    assert result.tags == ["N", "V", "N", "V", "V"]
    assert result.scores == pytest.approx([1, 0, 1, 0, 0])


def test_a_text_without_any_token(tokenizers: dict[str, Tokenizer]) -> None:
    task = token_classification
    spec = spec_of(task, ["B-x", "O"])
    example = read("token-classification", tokens=["\x01"], tags=["O"])
    outputs = spread(task.rows([example], tokenizers["wordpiece"], spec), 2, 0)
    assert task.decode([example], outputs, spec) == [token_classification.Result([], ["O"], [0.0])]
    assert task.calibrate([example], outputs, spec) == spec.settings


def test_tags_are_told_only_where_there_were_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    task = token_classification
    spec = spec_of(task, ["B-x", "O"])
    example = task.read(record(text="one two"), labelled=False)
    (row,) = task.rows([example], tokenizers["wordpiece"], spec)
    logits = np.tile(np.array([5, 0], np.float32), (len(row.ids), 1))
    (result,) = task.decode([example], [Output(row, logits)], spec)
    assert result.tags is result.scores is None
    assert [(e.start, e.end, e.text) for e in result.entities] == [(0, 3, "one"), (4, 7, "two")]


@few
@given(seed=seeds)
def test_tags_calibrate_to_the_same_temperature_as_all_words_together(
    tokenizers: dict[str, Tokenizer], seed: int
) -> None:
    """Each word counts once, though windows overlap."""
    task = token_classification
    random = np.random.default_rng(seed)
    labels = ["A", "B", "C"]
    spec = spec_of(task, labels, 8, scheme="plain")
    gold = random.choice(labels, 12).tolist()
    example = read("token-classification", tokens=["abc"] * 12, tags=gold)
    rows = task.rows([example], tokenizers["wordpiece"], spec)
    assert len(rows) > 1
    by_word = random.normal(size=(12, 3)).astype(np.float32)
    outputs = spread(rows, 3, seed)
    for output in outputs:
        for word, place in output.row.marks:
            output.logits[place] = by_word[word]
    expected = tasks.text_classification.calibrate(
        [text_classification.Example("t", None, g, None, record()) for g in gold],
        outputs_of(by_word.tolist()),
        spec_of(text_classification, labels),
    )
    assert task.calibrate([example], outputs, spec).temperature == pytest.approx(expected.temperature)


# --- question-answering


def squad(
    context: str, *answers: tuple[str, int], question: str = "which one ?"
) -> question_answering.Example:
    given = {"text": [t for t, _ in answers], "answer_start": [s for _, s in answers]}
    example: question_answering.Example = read(
        "question-answering", question=question, context=context, answers=given
    )
    return example


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(
    words=st.lists(plain_words, min_size=1, max_size=40),
    spaces=st.sampled_from([" ", "  ", "\n", " \t "]),
    data=st.data(),
    max_length=st.integers(24, 40),
    seed=seeds,
)
def test_right_spans_give_the_gold_answer(
    tokenizers: dict[str, Tokenizer],
    kind: str,
    words: list[str],
    spaces: str,
    data: st.DataObject,
    max_length: int,
    seed: int,
) -> None:
    task, tokenizer = question_answering, tokenizers[kind]
    spec = spec_of(task, [], max_length, stride=5)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    context = spaces.join(words)
    start = sum(len(w) + len(spaces) for w in words[:first])
    answer = context[start : start + len(spaces.join(words[first : last + 1]))]
    example = squad(context, (answer, start))
    tokens = sum(start < b and a < start + len(answer) for a, b in whole(tokenizer, context).offsets)
    shared = min(5, max_length // 8)
    assume(tokens <= shared + 1)  # so that some window holds them all
    rows = task.rows([example], tokenizer, spec)
    targets = [task.target(example, row) for row in rows]
    assert any(t != (0, 0) for t in targets)
    outputs = spread(rows, 2, seed)
    for output, (begin, end) in zip(outputs, targets, strict=True):
        assert 0 <= begin <= end < len(output.row.ids)
        output.logits[begin, 0] = output.logits[end, 1] = 50
    (result,) = task.decode([example], outputs, spec)
    assert (result.answer, result.start, result.end) == (answer, start, start + len(answer))
    assert result.candidates[0].answer == answer
    assert result.score == pytest.approx(1)
    assert task.metrics([example], [result]) == {"exact_match": 1.0, "f1": 1.0}


@pytest.mark.parametrize("kind", KINDS)
@few
@given(words=st.lists(plain_words, min_size=1, max_size=40), max_length=st.integers(24, 40))
def test_windows_hold_the_question_and_cover_the_context(
    tokenizers: dict[str, Tokenizer], kind: str, words: list[str], max_length: int
) -> None:
    task, tokenizer = question_answering, tokenizers[kind]
    example = squad(" ".join(words))
    rows = task.rows([example, example], tokenizer, spec_of(task, [], max_length))
    assert [row.example for row in rows] == [0] * (len(rows) // 2) + [1] * (len(rows) // 2)
    seen = set()
    question = whole(tokenizer, example.question).ids
    for row in rows:
        assert len(row.ids) <= max_length
        assert row.ids[1 : 1 + len(question)] == question
        assert (row.marks[: 2 + len(question)] == -1).all()
        assert (row.marks[-1] == -1).all()
        assert not row.truncated
        seen |= {(int(a), int(b)) for a, b in row.marks if a >= 0}
    assert seen == set(whole(tokenizer, example.context).offsets)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_outside_a_window_is_no_target_there(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task = question_answering
    context = " ".join(f"a{i}" for i in range(40))
    example = squad(context, ("a39", context.index("a39")))
    rows = task.rows([example], tokenizers[kind], spec_of(task, [], 32))
    assert len(rows) > 2
    assert task.target(example, rows[0]) == (0, 0)
    assert task.target(example, rows[-1]) != (0, 0)
    assert all(task.target(squad(context), row) == (0, 0) for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_the_answer_alone(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    """Not its neighbours, though they touch it."""
    task = question_answering
    example = squad("a-b-c d", ("b", 2))
    (row,) = task.rows([example], tokenizers[kind], spec_of(task, [], 24))
    begin, end = task.target(example, row)
    assert begin == end
    assert row.marks[begin].tolist() == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_cut_by_a_window_is_no_target_there(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task = question_answering
    context = " ".join("abcdefghij" * 4)
    example = squad(context, (context, 0))
    rows = task.rows([example], tokenizers[kind], spec_of(task, [], 24))
    assert len(rows) > 2
    assert [task.target(example, row) for row in rows] == [(0, 0)] * len(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_very_long_question_is_cut_and_told(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task, tokenizer = question_answering, tokenizers[kind]
    long = squad("a b c d e f g h", ("c", 4), question="why " * 60)
    short = squad("a b c d e f g h", ("c", 4), question="why")
    spec = spec_of(task, [], 32)
    rows = task.rows([long, short], tokenizer, spec)
    assert {row.example: row.truncated for row in rows} == {0: True, 1: False}
    question = whole(tokenizer, long.question).ids
    for row in rows:
        assert len(row.ids) <= 32
        if row.example == 0:
            assert row.ids[1:17] == question[:16]
            assert row.marks[17].tolist() == [-1, -1]
    results = task.decode([long, short], spread(rows, 2, 0), spec)
    assert [r.truncated for r in results] == [True, False]
    assert any(task.target(long, row) != (0, 0) for row in rows)


def test_a_question_of_half_the_model_is_not_cut(tokenizers: dict[str, Tokenizer]) -> None:
    task = question_answering
    exact = squad("a b c", question=" ".join("a" * 16))
    over = squad("a b c", question=" ".join("a" * 17))
    rows = task.rows([exact, over], tokenizers["wordpiece"], spec_of(task, [], 32))
    assert [row.truncated for row in rows] == [False, True]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(
    words=st.lists(plain_words, min_size=1, max_size=15),
    seed=seeds,
    most=st.integers(1, 8),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    unanswerable=st.booleans(),
)
def test_the_best_span_is_that_of_a_search_over_all(
    tokenizers: dict[str, Tokenizer],
    kind: str,
    words: list[str],
    seed: int,
    most: int,
    temperature: float,
    unanswerable: bool,
) -> None:
    task = question_answering
    spec = spec_of(
        task,
        [],
        24,
        max_answer_tokens=most,
        temperature=temperature,
        unanswerable=unanswerable,
        threshold=1e9,
    )
    example = squad(" ".join(words))
    outputs = spread(task.rows([example], tokenizers[kind], spec), 2, seed)
    legal: dict[tuple[int, int], float] = {}
    for output in outputs:
        pieces = [example.context[slice(*place)] for place in output.row.marks]
        inside = [i for i, (begin, _) in enumerate(output.row.marks) if begin >= 0]
        assert len(inside) <= task.BEST
        blank = [i for i in inside if pieces[i].isspace()]
        output.logits[blank] = -1000  # what is only space between words is nobody's answer
        for i in (i for i in inside if i not in blank):
            for j in (j for j in inside if i <= j < i + most and j not in blank):
                begin, end = int(output.row.marks[i][0]), int(output.row.marks[j][1])
                begin = end - len(example.context[begin:end].lstrip())
                score = float(output.logits[i, 0]) + float(output.logits[j, 1])
                legal[begin, end] = max(score, legal.get((begin, end), -np.inf))
    best = max(legal, key=lambda place: legal[place])
    (result,) = task.decode([example], outputs, spec)
    assert (result.start, result.end) == best
    assert result.answer == example.context[slice(*best)]
    top = sorted(legal.values(), reverse=True)[: task.BEST]
    none = min(float(o.logits[0].sum()) for o in outputs)
    chances = scipy.special.softmax(np.array(top + [none] * unanswerable) / temperature)
    found = [c.score for c in result.candidates[: len(top)]]
    assert found == pytest.approx(chances[: len(top)].tolist(), *CLOSE)


@few
@given(seed=seeds)
def test_no_answer_is_given_above_the_threshold(tokenizers: dict[str, Tokenizer], seed: int) -> None:
    task = question_answering
    example = squad(" ".join("abcdefghij" * 3))
    spec = spec_of(task, [], 24, unanswerable=True)
    outputs = spread(task.rows([example], tokenizers["wordpiece"], spec), 2, seed)
    assert len(outputs) > 1
    always = Spec([], 24, msgspec.structs.replace(spec.settings, unanswerable=False))
    (spoken,) = task.decode([example], outputs, always)
    best = max(
        float(o.logits[i, 0] + o.logits[j, 1])
        for o in outputs
        for i, (a, _) in enumerate(o.row.marks)
        for j, (b, _) in enumerate(o.row.marks)
        if a >= 0 <= b and i <= j
    )
    margin = min(float(o.logits[0].sum()) for o in outputs) - best
    for threshold, answer in ((margin - 1e-3, ""), (margin + 1e-3, spoken.answer)):
        settings = msgspec.structs.replace(spec.settings, threshold=threshold)
        (result,) = task.decode([example], outputs, Spec([], 24, settings))
        assert result.answer == answer
        everything = sum(c.score for c in result.candidates)
        if answer:
            assert result.score == result.candidates[0].score
            assert everything < 1
        else:
            assert (result.start, result.end) == (0, 0)
            assert len(result.candidates) < task.BEST or everything + result.score == pytest.approx(1)


@settings(max_examples=30)
@given(seed=seeds, answerable=st.lists(st.booleans(), min_size=1, max_size=8))
def test_no_threshold_is_better_than_the_fitted_one(
    tokenizers: dict[str, Tokenizer], seed: int, answerable: list[bool]
) -> None:
    task = question_answering
    context = "a b c d e f"
    spec = spec_of(task, [], 24, unanswerable=True)
    examples = [squad(context, *[("c d", 4)] * yes) for yes in answerable]
    outputs = spread(task.rows(examples, tokenizers["wordpiece"], spec), 2, seed)
    for output in outputs:
        output.logits[0] *= 3  # many margins on both sides of 0
        begin, end = task.target(examples[output.row.example], output.row)
        output.logits[begin, 0] += 1
        output.logits[end, 1] += 1

    def f1(threshold: float) -> float:
        settings = msgspec.structs.replace(spec.settings, threshold=threshold)
        return task.metrics(examples, task.decode(examples, outputs, Spec([], 24, settings)))["f1"]

    fitted = task.calibrate(examples, outputs, spec)
    found = f1(fitted.threshold)
    for other in np.linspace(-20, 20, 161):
        assert found >= f1(float(other)) - CLOSE[1]
    assert msgspec.structs.replace(fitted, threshold=0.0, temperature=1.0) == spec.settings


def test_a_model_that_always_answers_has_no_threshold_fitted(tokenizers: dict[str, Tokenizer]) -> None:
    task = question_answering
    examples = [squad("a b c", ("b", 2)), squad("a b c")]
    spec = spec_of(task, [], 24)
    outputs = spread(task.rows(examples, tokenizers["wordpiece"], spec), 2, 0)
    assert task.calibrate(examples, outputs, spec).threshold == 0.0
    assert all(r.answer for r in task.decode(examples, outputs, spec))


def test_the_temperature_of_starts_and_ends(tokenizers: dict[str, Tokenizer]) -> None:
    """Of windows of different lengths; only the tokens that a window has take part."""
    task = question_answering
    examples = [squad("a b c", ("b", 2)), squad("a b c d e f g h", ("c d", 4))] * 20
    spec = spec_of(task, [], 24)
    outputs = spread(task.rows(examples, tokenizers["wordpiece"], spec), 2, 5)
    for output in outputs:
        begin, end = task.target(examples[output.row.example], output.row)
        output.logits[begin, 0] += 2
        output.logits[end, 1] += 2

    def loss(temperature: float) -> float:
        total = 0.0
        for output in outputs:
            logs = scipy.special.log_softmax(output.logits / temperature, axis=0)
            begin, end = task.target(examples[output.row.example], output.row)
            total -= float(logs[begin, 0] + logs[end, 1])
        return total / (2 * len(outputs))

    found = loss(task.calibrate(examples, outputs, spec).temperature)
    assert all(found <= loss(t) + CLOSE[1] for t in np.geomspace(0.1, 10, 50))
    assert found < loss(1.0) or found == pytest.approx(loss(1.0))


def test_a_context_without_any_token_has_no_answer(tokenizers: dict[str, Tokenizer]) -> None:
    task = question_answering
    example = squad("\x01")
    for unanswerable in (True, False):
        spec = spec_of(task, [], 24, unanswerable=unanswerable)
        outputs = spread(task.rows([example], tokenizers["wordpiece"], spec), 2, 0)
        (result,) = task.decode([example], outputs, spec)
        assert (result.answer, result.candidates) == ("", [])


# --- sequential-sentence-classification


@pytest.mark.parametrize("kind", KINDS)
@few
@given(
    documents=st.lists(
        st.lists(
            st.lists(plain_words, min_size=1, max_size=6).map(" ".join) | compact, min_size=1, max_size=12
        ),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
    max_length=st.integers(6, 30),
    opened=st.booleans(),
    pooling=st.sampled_from(["separator", "mean"]),
    seed=seeds,
)
def test_right_sentences_give_the_gold_labels(
    tokenizers: dict[str, Tokenizer],
    kind: str,
    documents: list[list[str]],
    data: st.DataObject,
    max_length: int,
    opened: bool,
    pooling: str,
    seed: int,
) -> None:
    task, tokenizer = sequential_sentence_classification, tokenizers[kind]
    first, after = ("[CLS]", "[SEP]") if kind == "wordpiece" else ("<s>", "</s>")
    labels = ["a", "b", "c"]
    opening = first if opened else None
    spec = spec_of(task, labels, max_length, separator=after, opening=opening, pooling=pooling)
    examples = [
        read(
            "sequential-sentence-classification",
            sentences=d,
            labels=[data.draw(st.sampled_from(labels)) for _ in d],
        )
        for d in documents
    ]
    outputs = spread(task.rows(examples, tokenizer, spec), 3, seed)
    separator = tokenizer.token_to_id(after)
    for output in outputs:
        assert len(output.row.ids) <= max_length
        assert not opened or output.row.ids[0] == tokenizer.token_to_id(first)
        for sentence, begin, place in output.row.marks:
            assert output.row.ids[place] == separator
            assert separator not in output.row.ids[begin:place]
            gold = examples[output.row.example].labels[sentence]
            said = 20 * np.eye(3)[labels.index(gold)]
            if pooling == "mean":  # the first token says it for all
                output.logits[begin : place + 1] = 0
                output.logits[begin] = said * (place + 1 - begin)
            else:
                output.logits[place] = said
    results = task.decode(examples, outputs, spec)
    for number, (example, result) in enumerate(zip(examples, results, strict=True)):
        assert result.labels == list(example.labels)
        assert result.scores == pytest.approx([1.0] * len(example.labels))
        own = [o.row for o in outputs if o.row.example == number]
        owned = windows.owners([[s for s, _, _ in row.marks] for row in own])
        assert sorted(s for mine in owned for s in mine) == list(range(len(example.sentences)))
        sizes = [len(whole(tokenizer, s).ids) for s in example.sentences]
        assert result.truncated == any(opened + size + 1 > max_length for size in sizes)
        for row in own:
            long = any(opened + sizes[s] + 1 > max_length for s, _, _ in row.marks)
            assert row.truncated == long
    assert task.metrics(examples, results) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_windows_hold_whole_sentences_and_share_some(tokenizers: dict[str, Tokenizer]) -> None:
    task, tokenizer = sequential_sentence_classification, tokenizers["wordpiece"]
    example = read("sequential-sentence-classification", sentences=["a b"] * 9, labels=["x"] * 9)
    rows = task.rows([example], tokenizer, spec_of(task, ["x"], 13))
    cls, sep, *_ = tokenizer.encode("").ids
    a, b = whole(tokenizer, "a b").ids
    assert [row.ids for row in rows] == [
        [cls, *([a, b, sep] * 4)],
        [cls, *([a, b, sep] * 4)],
        [cls, *[a, b, sep] * 3],
    ]
    assert [row.marks for row in rows] == [
        [(0, 1, 3), (1, 4, 6), (2, 7, 9), (3, 10, 12)],
        [(3, 1, 3), (4, 4, 6), (5, 7, 9), (6, 10, 12)],
        [(6, 1, 3), (7, 4, 6), (8, 7, 9)],
    ]


def test_an_over_long_sentence_is_cut_and_told(tokenizers: dict[str, Tokenizer]) -> None:
    task, tokenizer = sequential_sentence_classification, tokenizers["wordpiece"]
    example = read("sequential-sentence-classification", sentences=["a", "b " * 50, "a"], labels=["x"] * 3)
    rows = task.rows([example], tokenizer, spec_of(task, ["x"], 10))
    assert [row.truncated for row in rows] == [False, True, False]
    assert len(rows[1].ids) == 10
    (result,) = task.decode([example], spread(rows, 1, 0), spec_of(task, ["x"], 10))
    assert result.truncated
    assert result.labels == ["x"] * 3


# --- text-classification

eighths = st.integers(-160, 160).map(lambda i: i / 8)  # far enough apart for softmax to tell
table = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(eighths, min_size=3, max_size=3), min_size=n, max_size=n)
)
texts_only = [text_classification.Example("t", None, None, None, record())]


@given(table, st.sampled_from([0.5, 1.0, 3.0]))
def test_one_label_is_the_most_probable(logits: list[list[float]], temperature: float) -> None:
    task = text_classification
    spec = spec_of(task, ["a", "b", "c"], temperature=temperature)
    cut = [i % 2 == 0 for i in range(len(logits))]
    results = task.decode(texts_only * len(logits), outputs_of(logits, cut), spec)
    for row, result, c in zip(logits, results, cut, strict=True):
        expected = scipy.special.softmax(np.array(row) / temperature)
        assert list(result.scores) == ["a", "b", "c"]
        assert list(result.scores.values()) == pytest.approx(expected.tolist(), *CLOSE)
        assert result.label == "abc"[int(np.argmax(row))]
        assert result.score == result.scores[result.label] == max(result.scores.values())
        assert result.truncated == c


@given(table, st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([[], [0.2, 0.5, 0.9]]))
def test_many_labels_are_those_above_their_thresholds(
    logits: list[list[float]], temperature: float, thresholds: list[float]
) -> None:
    task = text_classification
    spec = spec_of(task, ["a", "b", "c"], kind="multi", temperature=temperature, thresholds=thresholds)
    results = task.decode(texts_only * len(logits), outputs_of(logits), spec)
    for row, result in zip(logits, results, strict=True):
        expected = scipy.special.expit(np.array(row) / temperature).tolist()
        assert list(result.scores.values()) == pytest.approx(expected, *CLOSE)
        wanted = thresholds or [0.5] * 3
        assume(all(abs(e - w) > CLOSE[1] or e == w for e, w in zip(expected, wanted, strict=True)))
        assert result.labels == [c for c, e, w in zip("abc", expected, wanted, strict=True) if e >= w]


def test_a_score_is_the_logit() -> None:
    task = text_classification
    spec = spec_of(task, ["score"], kind="regression", temperature=2.0)
    assert task.decode(texts_only * 2, outputs_of([[1.5], [-7]], [True, False]), spec) == [
        task.Score(1.5, True),
        task.Score(-7.0, False),
    ]


@pytest.mark.parametrize(
    ("kind", "gold", "changed"),
    [
        ("single", ["a", "b"], {"temperature"}),
        ("multi", [("a",), ("a", "b")], {"temperature", "thresholds"}),
        ("regression", [1.0, 2.0], set()),
    ],
)
def test_what_is_fitted(kind: str, gold: list[Any], changed: set[str]) -> None:
    task = text_classification
    labels = ["score"] if kind == "regression" else ["a", "b", "c"]
    spec = spec_of(task, labels, kind=kind)
    logits = np.random.default_rng(0).normal(size=(20, len(labels))).tolist()
    examples = [task.Example("t", None, gold[i % 2], None, record()) for i in range(20)]
    fitted = task.calibrate(examples, outputs_of(logits), spec)
    before, after = msgspec.structs.asdict(spec.settings), msgspec.structs.asdict(fitted)
    assert {name for name in before if before[name] != after[name]} == changed
    if kind == "multi":
        assert len(fitted.thresholds) == 3
        assert fitted.thresholds[2] == 0.5  # no text has it


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_tokenized_as_pairs(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    task, tokenizer = text_classification, tokenizers[kind]
    one = read("text-classification", text1="a b", text2="c", label="x")
    long = read("text-classification", text1="a b " * 20, text2="c", label="x")
    rows = task.rows([one, long], tokenizer, spec_of(task, ["x"], pair=True))
    tokenizer.no_truncation()
    expected = tokenizer.encode("a b", "c")
    assert (rows[0].ids, rows[0].types) == (expected.ids, expected.type_ids)
    assert [(row.example, row.truncated, len(row.ids)) for row in rows] == [
        (0, False, len(expected.ids)),
        (1, True, 16),
    ]


@pytest.mark.parametrize("size", [14, 15])
def test_truncation_is_told(tokenizers: dict[str, Tokenizer], size: int) -> None:
    task = text_classification
    example = read("text-classification", text=" ".join("a" * size), label="x")
    (row,) = task.rows([example], tokenizers["wordpiece"], spec_of(task, ["x"], 16))
    assert len(row.ids) == 16
    assert row.truncated == (size == 15)


def test_labels_are_a_set() -> None:
    assert read("text-classification", text="t", labels=["b", "a", "b"]).gold == ("a", "b")


# --- sentence-embedding


@few
@given(seed=seeds, sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_similarities_are_cosines(tokenizers: dict[str, Tokenizer], seed: int, sizes: list[int]) -> None:
    task = sentence_embedding
    forms = {1: ["text1"], 2: ["anchor", "positive"], 3: ["anchor", "positive", "negative"]}
    examples = [
        task.Example(tuple(forms[n]), "text", None, None, record())
        if n == 1
        else read("sentence-embedding", **{name: f"{name} {i}" for name in forms[n]})
        for i, n in enumerate(sizes)
    ]
    spec = spec_of(task)
    rows = task.rows(examples, tokenizers["wordpiece"], spec)
    assert [row.example for row in rows] == [i for i, n in enumerate(sizes) for _ in range(n)]
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(len(rows), 5)).astype(np.float32)
    results = task.decode(examples, [Output(r, v) for r, v in zip(rows, vectors, strict=True)], spec)
    ends = np.cumsum(sizes)
    for n, end, result in zip(sizes, ends, results, strict=True):
        own = vectors[end - n : end]
        if n == 1:
            assert result.embedding == own[0].tolist()
            continue
        assert result.embeddings == own.tolist()
        expected = [float(v @ own[0] / np.linalg.norm(v) / np.linalg.norm(own[0])) for v in own[1:]]
        assert result.similarities == pytest.approx(expected, *CLOSE)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    task = sentence_embedding
    outputs = [Output(Row(0, [1], [0]), np.array(v, np.float32)) for v in ([0, 0], [1, 0])]
    (result,) = task.decode([read("sentence-embedding", anchor="a", positive="b")], outputs, spec_of(task))
    assert result.similarities == [0.0]


def test_one_cut_text_of_several_is_told(tokenizers: dict[str, Tokenizer]) -> None:
    task = sentence_embedding
    examples = [
        read("sentence-embedding", anchor="a", positive="b " * 50),
        read("sentence-embedding", anchor="a", positive="b"),
    ]
    spec = spec_of(task)
    rows = task.rows(examples, tokenizers["wordpiece"], spec)
    outputs = [Output(row, np.ones(2, np.float32)) for row in rows]
    assert [r.truncated for r in task.decode(examples, outputs, spec)] == [True, False]


@pytest.mark.parametrize(("label", "gold"), [(1, "1"), (0, "0"), ("1", "1"), ("x", "x")])
def test_labels_of_pairs_may_be_whole_numbers(label: Any, gold: str) -> None:
    example = read("sentence-embedding", text1="a", text2="b", label=label)
    assert (example.form, example.gold) == ("label", gold)


# --- text-ranking


def ranking_example(query: str, *gold: float) -> text_ranking.Example:
    passages = tuple(f"p{i}" for i in range(len(gold)))
    return text_ranking.Example(query, passages, gold, tuple(g for g in gold if g), None, record())


@few
@given(
    seed=seeds,
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    temperature=st.sampled_from([0.5, 2.0]),
)
def test_relevance_is_a_probability(
    tokenizers: dict[str, Tokenizer], seed: int, sizes: list[int], temperature: float
) -> None:
    task = text_ranking
    examples = [
        read("text-ranking", query="q", passage="p", label=1)
        if n == 1
        else read("text-ranking", query="q", positive="p", negatives=["n"] * (n - 1))
        for n in sizes
    ]
    spec = spec_of(task, temperature=temperature)
    rows = task.rows(examples, tokenizers["wordpiece"], spec)
    assert [row.example for row in rows] == [i for i, n in enumerate(sizes) for _ in range(n)]
    logits = np.random.default_rng(seed).normal(size=len(rows)).astype(np.float32)
    results = task.decode(examples, [Output(r, x[None]) for r, x in zip(rows, logits, strict=True)], spec)
    expected = scipy.special.expit(logits.astype(np.float64) / temperature).tolist()
    found = [s for r in results for s in ([r.score] if isinstance(r, task.Result) else r.scores)]
    assert [isinstance(r, task.Ranked) for r in results] == [n > 1 for n in sizes]
    assert found == pytest.approx(expected, *CLOSE)


def test_ranking_of_lists() -> None:
    """The relevant passage is first, third and last but within the first ten."""
    task = text_ranking
    examples = [ranking_example(q, 1.0, 0.0, 0.0) for q in ("one", "two")]
    results = [task.Ranked([0.9, 0.1, 0.2]), task.Ranked([0.1, 0.9, 0.2])]
    expected = {"recall_at_10": 1.0, "mrr_at_10": (1 + 1 / 3) / 2, "ndcg_at_10": (1 + 1 / 2) / 2}
    assert task.metrics(examples, results) == pytest.approx(expected)


def test_records_of_the_same_query_are_one_list() -> None:
    task = text_ranking
    examples = [
        ranking_example("one", 0.0),
        ranking_example("two", 1.0),
        ranking_example("one", 1.0),
        ranking_example("one", 0.0),
        ranking_example("none", 0.0),
    ]
    results = [task.Result(s) for s in (0.9, 0.1, 0.5, 0.2, 0.9)]
    found = task.metrics(examples, results)
    expected = {"recall_at_10": 1.0, "mrr_at_10": (1 / 2 + 1) / 2, "ndcg_at_10": (1 / np.log2(3) + 1) / 2}
    assert found == pytest.approx(expected)  # and "none" has nothing to be found


def test_what_is_relevant_but_no_candidate_counts_as_not_found() -> None:
    task = text_ranking
    example = dataclasses.replace(ranking_example("q", 1.0, 0.0), ideal=(1.0, 1.0))
    found = task.metrics([example], [task.Ranked([0.9, 0.1])])
    assert found["recall_at_10"] == 0.5
    assert found["ndcg_at_10"] == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_certainty_of_relevance() -> None:
    task = text_ranking
    confidence, right = task.certainty(
        [ranking_example("q", 1.0, 0.0), ranking_example("q", 0.0)],
        [task.Ranked([0.9, 0.6]), task.Result(0.2)],
    )
    assert confidence == pytest.approx([0.9, 0.6, 0.8])
    assert right.tolist() == [True, False, True]


# --- collections

DOCUMENTS = {
    "d1": "red apples grow on trees",
    "d2": "red apples are sweet",
    "d3": "green pears are sour",
    "d4": "ships sail the sea",
    "d5": "red wine comes from grapes",
}
QUERIES = {"q1": ("red apples", "train"), "q2": ("sour pears", "test"), "q3": ("sailing ships sea", "test")}
QRELS = [("q1", "d1", 1), ("q1", "d2", 2), ("q2", "d3", 1), ("q2", "d4", 0), ("q3", "d4", 1)]


def collection(folder: Path, **changed: list[dict[str, Any]]) -> Path:
    files = {
        "corpus": [{"id": i, "text": t} for i, t in DOCUMENTS.items()],
        "queries": [{"id": i, "text": t, "split": s} for i, (t, s) in QUERIES.items()],
        "qrels": [{"query_id": q, "doc_id": d, "relevance": r} for q, d, r in QRELS],
    }
    for name, rows in (files | changed).items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def test_a_collection(tmp_path: Path) -> None:
    found = retrieval.read(collection(tmp_path), "test")
    assert {i: d.fields["text"] for i, d in found.documents.items()} == DOCUMENTS
    assert list(found.queries) == ["q2", "q3"]
    assert found.relevant["q1"] == {"d1": 1.0, "d2": 2.0}
    assert found.relevant["q2"] == {"d3": 1.0}  # a relevance of 0 is none


def test_a_collection_without_splits_is_all_of_each(tmp_path: Path) -> None:
    queries = [{"id": i, "text": t} for i, (t, _) in QUERIES.items()]
    folder = collection(tmp_path, queries=queries)
    for split in ("train", "dev", "test"):
        assert list(retrieval.read(folder, split).queries) == list(QUERIES)


@pytest.mark.parametrize(
    ("changed", "split", "expected"),
    [
        (
            {"corpus": [{"id": "d1", "text": "x"}, {"id": "d1", "text": "y"}]},
            "test",
            "corpus.jsonl:2: field 'id': 'd1' occurs twice",
        ),
        (
            {"queries": [{"id": "q1", "text": "x"}, {"id": "q2", "text": "y"}, {"id": "q1", "text": "x"}]},
            "test",
            "queries.jsonl:3: field 'id': 'q1' occurs twice",
        ),
        (
            {"corpus": [{"id": "d1", "text": " "}]},
            "test",
            "corpus.jsonl:1: field 'text': is empty or only white space",
        ),
        ({"corpus": [{"id": 1, "text": "x"}]}, "test", "corpus.jsonl:1: field 'id': must be a text, not int"),
        (
            {"qrels": [{"query_id": "q9", "doc_id": "d1", "relevance": 1}]},
            "test",
            "qrels.jsonl:1: field 'query_id': unknown id 'q9'",
        ),
        (
            {"qrels": [{"query_id": "q1", "doc_id": "d9", "relevance": 1}]},
            "test",
            "qrels.jsonl:1: field 'doc_id': unknown id 'd9'",
        ),
        (
            {"qrels": [{"query_id": "q1", "doc_id": "d1", "relevance": -1}]},
            "test",
            "qrels.jsonl:1: field 'relevance': -1 is below 0",
        ),
        (
            {"qrels": [{"query_id": "q1", "doc_id": "d1"}]},
            "test",
            "qrels.jsonl:1: field 'relevance': must be a number, not None",
        ),
        (
            {
                "qrels": [
                    {"query_id": "q2", "doc_id": "d3", "relevance": 1},
                    {"query_id": "q3", "doc_id": "d1", "relevance": 0},
                ]
            },
            "test",
            "queries.jsonl:3: field 'id': has no relevant document in qrels.jsonl",
        ),
        ({}, "dev", "queries.jsonl: has no query of the split 'dev'"),
        ({"qrels": []}, "test", "qrels.jsonl: holds no records"),
    ],
)
@pytest.mark.parametrize("task", [sentence_embedding, text_ranking], ids=lambda t: t.__name__.split(".")[-1])
def test_bad_collections(
    task: Any, changed: dict[str, list[dict[str, Any]]], split: str, expected: str, tmp_path: Path
) -> None:
    folder = collection(tmp_path, **changed)
    assert complaint(lambda: task.read_folder(folder, split)) == f"{tmp_path}/{expected}"


def test_pairs_of_a_collection(tmp_path: Path) -> None:
    examples = sentence_embedding.read_folder(collection(tmp_path), "train")
    assert [(e.texts, e.form) for e in examples] == [
        (("red apples", DOCUMENTS["d1"]), "pair"),
        (("red apples", DOCUMENTS["d2"]), "pair"),
    ]
    sentence_embedding.uniform(examples)


def test_vectors_of_a_collection(tmp_path: Path) -> None:
    """A vector for each document and query; one that points the right way finds all."""
    task = sentence_embedding
    examples = task.read_folder(collection(tmp_path), "test")
    assert [(e.form, e.id, e.texts[0]) for e in examples] == [
        *(("document", i, t) for i, t in DOCUMENTS.items()),
        *(("query", i, t) for i, (t, s) in QUERIES.items() if s == "test"),
    ]
    assert [e.relevant for e in examples[-2:]] == [{"d3": 1.0}, {"d4": 1.0}]
    axes = np.eye(5).tolist()
    results = [task.Result(v) for v in (*axes, axes[2], axes[3])]
    figures = task.metrics(examples, results)
    assert figures == pytest.approx({"recall_at_10": 1.0, "mrr_at_10": 1.0, "ndcg_at_10": 1.0})


def test_negatives_of_a_collection_are_never_relevant(tmp_path: Path) -> None:
    examples = text_ranking.read_folder(collection(tmp_path), "train")
    relevant = {DOCUMENTS["d1"], DOCUMENTS["d2"]}
    assert [e.passages[0] for e in examples] == [DOCUMENTS["d1"], DOCUMENTS["d2"]]
    for example in examples:
        assert example.query == "red apples"
        assert example.gold == (1.0, 0.0, 0.0, 0.0)
        assert example.passages[1] == DOCUMENTS["d5"]  # "red" makes it the hardest
        assert not relevant & set(example.passages[1:])
    text_ranking.uniform(examples)


def test_candidates_of_a_collection(tmp_path: Path) -> None:
    examples = text_ranking.read_folder(collection(tmp_path), "test")
    assert [e.query for e in examples] == ["sour pears", "sailing ships sea"]
    for example, right in zip(examples, ("d3", "d4"), strict=True):
        assert example.passages[0] == DOCUMENTS[right]
        words = set(example.query.split())
        assert all(words & set(p.split()) for p in example.passages)  # nothing in common, no candidate
        assert example.gold == (1.0, *[0.0] * (len(example.passages) - 1))
        assert example.ideal == (1.0,)


def test_a_folder_is_read_through_read_labelled(tmp_path: Path) -> None:
    folder = collection(tmp_path)
    for name in ("sentence-embedding", "text-ranking"):
        task: Any = tasks.load(name)
        assert tasks.read_labelled(task, folder, split="test") == task.read_folder(folder, "test")


def test_candidates_are_the_best_of_bm25(tmp_path: Path) -> None:
    found = retrieval.candidates(retrieval.read(collection(tmp_path), "train"), 3)
    assert list(found) == ["q1"]
    assert set(found["q1"]) == {"d1", "d2", "d5"}
    assert found["q1"][2] == "d5"


# --- tables and reports

label = st.sampled_from(["a", "b", "c", "é 漢"])


def table_of(tables: list[report.Table], title: str) -> report.Table:
    (found,) = (t for t in tables if t.title.startswith(title))
    return found


def check_per_label(found: report.Table, gold: list[str], said: list[str]) -> None:
    names = sorted({*gold, *said})
    expected = precision_recall_fscore_support(gold, said, labels=names, zero_division=0)
    assert [row[0] for row in found.rows] == names
    for row, precision, recall, f1, support in zip(found.rows, *expected, strict=True):
        assert row[1:5] == pytest.approx([precision, recall, f1, support])
        assert row[5] == said.count(row[0])


def check_confusion(found: report.Table, gold: list[str], said: list[str]) -> None:
    names = sorted({*gold, *said})
    assert found.head == ["", *names]
    assert [row[0] for row in found.rows] == names
    assert [row[1:] for row in found.rows] == confusion_matrix(gold, said, labels=[*names, "-"])[
        :-1, :-1
    ].tolist()


@given(st.lists(st.tuples(label, label), min_size=1, max_size=40))
def test_tables_of_one_label_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    task = text_classification
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    examples = [task.Example(f"text {i}", None, g, None, Record({}, "f", i)) for i, g in enumerate(gold)]
    results = [task.Result(s, 1 / (2 + i), {}) for i, s in enumerate(said)]
    tables = task.tables(examples, results)
    check_per_label(table_of(tables, "Per label"), gold, said)
    check_confusion(table_of(tables, "Confusion"), gold, said)
    wrong = [i for i, (g, s) in enumerate(pairs) if g != s]  # the surest first
    assert [row[0] for row in table_of(tables, "Worst").rows] == wrong[: report.WORST]


@given(st.lists(st.tuples(st.sets(label), st.sets(label)), min_size=1, max_size=20))
def test_tables_of_many_labels_equal_scikit_learn(pairs: list[tuple[set[str], set[str]]]) -> None:
    task = text_classification
    examples = [task.Example("t", None, tuple(sorted(g)), None, record()) for g, _ in pairs]
    results = [task.Labels(sorted(s), dict.fromkeys("abc", 0.5)) for _, s in pairs]
    tables = task.tables(examples, results)
    names = sorted(set().union(*(g | s for g, s in pairs)))
    rows = table_of(tables, "Per label").rows
    assert [row[0] for row in rows] == names
    for name, *figures in rows:
        gold, said = ([name in pair[side] for pair in pairs] for side in (0, 1))
        precision, recall, f1, _ = precision_recall_fscore_support(
            gold, said, average="binary", zero_division=0
        )
        assert figures == pytest.approx([precision, recall, f1, sum(gold), sum(said)])
    assert len(table_of(tables, "Worst").rows) == min(report.WORST, sum(g != s for g, s in pairs))


@given(st.lists(st.lists(st.tuples(label, label), min_size=1, max_size=6), min_size=1, max_size=6))
def test_tables_of_sentences_equal_scikit_learn(documents: list[list[tuple[str, str]]]) -> None:
    task = sequential_sentence_classification
    examples = [task.Example(("s",) * len(d), tuple(g for g, _ in d), None, record()) for d in documents]
    results = [task.Result([s for _, s in d], [0.5] * len(d)) for d in documents]
    gold, said = ([pair[side] for d in documents for pair in d] for side in (0, 1))
    tables = task.tables(examples, results)
    check_per_label(table_of(tables, "Per label"), gold, said)
    check_confusion(table_of(tables, "Confusion"), gold, said)


def test_the_surest_wrong_sentence_is_first() -> None:
    task = sequential_sentence_classification
    example = task.Example(("s0", "s1", "s2"), ("a", "a", "a"), None, record())
    tables = task.tables([example], [task.Result(["b", "a", "b"], [0.6, 1.0, 0.999])])
    assert table_of(tables, "Worst").rows == [[7, 2, "a", "b (0.999)", "s2"], [7, 0, "a", "b (0.600)", "s0"]]


def test_certainty_of_tags() -> None:
    task = token_classification
    example = read("token-classification", tokens=["w0", "w1"], tags=["B-x", "O"])
    confidence, right = task.certainty([example], [task.Result([], ["B-x", "B-x"], [0.9, 0.6])])
    assert (confidence.tolist(), right.tolist()) == ([0.9, 0.6], [True, False])


def test_tables_of_entities() -> None:
    task = token_classification
    example = read("token-classification", tokens=["w0", "w1", "w2", "w3"], tags=["B-x", "I-x", "O", "B-y"])
    result = task.Result([], ["B-x", "I-x", "B-x", "O"], [0.9, 0.9, 0.8, 0.7])
    tables = task.tables([example], [result])
    assert table_of(tables, "Per label").rows == [
        ["x", 0.5, 1.0, pytest.approx(2 / 3), 1, 2],
        ["y", 0.0, 0.0, 0.0, 1, 0],
    ]
    check_confusion(table_of(tables, "Confusion"), list(example.tags), result.tags or [])
    assert table_of(tables, "Worst").rows == [
        [7, 2, "w2", "O", "B-x (0.800)"],
        [7, 3, "w3", "B-y", "O (0.700)"],
    ]


@given(st.lists(st.tuples(label, label), min_size=1, max_size=20))
def test_tables_of_plain_tags_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    task = token_classification
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    example = read("token-classification", tokens=["w"] * len(pairs), tags=gold)
    tables = task.tables([example], [task.Result([], said, [0.5] * len(said))])
    check_per_label(table_of(tables, "Per label"), gold, said)
    check_confusion(table_of(tables, "Confusion"), gold, said)


def test_rare_labels_are_counted_together() -> None:
    gold = [f"l{i:02}" for i in range(40) for _ in range(50 - i)]
    found = report.confusion(gold, gold)
    assert found.head == ["", *(f"l{i:02}" for i in range(30)), "(others)"]
    assert found.rows[-1][-1] == sum(50 - i for i in range(30, 40))
    assert sum(sum(row[1:]) for row in found.rows) == len(gold)


SCRIPT = "<script>alert('&')</script>"


def every_table() -> list[tuple[str, list[Any], list[Any]]]:
    """Of each task an example and a result that is wrong, with a text that a page must not run."""
    rank = text_ranking.Example(SCRIPT, (SCRIPT,), (1.0,), (1.0,), None, record())
    source = text2text_generation.Example(SCRIPT, (SCRIPT,), None, record())
    answered = question_answering.Example(SCRIPT, SCRIPT, ((SCRIPT, 0),), None, record())
    compare = sentence_embedding.Compared([], [0.1, 0.9])
    return [
        (
            "text-classification",
            [text_classification.Example(SCRIPT, SCRIPT, SCRIPT, None, record())],
            [text_classification.Result("x", 0.5, {})],
        ),
        (
            "text-classification",
            [text_classification.Example(SCRIPT, None, (SCRIPT,), None, record())],
            [text_classification.Labels(["x"], {"x": 0.5})],
        ),
        (
            "text-classification",
            [text_classification.Example(SCRIPT, None, 1.0, None, record())],
            [text_classification.Score(2.0)],
        ),
        (
            "token-classification",
            [read("token-classification", tokens=[SCRIPT], tags=[SCRIPT])],
            [token_classification.Result([], ["x"], [0.5])],
        ),
        (
            "sequential-sentence-classification",
            [read("sequential-sentence-classification", sentences=[SCRIPT], labels=[SCRIPT])],
            [sequential_sentence_classification.Result(["x"], [0.5])],
        ),
        ("question-answering", [answered], [question_answering.Result("no", 0, 2, 0.5, [])]),
        ("sentence-embedding", [read("sentence-embedding", text1=SCRIPT, text2="b", score=1)], [compare]),
        (
            "sentence-embedding",
            [read("sentence-embedding", anchor=SCRIPT, positive="b", negative="c")],
            [compare],
        ),
        ("text-ranking", [rank], [text_ranking.Result(0.1)]),
        ("text2text-generation", [source], [generation.Result("no", 0.0, [])]),
        (
            "text-generation",
            [text_generation.Example("", SCRIPT, None, record())],
            [text_generation.Result(1.0, 1, 1)],
        ),
    ]


@pytest.mark.parametrize("place", range(len(every_table())))
def test_reports_of_every_task(place: int, tmp_path: Path) -> None:
    name, examples, results = every_table()[place]
    tables = tasks.load(name).tables(examples, results)
    assert any(table.rows for table in tables)
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
    report.Report(task=name, n=1, metrics={"f1": 0.5}, tables=tables).write(tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
    told = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert told["tables"] == [{"title": t.title, "head": t.head, "rows": t.rows} for t in tables]


def test_a_report(tmp_path: Path) -> None:
    shown = report.Report(
        task="<b>",
        n=3,
        metrics={"f1": 0.123456},
        calibration={"temperature": 1.5},
        counts={"cut": 2},
        tables=[report.Table("<i>", ["<u>"], [["é 漢"]]), report.Table("empty", ["x"], [])],
    )
    shown.write(tmp_path)
    content = (tmp_path / "report.json").read_bytes()
    assert msgspec.json.decode(content, type=report.Report) == shown
    page = (tmp_path / "report.html").read_text("utf-8")
    for piece in ("0.1235", "1.5000", ">2<", "é 漢", "&lt;b&gt;: 3 examples", "&lt;i&gt;", "&lt;u&gt;"):
        assert piece in page
    for piece in ("<b>", "<i>", "<u>", "empty"):
        assert piece not in page


def test_no_more_errors_are_shown_than_a_page_holds() -> None:
    found = report.worst(["n"], ([n] for n in range(report.WORST + 5)))
    assert [row[0] for row in found.rows] == list(range(report.WORST))


# --- what went wrong once


def test_answers_without_one_of_their_lists() -> None:
    fields = {"question": "q", "context": "c", "answers": {"text": ["c"], "x": 1}}
    assert "must be an object with the lists" in complaint(lambda: read("question-answering", **fields))


def test_equal_scores_do_not_favour_the_right_passage() -> None:
    example = read("text-ranking", query="q", positive="p", negatives=[f"n{i}" for i in range(20)])
    figures = text_ranking.metrics([example], [text_ranking.Ranked([0.5] * 21)])
    assert figures == {"recall_at_10": 0.0, "mrr_at_10": 0.0, "ndcg_at_10": 0.0}


def test_figures_keep_their_names_where_nothing_is_an_entity() -> None:
    example = read("token-classification", tokens=["a", "b"], tags=["O", "O"])
    figures = token_classification.metrics(
        [example], [token_classification.Result([], ["O", "O"], [1.0, 1.0])]
    )
    assert (figures["entity_f1"], figures["token_accuracy"]) == (0.0, 1.0)


def test_equal_margins_are_not_parted() -> None:
    task, spec = question_answering, spec_of(question_answering, unanswerable=True)
    golds: list[dict[str, Any]] = [
        {"text": ["x"], "answer_start": [0]},
        *[{"text": [], "answer_start": []}] * 2,
    ]
    examples = [read("question-answering", question="q", context="x y", answers=g) for g in golds]
    marks = np.array([[-1, -1], [0, 1], [2, 3]])
    logits = np.array([[0, 0], [1, 1], [0, 0]], np.float32)
    outputs = [Output(Row(i, [1, 2, 3], [0, 0, 0], marks), logits) for i in range(3)]
    fitted = dataclasses.replace(spec, settings=task.calibrate(examples, outputs, spec))
    assert task.metrics(examples, task.decode(examples, outputs, fitted))["f1"] == pytest.approx(2 / 3)


def test_an_answer_is_found_within_its_white_space(tokenizers: dict[str, Tokenizer]) -> None:
    answers = {"text": ["  b"], "answer_start": [1]}
    for tokenizer in tokenizers.values():
        example = read("question-answering", question="q", context="a  b", answers=answers)
        spec = spec_of(question_answering, max_length=32)
        (row,) = question_answering.rows([example], tokenizer, spec)
        first, last = question_answering.target(example, row)
        assert first > 0
        assert example.context[row.marks[first][0] : row.marks[last][1]].strip() == "b"


def test_white_space_is_no_answer(tokenizers: dict[str, Tokenizer]) -> None:
    example = read(
        "question-answering", question="q", context="1 .", answers={"text": [], "answer_start": []}
    )
    spec = spec_of(question_answering, max_length=32)
    (row,) = question_answering.rows([example], tokenizers["byte-level"], spec)
    logits = np.zeros((len(row.ids), 2), np.float32)
    (result,) = question_answering.decode([example], [Output(row, logits)], spec)
    assert all(c.answer.strip() == c.answer != "" for c in result.candidates)


@given(st.text(alphabet="x😀é ", min_size=1, max_size=80).filter(str.strip))
@few
def test_any_question_leaves_room_for_the_context(tokenizers: dict[str, Tokenizer], question: str) -> None:
    for tokenizer in tokenizers.values():
        example = read(
            "question-answering",
            question=question,
            context="a b c d e f g h",
            answers={"text": [], "answer_start": []},
        )
        rows = question_answering.rows([example], tokenizer, spec_of(question_answering, max_length=32))
        assert all(len(r.ids) <= 32 and (np.array(r.marks) >= 0).any() for r in rows)


def test_a_record_with_two_kinds_of_gold() -> None:
    first, second = (
        read("text-classification", text="t", labels=["x"]),
        read("text-classification", text="t", labels=["x"], label="x"),
    )
    assert "field 'labels': the other records have no 'label'" in complaint(
        lambda: text_classification.uniform([first, second])
    )


def test_words_in_common_make_candidates(tmp_path: Path) -> None:
    """Stop words are one language's: a corpus of them is one like others."""
    folder = tmp_path / "stop"
    folder.mkdir()
    files: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"id": "d1", "text": "a"}, {"id": "d2", "text": "the"}],
        "queries": [{"id": "q1", "text": "the"}, {"id": "q2", "text": "zzz"}],
        "qrels": [{"query_id": f"q{i}", "doc_id": "d2", "relevance": 1} for i in (1, 2)],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = retrieval.candidates(retrieval.read(folder, "test"), 5)
    assert found == {"q1": ["d2"], "q2": []}
