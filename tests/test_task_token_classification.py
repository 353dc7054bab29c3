"""Tags: words, tokens, entities; a model that knows all is read as knowing all."""

from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from headway.core import tasks, windows
from headway.core.tag_schemes import scheme_of
from headway.core.tasks import (
    Output,
    text_classification,
    token_classification,
)
from tests.task_examples import (
    KINDS,
    compact,
    few,
    outputs_of,
    plain_words,
    read,
    record,
    seeds,
    spec_of,
    spread,
    whole,
)


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-x I-x", "bio"),
        ("O B-x", "bio"),
        ("O S-x", "bioes"),
        ("O B-x E-x", "bioes"),
        ("NOUN VERB", "plain"),
        ("O NOUN", "io"),
        ("B-x NOUN", "bio"),
        ("B- O", "bio"),
        ("O", "bio"),
    ],
)
def test_schemes(tags: str, scheme: str) -> None:
    assert scheme_of(tags.split()) == scheme


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
    found = [
        normal.normalize_str(text[a:b]).strip() for a, b in token_classification.words_of(text, runs=True)
    ]
    assert [word for word in found if word] == wanted
    if "は" not in text:
        assert token_classification.words_of(text) == token_classification.words_of(text, runs=True)


def test_an_entity_ends_where_its_tokens_do() -> None:
    """A tokenizer that is not BERT's may make one token of several ideographs."""
    task, raw = token_classification, Tokenizer(models.WordLevel({"東京": 0, "都": 1, "?": 2}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split("東京", "isolated")  # type: ignore[assignment]
    example, spec = task.read(record(text="東京都"), labelled=False), spec_of(task, ["O", "B-x"], 8)
    assert len(example.words) == 3
    (row,) = task.rows([example], raw, spec)
    found = task.decode([example], [Output(row, np.array([[0, 9], [9, 0]], np.float32))], spec)
    assert [(e.text, e.start, e.end) for e in found[0].entities] == [("東京", 0, 2)]


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


def test_figures_keep_their_names_where_nothing_is_an_entity() -> None:
    example = read("token-classification", tokens=["a", "b"], tags=["O", "O"])
    figures = token_classification.metrics(
        [example], [token_classification.Result([], ["O", "O"], [1.0, 1.0])]
    )
    assert (figures["entity_f1"], figures["token_accuracy"]) == (0.0, 1.0)
