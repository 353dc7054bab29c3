"""Token classifiers in every way of writing tags: the entities that their tags mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from seqeval import scheme as seqeval_scheme
from transformers import AutoTokenizer

from headway.core import tasks
from headway.train import checkpoint
from tests.support import references, taggers
from tests.support.bundles import exported

TEXTS = [text for text, _ in taggers.SENTENCES]
EXPORTED = ("IOB1", "PER-U")
"""schemes whose bundles are compared as well, one of each order of type and letter"""


def wanted(name: str) -> list[list[taggers.Span]]:
    return [taggers.spans(taggers.SCHEMES[name], spans) for _, spans in taggers.SENTENCES]


def found(results: Any) -> list[list[taggers.Span]]:
    return [[(e.start, e.end, e.label) for e in result.entities] for result in results]


@pytest.mark.parametrize("name", taggers.SCHEMES)
def test_entities_of_every_scheme(name: str, tmp_path: Path) -> None:
    opened = checkpoint.open_foreign(taggers.save(tmp_path / "model", name), "token-classification", [])
    task: Any = tasks.load("token-classification")
    examples = [tasks.read_input(task, text, i) for i, text in enumerate(TEXTS)]
    assert found(checkpoint.predict(opened, examples)) == wanted(name)


@pytest.mark.parametrize(
    "name",
    [*EXPORTED, *(pytest.param(n, marks=pytest.mark.grid) for n in taggers.SCHEMES if n not in EXPORTED)],
)
def test_entities_of_a_bundle(name: str, tmp_path: Path) -> None:
    pipe = exported(taggers.save(tmp_path / "model", name))
    assert found(pipe(TEXTS)) == wanted(name)
    assert min(e.score for result in pipe(TEXTS) for e in result.entities) > 0.5


@pytest.mark.parametrize("name", [n for n, s in taggers.SCHEMES.items() if s.pipeline])
def test_the_corpus_means_what_the_pipeline_reads(name: str, tmp_path: Path) -> None:
    folder = taggers.save(tmp_path / "model", name)
    read = references.entities(folder, TEXTS, "simple")
    spans = [[(e["start"], e["end"], e["entity_group"]) for e in entities] for entities in read]
    assert spans == wanted(name)


@pytest.mark.parametrize("name", [n for n, s in taggers.SCHEMES.items() if s.seqeval])
def test_the_corpus_means_what_seqeval_reads(name: str, tmp_path: Path) -> None:
    scheme = taggers.SCHEMES[name]
    kind = getattr(seqeval_scheme, scheme.seqeval)
    tokenizer = AutoTokenizer.from_pretrained(taggers.save(tmp_path / "model", name))
    for (text, _), spans in zip(taggers.SENTENCES, wanted(name), strict=True):
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        offsets = encoded["offset_mapping"]
        tags = [scheme.tag(text[begin:end]) for begin, end in offsets]
        read = seqeval_scheme.Entities([tags], kind).entities[0]
        assert [(offsets[e.start][0], offsets[e.end - 1][1], e.tag) for e in read] == spans


@pytest.mark.parametrize("name", ["BIO", "BIOES", "types"])
def test_the_order_of_the_labels_does_not_matter(name: str, tmp_path: Path) -> None:
    labels = [*reversed(taggers.SCHEMES[name].labels())]
    folder = taggers.save(tmp_path / "model", name, labels)
    opened = checkpoint.open_foreign(folder, "token-classification", [])
    task: Any = tasks.load("token-classification")
    examples = [tasks.read_input(task, text, i) for i, text in enumerate(TEXTS)]
    assert found(checkpoint.predict(opened, examples)) == wanted(name)
