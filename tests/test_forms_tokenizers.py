"""Every kind of tokenizer: bundles read texts as transformers does, and tokens without an embedding are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headway.core import tasks
from headway.core.errors import CheckpointError
from headway.core.tasks import Spec
from headway.train.fit import train
from headway.train.options import TrainOptions
from tests import corpora
from tests.support import models, references, texts, tokenizers
from tests.support.bundles import exported
from tests.tolerance import MODEL

RTOL, ATOL = MODEL["fp32"]
HEADS: dict[str, Any] = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "sentence-embedding": transformers.AutoModel,
    "text-ranking": transformers.AutoModelForSequenceClassification,
}
DATA: dict[str, Callable[[str], corpora.Rows]] = {
    "text-classification": corpora.single,
    "token-classification": corpora.entities,
    "sentence-embedding": corpora.similar,
    "question-answering": corpora.questions,
}
UNKNOWN = "|".join(re.escape(f"'{token.content}'") for token in tokenizers.ADDED)
"""a message names one of the tokens that have no embedding"""
COMPARED = (*texts.SHORT, *tokenizers.ADDED_TEXTS, *texts.LONG, *texts.parity())


def save(task: str, kind: str, folder: Path) -> Path:
    outputs = {"num_labels": 1} if task == "text-ranking" else {}
    return models.save(folder, HEADS[task], kind=kind, **outputs)


@pytest.mark.parametrize("kind", tokenizers.KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_what_transformers_reads(kind: str, side: Any, tmp_path: Path) -> None:
    tokenizers.make(kind, truncation_side=side).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    task: Any = tasks.load("text-classification")
    spec = Spec(["a", "b"], tokenizers.LENGTH, task.Settings(), truncation_side=side)
    examples = [tasks.read_input(task, text, i) for i, text in enumerate(COMPARED)]
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    assert [row.ids for row in rows] == tokenizer(list(COMPARED), truncation=True)["input_ids"]
    pairs = list(zip(COMPARED, reversed(COMPARED), strict=True))
    pair = Spec(["a", "b"], tokenizers.LENGTH, task.Settings(pair=True), truncation_side=side)
    examples = [tasks.read_input(task, two, i) for i, two in enumerate(pairs)]
    rows = task.rows(examples, tokenizer.backend_tokenizer, pair)
    encoded = tokenizer(*map(list, zip(*pairs, strict=True)), truncation="longest_first")
    assert [row.ids for row in rows] == encoded["input_ids"]
    assert [row.types for row in rows] == encoded["token_type_ids"]


@pytest.mark.grid
@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_every_task_with_every_tokenizer(task: str, kind: str, tmp_path: Path) -> None:
    folder = save(task, kind, tmp_path / "model")
    pipe = exported(folder, task)
    short = [text for text in COMPARED if text not in texts.LONG]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if task == "text-classification":
        wanted = references.classified(folder, short, max_length=tokenizers.LENGTH)
        scores = [[found.scores[label] for label in sorted(found.scores)] for found in pipe(short)]
        np.testing.assert_allclose(
            scores, [[w[label] for label in sorted(w)] for w in wanted], rtol=RTOL, atol=ATOL
        )
    elif task == "text-ranking":
        pairs = list(zip(short, reversed(short), strict=True))
        if tokenizer.pad_token is not None:  # CrossEncoder pads
            wanted = references.predict(references.cross_encoder(folder), pairs)
            np.testing.assert_allclose([r.score for r in pipe(pairs)], wanted, rtol=RTOL, atol=ATOL)
    elif task == "sentence-embedding":
        if tokenizer.pad_token is not None:
            wanted = references.encode(references.embedder(folder), short)
            unit = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
            vectors = np.array([r.embedding for r in pipe(short)])
            vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
            np.testing.assert_allclose(vectors, unit, rtol=RTOL, atol=ATOL)
    elif task == "question-answering":
        for found in pipe([{"question": "Where is it?", "context": text} for text in short]):
            assert found.answer == "" or any(found.answer in text for text in short)
    else:
        for text, found in zip(short, pipe(short), strict=True):
            assert all(text[e.start : e.end] == e.text for e in found.entities)


@pytest.mark.parametrize("task", HEADS)
def test_tokens_without_an_embedding_are_refused_at_export(task: str, tmp_path: Path) -> None:
    outputs = {"num_labels": 1} if task == "text-ranking" else {}
    folder = models.without_embeddings(tmp_path / "model", HEADS[task], **outputs)
    with pytest.raises(CheckpointError, match=UNKNOWN):
        exported(folder, task)
    assert not (tmp_path / "model-bundle").exists()


@pytest.mark.parametrize("task", DATA)
def test_tokens_without_an_embedding_are_refused_in_training(task: str, tmp_path: Path) -> None:
    folder = models.without_embeddings(tmp_path / "model")
    data = corpora.write(DATA[task], "train", tmp_path, 12)
    options = TrainOptions(
        model=str(folder), train=data, eval=data, output=tmp_path / "checkpoint", epochs=1, batch_size=4,
        max_length=48, precision="fp32", threads=1,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=UNKNOWN):
        train(task, options)
    assert not (tmp_path / "checkpoint").exists()


def test_a_padded_table_of_embeddings_is_large_enough(tmp_path: Path) -> None:
    """Rows beyond the vocabulary, as resizing to a multiple of 64 leaves them, are no fault."""
    tokenizer = tokenizers.make("added-tokens")
    folder = models.save(
        tmp_path / "model", HEADS["text-classification"], tokenizer=tokenizer, vocab_size=1600
    )
    wanted = references.classified(folder, tokenizers.ADDED_TEXTS)
    found = exported(folder)(tokenizers.ADDED_TEXTS)
    for one, scores in zip(found, wanted, strict=True):
        assert one.scores == pytest.approx(scores, rel=RTOL, abs=ATOL)


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_the_kinds_are_what_they_say(kind: str) -> None:
    """Each reads some text in another way than the plainest of its family, or has no token that others have."""
    made = tokenizers.make(kind)
    plain = tokenizers.make(
        "wordpiece-uncased" if kind[:4] in ("word", "no-u", "no-p", "adde") else "byte-level"
    )
    same = [made.tokenize(text) == plain.tokenize(text) for text in COMPARED]
    special = made.special_tokens_map == plain.special_tokens_map
    closed = made("u")["input_ids"] == plain("u")["input_ids"]
    expected = kind in ("wordpiece-uncased", "byte-level")
    assert (all(same) and special and closed) == expected
    assert torch.tensor(made("u")["input_ids"]).max() < len(made)
