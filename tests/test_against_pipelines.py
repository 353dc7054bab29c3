"""Answers against those of the Transformers pipelines, which are the same or are shown to be wrong."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from tokenizers import Tokenizer

from headway.bench.pipeline_answers import Mended, Whole
from headway.core import tasks
from headway.runtime.pipeline import EncoderPipeline
from headway.runtime.ragged import Ragged
from tests.tolerance import MODEL

CLOSE = MODEL["fp32"]
TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]
STRATEGIES = {"first": "first", "mean": "average", "max": "max"}
"""aggregation here and there"""

few = settings(max_examples=40)
USUAL = "where is my parcel refund the late delivery thanks 12 great ! , 's a_b zzz"
UNUSUAL = (
    "naïve cafe\u0301s cafe\u0301 ref\u0301und parcel\u0301 שָׁלוֹם مَرْحَبًا हिन्दी 😀 👨\u200d👩\u200d👧 ❤\ufe0f İstanbul "
    "ﬁne \u0301 \u200f ab\u200f \u200fab ab\x01cd x\u00ady می\u200cخواهم \ufffd a\ufffdb"
)
words = st.sampled_from(USUAL.split(" "))
unusual = st.sampled_from([*UNUSUAL.split(" "), "ab\x1ccd"])
gaps = st.sampled_from([" ", " ", "  ", "\n", "\t", "\u2003", "\u00a0"])


def joined(pieces: Any) -> Any:
    texts = st.lists(st.tuples(pieces, gaps), min_size=1, max_size=10)
    return texts.map(lambda found: "".join(part for pair in found for part in pair))


class Torch:
    """A backend that is the very model that the pipelines run."""

    pads = True

    def __init__(self, model: Any, read: Sequence[str]) -> None:
        self._model, self._read = model, read

    def run(self, batches: Sequence[Ragged]) -> list[Any]:
        return [self._run(batch) for batch in batches]

    def _run(self, batch: Ragged) -> dict[str, Any]:
        length = int(batch.lengths.max())
        ids, types, mask = (torch.zeros(len(batch), length, dtype=torch.long) for _ in range(3))
        for b, (begin, end) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            ids[b, : end - begin] = torch.from_numpy(batch.ids[begin:end].astype(np.int64))
            types[b, : end - begin] = torch.from_numpy(batch.types[begin:end].astype(np.int64))
            mask[b, : end - begin] = 1
        with torch.no_grad():
            said = self._model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        return {name: said[name].numpy() for name in self._read}


def opened(name: str, model: Any, pretrained: Path, labels: list[str], **options: Any) -> EncoderPipeline:
    task: Any = tasks.load(name)
    manifest: Any = SimpleNamespace(task=name)
    spec = tasks.Spec(labels, 64, task.Settings(**options))
    tokenizer = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    return EncoderPipeline(manifest, "fp32", task, spec, tokenizer, Torch(model, task.READ))


def random_model(kind: Any, pretrained: Path, labels: Sequence[str] = (), **options: Any) -> Any:
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    model = kind.from_pretrained(pretrained, **(names if labels else {}), **options).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("classifier.weight", "qa_outputs.weight")):
            torch.nn.init.normal_(weight, std=0.5)
    return model


# --- text-classification


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_labels_and_scores(kind: str, pretrained: Path) -> None:
    labels = ["a", "b", "c"] if kind != "regression" else ["score"]
    problem = {"multi": "multi_label_classification", "regression": "regression"}.get(kind)
    model = random_model(
        transformers.AutoModelForSequenceClassification, pretrained, labels, problem_type=problem
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    theirs = transformers.TextClassificationPipeline(model=model, tokenizer=tokenizer)
    ours = opened("text-classification", model, pretrained, labels, kind=kind, pair=None)

    @few
    @given(joined(words | unusual), st.none() | joined(words | unusual))
    def compare(text: str, second: str | None) -> None:
        given = text if second is None else {"text1": text, "text2": second}
        asked: Any = text if second is None else {"text": text, "text_pair": second}
        wanted: Any = theirs(asked, top_k=None, truncation="longest_first", max_length=64)
        found: Any = ours(given)
        if kind == "regression":
            assert found.score == pytest.approx(wanted[0]["score"], *CLOSE)
            return
        for one in wanted:
            assert found.scores[one["label"]] == pytest.approx(one["score"], *CLOSE)
        best: Any = ours(given, top_k=2)
        assert list(best.scores) == [one["label"] for one in wanted[:2]]
        if kind == "single":
            assert found.label == wanted[0]["label"]

    compare()


# --- token-classification


@pytest.fixture(scope="module")
def tagger(pretrained: Path) -> Any:
    return random_model(transformers.AutoModelForTokenClassification, pretrained, TAGS)


@pytest.fixture(scope="module")
def tagging(tagger: Any, pretrained: Path) -> EncoderPipeline:
    return opened("token-classification", tagger, pretrained, TAGS)


def assert_same_entities(ours: EncoderPipeline, theirs: Any, text: str) -> None:
    for aggregation, strategy in STRATEGIES.items():
        wanted = theirs(text, aggregation_strategy=strategy)
        result: Any = ours(text, aggregation=aggregation, constrained=False)
        found = [(e.label, e.start, e.end) for e in result.entities]
        assert found == [(e["entity_group"], e["start"], e["end"]) for e in wanted]
        assert [e.score for e in result.entities] == pytest.approx([e["score"] for e in wanted], *CLOSE)


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [(transformers.TokenClassificationPipeline, words), (Mended, words | unusual)],
    ids=["as-it-is", "mended"],
)
def test_entities(
    kind: Callable[..., Any], pieces: Any, tagger: Any, tagging: EncoderPipeline, pretrained: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    theirs = kind(model=tagger, tokenizer=tokenizer)

    @few
    @given(joined(pieces).filter(lambda text: len(tokenizer.tokenize(text)) < 62))
    def compare(text: str) -> None:
        assert_same_entities(tagging, theirs, text)

    compare()


def test_entities_of_long_texts(tagger: Any, tagging: EncoderPipeline, pretrained: Path) -> None:
    """As the pipeline gives them that does not cut entities at the edges of windows."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    theirs = Whole(model=tagger, tokenizer=tokenizer, stride=16)

    @settings(max_examples=10)
    @given(st.lists(words, min_size=60, max_size=120))
    def compare(pieces: list[str]) -> None:
        assert_same_entities(tagging, theirs, " ".join(pieces))

    compare()


