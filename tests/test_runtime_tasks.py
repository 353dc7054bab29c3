"""The decoders of the encoder tasks: as the tasks' own, under every setting of a call, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core import siblings, tasks
from headway.core.errors import InputError, UsageError
from headway.core.tasks import Output, Row, Spec, sentence_embedding, token_classification
from headway.core.tasks.token_classification import Marks
from headway.runtime.pipeline import EncoderPipeline
from headway.runtime.tasks import base
from headway.runtime.tasks.question_answering import answer_over
from tests.test_against_pipelines import TAGS, joined, opened, random_model, unusual, words
from tests.tolerance import TOLERANCE

CLOSE = TOLERANCE["float32"]
AGGREGATIONS = ["first", "mean", "max", "strict"]
few = settings(max_examples=25)
texts = st.lists(joined(words | unusual).filter(str.strip), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def pipes(pretrained: Path) -> dict[str, EncoderPipeline]:
    """One of each task, with random weights."""
    heads: dict[str, tuple[Any, list[str]]] = {
        "text-classification": (transformers.AutoModelForSequenceClassification, ["a", "b", "c", "d"]),
        "token-classification": (transformers.AutoModelForTokenClassification, TAGS),
        "question-answering": (transformers.AutoModelForQuestionAnswering, []),
    }
    return {
        task: opened(task, random_model(kind, pretrained, labels), pretrained, labels)
        for task, (kind, labels) in heads.items()
    }


def test_every_encoder_task_has_a_decoder() -> None:
    encoders = [name for name in tasks.names() if hasattr(tasks.load(name), "GRAPH")]
    assert siblings.names(base.FAMILY) == encoders


# --- token-classification


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@few
@given(given=texts, times=st.sampled_from([1, 12]))
def test_entities_are_those_of_the_plain_way(
    aggregation: Any, constrained: bool, given: list[str], times: int, pipes: dict[str, EncoderPipeline]
) -> None:
    pipe = pipes["token-classification"]
    examples: list[Any] = [
        tasks.read_input(pipe.task, own, i)
        for i, text in enumerate(given)
        for own in (text * times, {"tokens": text.split() * times})
    ]
    found: list[Any] = pipe.predict(examples, aggregation=aggregation, constrained=constrained)
    plain = token_classification.decode(examples, pipe.outputs(examples), pipe.spec, aggregation, constrained)
    alone: list[Any] = [
        pipe.predict([e], aggregation=aggregation, constrained=constrained)[0] for e in examples
    ]
    for one, other, single in zip(found, plain, alone, strict=True):
        assert [(e.label, e.start, e.end) for e in one.entities] == [
            (e.label, e.start, e.end) for e in other.entities
        ]
        assert [e.score for e in one.entities] == pytest.approx([e.score for e in other.entities], *CLOSE)
        assert one.tags == other.tags == single.tags


def tagged(logits: list[list[float]], words_of_tokens: list[int], **options: Any) -> list[Any]:
    """Results of one record of tokens, in each aggregation; the tokens' logits are given."""
    task: Any = token_classification
    count = max(words_of_tokens) + 1
    example = tasks.read_input(task, {"tokens": ["w"] * count}, 0)
    first = [(w, words_of_tokens.index(w)) for w in range(count)]
    row = Row(0, [0] * len(logits), [0] * len(logits), Marks(first, words_of_tokens))
    outputs = [Output(row, np.array(logits, np.float32))]
    decoder = base.load("token-classification")
    spec = Spec(TAGS, 64, task.Settings(**options))
    return [decoder.decode([example], outputs, spec, decoder.Call(aggregation=kind)) for kind in AGGREGATIONS]


def test_words_of_several_tokens() -> None:
    """O, B-x, I-x, B-y, I-y: the first token says O, the second a surer B-x, the third B-x, too."""
    two = np.log([[0.55, 0.45 - 3e-9, 1e-9, 1e-9, 1e-9], [0.1, 0.9 - 3e-9, 1e-9, 1e-9, 1e-9]]).tolist()
    found = {kind: r[0] for kind, r in zip(AGGREGATIONS, tagged(two, [0, 0]), strict=True)}
    assert {kind: r.tags for kind, r in found.items()} == {
        "first": ["O"],
        "mean": ["B-x"],
        "max": ["B-x"],
        "strict": ["O"],
    }
    scores = {kind: r.scores[0] for kind, r in found.items()}
    assert scores == pytest.approx({"first": 0.55, "mean": 0.675, "max": 0.9, "strict": 0.55}, 1e-5)


def test_tokens_that_agree_on_the_label_are_strictly_one() -> None:
    """The rest of a word may say I- where its first token says B-."""
    logits = [[0.0, 9, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 0, 9], [9, 0, 0, 0, 0]]
    strict = tagged(logits, [0, 0, 1, 1])[-1][0]
    assert strict.tags == ["B-x", "O"]


