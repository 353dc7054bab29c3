"""Cross-encoders in every form that says what becomes of their outputs: the library's scores, or refused by name."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headway.core.errors import CheckpointError
from tests.support import cross_encoders, models, references
from tests.support.bundles import exported, exported_or_refused
from tests.support.cross_encoders import PAIRS, CrossEncoder
from tests.tolerance import MODEL

RTOL, ATOL = MODEL["fp32"]
EVERY = ("regression", "3-identity", "4-sigmoid", "4-version-only", "6-identity", "6-both")
"""forms of which each way to name an activation is one"""
REST = [pytest.param(name, marks=pytest.mark.grid) for name in cross_encoders.FORMS if name not in EVERY]


def task_of(form: CrossEncoder) -> str | None:
    return None if form.ranks else "text-ranking"


def same_as_library(folder: Path, pipe: Any) -> None:
    library = references.cross_encoder(folder)
    wanted = references.predict(library, PAIRS)
    found = pipe(list(PAIRS))
    np.testing.assert_allclose([r.score for r in found], wanted, rtol=RTOL, atol=ATOL)
    prompt = library.prompts.get(library.default_prompt_name) or ""
    ids = [library.tokenizer(prompt + query, passage)["input_ids"] for query, passage in PAIRS]
    cut = [len(one) > library.max_seq_length for one in ids]
    assert [r.truncated for r in found] == cut
    assert any(cut)
    passages = [passage for _, passage in PAIRS]
    ranked = library.rank(PAIRS[0][0], passages)
    scores = np.array([pipe([(PAIRS[0][0], passage)])[0].score for passage in passages])
    assert np.argsort(-scores, kind="stable").tolist() == [one["corpus_id"] for one in ranked]
    np.testing.assert_allclose(np.sort(scores)[::-1], [one["score"] for one in ranked], RTOL, ATOL)


@pytest.mark.parametrize("name", [*EVERY, *REST])
def test_scores_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    form = cross_encoders.FORMS[name]
    folder = form.save(tmp_path / "model")
    pipe = exported(folder, task_of(form))
    assert pipe.manifest.task == "text-ranking"
    same_as_library(folder, pipe)


@pytest.mark.grid
@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
@pytest.mark.parametrize("name", cross_encoders.FORMS)
def test_scores_of_every_architecture(name: str, architecture: str, tmp_path: Path) -> None:
    form = replace(cross_encoders.FORMS[name], architecture=architecture)
    folder = form.save(tmp_path / "model")
    same_as_library(folder, exported(folder, task_of(form)))


@pytest.mark.parametrize("name", cross_encoders.REFUSED)
def test_what_is_not_carried_is_refused_by_name(name: str, tmp_path: Path) -> None:
    form = cross_encoders.REFUSED[name]
    folder = form.save(tmp_path / "model")
    (folder / "mine.py").write_text("raise SystemExit('this code ran')", "utf-8")  # an activation of its own
    pipe = exported_or_refused(folder, form.refused, "text-ranking")
    if pipe is not None:
        same_as_library(folder, pipe)


@pytest.mark.parametrize(
    "form",
    [pytest.param(cross_encoders.NLI, marks=pytest.mark.grid), cross_encoders.NLI_LIBRARY],
    ids=["4", "6"],
)
def test_three_outputs_are_a_classifier_of_pairs(form: CrossEncoder, tmp_path: Path) -> None:
    folder = form.save(tmp_path / "model")
    pipe = exported(folder)
    assert pipe.manifest.task == "text-classification"
    library = references.cross_encoder(folder)
    wanted = references.predict(library, PAIRS, apply_softmax=True)  # (N, 3)
    found = pipe([{"text1": a, "text2": b} for a, b in PAIRS])
    assert list(found[0].scores) == ["contradiction", "entailment", "neutral"]
    scores = [list(r.scores.values()) for r in found]
    np.testing.assert_allclose(scores, wanted, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize(
    ("activation", "problem_type", "right"),
    [
        ("Sigmoid", None, None),
        ("Tanh", None, None),
        ("Softmax", "multi_label_classification", None),
        ("Sigmoid", "multi_label_classification", torch.sigmoid),
        ("Softmax", None, functools.partial(torch.softmax, dim=-1)),
    ],
)
def test_the_activation_of_several_outputs(
    activation: str, problem_type: str | None, right: Any, tmp_path: Path
) -> None:
    config = {
        **cross_encoders.NLI.config,
        "problem_type": problem_type,
        "sentence_transformers": {"activation_fn": f"torch.nn.modules.activation.{activation}"},
    }
    folder = replace(cross_encoders.NLI, config=config).save(tmp_path / "model")
    if right is None:
        with pytest.raises(CheckpointError, match=f"activation_fn is .*{activation}"):
            exported(folder)
        return
    found = [list(r.scores.values()) for r in exported(folder)(PAIRS)]
    library = references.cross_encoder(folder)
    logits = references.predict(library, PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(found, right(torch.tensor(logits)), rtol=RTOL, atol=ATOL)


def test_the_score_of_a_causal_model_is_no_embedding(tmp_path: Path) -> None:
    folder = cross_encoders.logit_score(tmp_path / "model")
    with pytest.raises(CheckpointError, match="LogitScore"):
        exported(folder)
    assert not (tmp_path / "model-bundle").exists()
