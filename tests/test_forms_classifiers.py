"""Text classifiers in every form of their settings: the probabilities of the Transformers pipeline, or refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core.errors import CheckpointError
from headway.core.tasks import text_classification
from headway.train import checkpoint
from tests.support import classifiers, models, references, texts, tokenizers
from tests.support.bundles import exported
from tests.support.classifiers import Classifier
from tests.tolerance import MODEL

RTOL, ATOL = MODEL["fp32"]
COMPARED = (*texts.SHORT, *texts.LONG, *texts.parity()[::4])


def same_as_pipeline(folder: Path, pipe: Any, limit: int) -> None:
    wanted = references.classified(folder, COMPARED, max_length=limit)
    for found, scores in zip(pipe(COMPARED), wanted, strict=True):
        if len(scores) == 1:
            assert found.score == pytest.approx(*scores.values(), rel=RTOL, abs=ATOL)
            continue
        assert found.scores.keys() == scores.keys()
        own = [found.scores[label] for label in scores]
        np.testing.assert_allclose(own, list(scores.values()), rtol=RTOL, atol=ATOL)
        if hasattr(found, "label"):
            assert found.label == max(scores, key=scores.__getitem__)
    assert [r.truncated for r in pipe(texts.LONG)] == [True] * len(texts.LONG)


@pytest.mark.parametrize("name", classifiers.FORMS)
def test_scores_are_those_of_the_pipeline(name: str, tmp_path: Path) -> None:
    form = classifiers.FORMS[name]
    folder = form.save(tmp_path / "model")
    pipe = exported(folder)
    assert pipe.manifest.max_length == form.limit
    same_as_pipeline(folder, pipe, form.limit)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        (name, architecture)
        for name, form in classifiers.FORMS.items()
        for architecture in models.ARCHITECTURES
        if form.tokenizer != "no-pad" or architecture not in ("roberta", "xlm-roberta", "camembert")
    ],
)  # the position of a token of these three needs the padding's id
def test_scores_of_every_architecture(name: str, architecture: str, tmp_path: Path) -> None:
    form = replace(classifiers.FORMS[name], architecture=architecture)
    folder = form.save(tmp_path / "model")
    same_as_pipeline(folder, exported(folder), form.limit)


@pytest.mark.parametrize("name", classifiers.REFUSED)
def test_labels_without_a_right_answer_are_refused(name: str, tmp_path: Path) -> None:
    form = classifiers.REFUSED[name]
    folder = form.save(tmp_path / "model")
    with pytest.raises(CheckpointError) as caught:
        exported(folder)
    assert re.search(form.refused, caught.value.problem)
    assert not (tmp_path / "model-bundle").exists()


@pytest.mark.parametrize("name", classifiers.LENGTHS)
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_odd_lengths(name: str, architecture: str, tmp_path: Path) -> None:
    given, limit = classifiers.LENGTHS[name]
    folder = Classifier(architecture=architecture, length=given).save(tmp_path / "model")
    if (
        not limit
    ):  # a tokenizer that says nothing of use: its name is told, or the model's positions are the limit
        try:
            opened = checkpoint.open_foreign(folder, "text-classification", [])
        except CheckpointError as error:
            problem = error.problem
            opened = None
        if opened is None:
            assert "model_max_length" in problem
            return
        limit = tokenizers.LENGTH
    else:
        opened = checkpoint.open_foreign(folder, "text-classification", [])
    assert opened.spec.max_length == limit
    task: Any = text_classification
    examples = [task.Example(text, None, None, None, None) for text in texts.LONG]
    rows = task.rows(examples, opened.tokenizer.backend_tokenizer, opened.spec)
    wanted = opened.tokenizer(list(texts.LONG), truncation=True, max_length=limit)["input_ids"]
    assert [row.ids for row in rows] == wanted


def test_the_side_of_truncation_changes_the_answer(tmp_path: Path) -> None:
    """Or else the forms above could not tell it."""
    form = classifiers.FORMS["named"]
    folders = [form.save(tmp_path / "left"), replace(form, tokenizer_config={}).save(tmp_path / "right")]
    left, right = (references.classified(folder, texts.LONG, max_length=form.limit) for folder in folders)
    differences = [abs(a[label] - b[label]) for a, b in zip(left, right, strict=True) for label in a]
    assert max(differences) > 100 * ATOL