def test_an_entity_goes_on_only_where_it_began() -> None:
    logits = [[0.0, 2, 3, 0, 0], [0, 0, 5, -9, 0], [-1, -3, -3, -3, 5], [0, 0, 0, 5, 0]]
    result = tagged(logits, [0, 1, 2, 3])[0][0]
    assert result.tags == ["B-x", "I-x", "O", "B-y"]


def test_the_score_of_an_entity_is_its_probability(pipes: dict[str, EncoderPipeline]) -> None:
    """Of one word: what the model says of the tags that may begin a text."""
    pipe = pipes["token-classification"]
    (output,) = pipe.outputs([tasks.read_input(pipe.task, "parcel", 0)])
    logits = output.logits[output.row.marks.first[0][1]].astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum()
    logits[0] = -np.inf  # an entity is the best that is left
    able = chances[[0, 1, 3]]
    result: Any = pipe("parcel", score="entity")
    mean: Any = pipe("parcel")
    assert [e.label for e in result.entities] == [e.label for e in mean.entities]
    for entity, plain in zip(result.entities, mean.entities, strict=True):
        own = chances[TAGS.index(f"B-{entity.label}")]
        assert plain.score == pytest.approx(own, *CLOSE)
        assert entity.score == pytest.approx(own / able.sum(), *CLOSE)


# --- question-answering


@few
@given(context=joined(words | unusual).filter(str.strip), count=st.integers(1, 5), longest=st.integers(1, 6))
def test_candidates_share_no_character(
    context: str, count: int, longest: int, pipes: dict[str, EncoderPipeline]
) -> None:
    given = {"question": "where is it", "context": context * 5}
    pipe = pipes["question-answering"]
    result: Any = pipe(given, candidates=count, longest_answer=longest)
    every: Any = pipe(given, longest_answer=longest)
    assert result.answer == every.answer
    assert len(result.candidates) <= count
    assert result.score == pytest.approx(every.score)
    taken = np.zeros(len(given["context"]), int)
    for candidate in result.candidates:
        taken[candidate.start : candidate.end] += 1
    assert taken.max() <= 1
    scores = [candidate.score for candidate in result.candidates]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("unanswerable", [False, True])
def test_many_contexts_of_one_question(unanswerable: bool, pretrained: Path) -> None:
    model = random_model(transformers.AutoModelForQuestionAnswering, pretrained)
    contexts = ["my parcel is late", "thanks", "the refund , the delivery ! " * 9, "where is the refund"]
    options = {"unanswerable": unanswerable, "threshold": 0.5}
    pipe = opened("question-answering", model, pretrained, [], **options)
    answers = answer_over(pipe, "where is it", contexts, candidates=2)
    alone: list[Any] = pipe([{"question": "where is it", "context": c} for c in contexts], candidates=2)
    wanted = {(i, c.start, c.end) for i, r in enumerate(alone) if r.answer for c in r.candidates}
    assert {(a.context, a.start, a.end) for a in answers} == wanted
    assert all(contexts[a.context][a.start : a.end] == a.answer for a in answers)
    scores = [a.score for a in answers]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1 + CLOSE[1]
    assert answer_over(pipe, "where", []) == []
    (one,) = answer_over(pipe, "where is it", contexts[:1], candidates=1) or [None]
    single: Any = pipe({"question": "where is it", "context": contexts[0]}, candidates=1)
    assert (one.answer if one else "") == single.answer


def test_a_context_of_spaces_is_refused(pipes: dict[str, EncoderPipeline]) -> None:
    with pytest.raises(InputError, match="input 1: field 'context': is empty or only white space"):
        answer_over(pipes["question-answering"], "where", ["here", " \n"])
    with pytest.raises(UsageError, match="wants a question-answering bundle"):
        answer_over(pipes["text-classification"], "where", ["here"])


# --- sentence-embedding


@pytest.fixture(scope="module")
def embedder() -> EncoderPipeline:
    return embedding_pipe()


class Vectors:
    """A backend whose vectors are functions of the texts' lengths and ids."""

    pads = True

    def run(self, batches: Any) -> list[Any]:
        return [{"sentence_embedding": np.stack([self._of(b, i) for i in range(len(b))])} for b in batches]

    def _of(self, batch: Any, i: int) -> Any:
        ids = batch.ids[batch.offsets[i] : batch.offsets[i + 1]]
        vector = np.random.default_rng(ids.tolist()).normal(size=20)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def embedding_pipe(**options: Any) -> EncoderPipeline:
    from types import SimpleNamespace

    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[UNK]", "a", "b", "c", "d"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))  # type: ignore[call-arg]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    task: Any = sentence_embedding
    manifest: Any = SimpleNamespace(task="sentence-embedding")
    spec = Spec([], 64, task.Settings(**options))
    return EncoderPipeline(manifest, "fp32", task, spec, tokenizer, Vectors())