def test_the_pipeline_takes_a_word_with_an_accent_for_the_rest_of_the_one_before(
    tagger: Any, pretrained: Path
) -> None:
    theirs = transformers.TokenClassificationPipeline(
        model=tagger, tokenizer=transformers.AutoTokenizer.from_pretrained(pretrained)
    )
    for text, subword in (("late refund", False), ("late ref\u0301und", True)):
        encoded = theirs.tokenizer(text, return_offsets_mapping=True)
        found = theirs.gather_pre_entities(
            text,
            np.array(encoded["input_ids"]),
            np.ones((4, 5), np.float32),
            np.array(encoded["offset_mapping"]),
            np.array([1, 0, 0, 1]),
            "first",
        )
        assert [(e["word"], e["is_subword"]) for e in found] == [("late", False), ("refund", subword)]


@few
@given(text=joined(words | unusual), data=st.data())
def test_entities_are_where_they_say(text: str, data: st.DataObject, tagging: EncoderPipeline) -> None:
    """Whatever is between the words, in windows or not; and only tags that follow each other."""
    text *= data.draw(st.sampled_from([1, 20]))
    aggregation = data.draw(st.sampled_from(["first", "mean", "max", "strict"]))
    result: Any = tagging(text, aggregation=aggregation)
    for before, entity in zip([None, *result.entities], result.entities, strict=False):
        assert text[entity.start : entity.end] == entity.text
        assert entity.text == entity.text.strip()
        assert entity.text
        assert before is None or before.end <= entity.start
        if entity.end < len(text):
            assert unicodedata.category(text[entity.end])[0] != "M"


# --- question-answering


def plain_answer(start: Any, end: Any, inside: Any, longest: int) -> tuple[int, int, float]:
    """First and last token and score as the pipeline of Transformers 4 finds them in one window: softmax over the
    context's tokens of each side, then the best product of a start and an end that is not before it."""
    start, end = (softmax(np.where(inside, side, -10000.0)) for side in (start, end))
    products = np.tril(np.triu(np.outer(start, end)), longest - 1)
    first, last = np.unravel_index(products.argmax(), products.shape)
    return int(first), int(last), float(products.max())


def test_spans(pretrained: Path) -> None:
    """Transformers 5 has no such pipeline any more."""
    model = random_model(transformers.AutoModelForQuestionAnswering, pretrained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    ours = opened("question-answering", model, pretrained, [], max_answer_tokens=15)

    @few
    @given(joined(words).filter(str.strip), joined(words | unusual).filter(str.strip))
    def compare(question: str, context: str) -> None:
        encoded = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
        offsets = encoded.pop("offset_mapping")[0].numpy()
        if len(offsets) > 64 or len(tokenizer.tokenize(question)) > 32:
            return
        with torch.no_grad():
            said = model(**encoded)
        inside = np.array([s == 1 for s in encoded.sequence_ids(0)])
        found: Any = ours({"question": question, "context": context})
        if not inside.any():
            assert found.answer == ""
            return
        first, last, _ = plain_answer(said.start_logits[0].numpy(), said.end_logits[0].numpy(), inside, 15)
        begin, end = int(offsets[first][0]), int(offsets[last][1])
        assert found.start <= begin < end <= found.end
        tokens = offsets[inside].tolist()
        for place in (*range(found.start, begin), *range(end, found.end)):  # what the pipeline loses
            assert (
                unicodedata.category(context[place])[0] == "M" or unicodedata.category(context[place]) == "Cf"
            )
            assert not any(a <= place < b for a, b in tokens)
        assert context[found.start : found.end] == found.answer
        for candidate in found.candidates:
            assert context[candidate.start : candidate.end] == candidate.answer

    compare()