def test_prefixes_of_vectors(embedder: EncoderPipeline) -> None:
    whole: Any = embedder("a b")
    cut: Any = embedder("a b", dimensions=8)
    first = np.array(whole.embedding[:8])
    assert cut.embedding == pytest.approx((first / np.linalg.norm(first)).tolist(), *CLOSE)
    assert embedder("a b", dimensions=20) == whole
    bare: Any = embedding_pipe(normalize=False)("a b", dimensions=8)
    assert bare.embedding == whole.embedding[:8]


def test_vectors_for_storage(embedder: EncoderPipeline) -> None:
    whole: Any = embedder("a b", dimensions=12)
    vector = np.array(whole.embedding)
    small: Any = embedder("a b", dimensions=12, output="int8")
    assert max(map(abs, small.embedding)) == 127
    np.testing.assert_allclose(np.array(small.embedding) * small.scale, vector, atol=small.scale / 2 + 1e-7)
    bits: Any = embedder("a b", dimensions=12, output="binary")
    assert len(bits.embedding) == 2
    assert np.unpackbits(np.array(bits.embedding, np.uint8), count=12).tolist() == (vector > 0).tolist()


def test_similarity(embedder: EncoderPipeline) -> None:
    left, right = ["a", "b c", "a a"], ["a", "d"]
    found = embedder.similarity(left, right, dimensions=6)
    a, b = ([np.array(r.embedding) for r in embedder(side, dimensions=6)] for side in (left, right))  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, np.array(a) @ np.array(b).T, *CLOSE)
    assert found[0, 0] == pytest.approx(1)
    np.testing.assert_allclose(embedder.similarity("a", right), embedder.similarity(["a"], right))
    assert embedder.similarity([], right).shape == (0, 2)
    with pytest.raises(InputError, match="input 1"):
        embedder.similarity("a", [" "])


# --- text-classification


def test_the_best_labels_alone(pipes: dict[str, EncoderPipeline]) -> None:
    pipe = pipes["text-classification"]
    whole: Any = pipe("where is my parcel")
    ordered = sorted(whole.scores, key=lambda label: -whole.scores[label])
    for k in (1, 2, 4, 9):
        best: Any = pipe("where is my parcel", top_k=k)
        assert best.scores == {label: whole.scores[label] for label in ordered[:k]}
        assert list(best.scores) == ordered[:k]
        assert (best.label, best.score) == (whole.label, whole.score)


# --- what is refused


@pytest.mark.parametrize(
    ("task", "options", "problem"),
    [
        ("text-classification", {"top_k": 0}, "top_k: Expected `int` >= 1"),
        ("text-classification", {"top": 1}, "top: text-classification has no settings of a call but top_k"),
        ("text-ranking", {"top_k": 1}, "top_k: text-ranking has no settings of a call$"),
        ("token-classification", {"aggregation": "last"}, "aggregation: Invalid enum value 'last'"),
        ("token-classification", {"constrained": 1}, "constrained: Expected `bool`, got `int`"),
        ("question-answering", {"longest_answer": 2, "candidates": "3"}, "candidates: Expected `int | null`"),
        ("sentence-embedding", {"output": "int4"}, "output: Invalid enum value 'int4'"),
        ("sentence-embedding", {"dimensions": 0}, "dimensions: Expected `int` >= 1"),
    ],
)
def test_wrong_settings(task: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem.replace("|", r"\|")):
        base.settings(task, options)


def test_settings_that_do_not_fit(embedder: EncoderPipeline, pretrained: Path) -> None:
    with pytest.raises(UsageError, match="dimensions: 21 is more than the vector's 20"):
        embedder("a", dimensions=21)
    with pytest.raises(UsageError, match="dimensions: 21 is more than the vector's 20"):
        embedder.similarity("a", "b", dimensions=21)
    with pytest.raises(UsageError, match="output: 'int8' is for inputs of one text each"):
        embedder([("a", "b")], output="int8")
    with pytest.raises(UsageError, match="output: similarity is of float32 vectors"):
        embedder.similarity("a", "b", output="int8")
    model = random_model(transformers.AutoModelForSequenceClassification, pretrained, ["s"])
    regression = opened("text-classification", model, pretrained, ["s"], kind="regression")
    with pytest.raises(UsageError, match="top_k: the model gives one score, no labels"):
        regression("a", top_k=1)
    with pytest.raises(UsageError, match="similarity: wants a sentence-embedding bundle"):
        regression.similarity("a", "b")
