"""The contrastive phase of `--few-shot`: its loss and head against plain ones, what it learns, what it refuses."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoModelForSequenceClassification

from headway.bench import few_shot as study
from headway.core import tasks
from headway.core.errors import UsageError
from headway.core.progress import silent
from headway.export import bundle
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.train import checkpoint as opener
from headway.train import encoder, few_shot, fit
from headway.train.options import TrainOptions
from tests import corpora
from tests.conftest import LABELS, records, write_jsonl
from tests.test_train import Killed, assert_equal, killed_after
from tests.tolerance import TOLERANCE


@pytest.fixture
def options(pretrained: Path, tmp_path: Path) -> TrainOptions:
    every = [r for label in LABELS for r in records("train", 8, [label])]
    return TrainOptions(
        model=str(pretrained),
        train=write_jsonl(tmp_path / "train.jsonl", every),
        output=tmp_path / "checkpoint",
        few_shot=True,
        epochs=1,
        batch_size=8,
        max_length=32,
        precision="fp32",
        threads=1,
    )


def train(options: TrainOptions, progress: Any = silent) -> opener.Opened:
    return opener.open_checkpoint(fit.train("text-classification", options, progress).checkpoint)


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 4))
def test_the_loss_is_that_of_a_loop(seed: int, count: int, classes: int) -> None:
    chance = np.random.default_rng(seed)
    vectors, labels = chance.standard_normal((count, 5)), chance.integers(0, classes, count)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    losses = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        similar = {j: np.exp(unit[i] @ unit[j] / few_shot.TEMPERATURE) for j in others}
        alike = [j for j in others if labels[j] == labels[i]]
        if alike:
            losses.append(-np.mean([np.log(similar[j] / sum(similar.values())) for j in alike]))
    found = few_shot.supervised_contrastive(torch.from_numpy(vectors), torch.from_numpy(labels))
    assert float(found) == pytest.approx(np.mean(losses) if losses else 0, abs=1e-9)


def test_the_head_is_scikit_learns_logistic_regression() -> None:
    chance = np.random.default_rng(0)
    targets = chance.integers(0, 5, 60)
    vectors = (chance.standard_normal((5, 12))[targets] + chance.standard_normal((60, 12))).astype(np.float32)
    head = torch.nn.Linear(12, 5)
    few_shot.fit_head(head, torch.from_numpy(vectors), torch.from_numpy(targets))
    other = LogisticRegression(C=1, tol=1e-8, max_iter=2000).fit(vectors, targets)
    with torch.no_grad():
        ours = head(torch.from_numpy(vectors)).softmax(-1).numpy()
    np.testing.assert_allclose(ours, other.predict_proba(vectors), atol=1e-3)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.integers(0, 9))
def test_each_pass_has_every_example_once_and_pairs_of_a_label(targets: list[int], seed: int) -> None:
    similar = torch.eye(6)
    steps = few_shot.schedule(targets, similar, seed)
    assert steps == few_shot.schedule(targets, similar, seed)
    assert len(steps) == few_shot.LEAST_STEPS
    in_a_pass = math.ceil(sum(math.ceil(targets.count(label) / 2) for label in range(6)) / few_shot.PAIRS)
    for begin in range(0, len(steps) - in_a_pass + 1, in_a_pass):
        one_pass = [i for step in steps[begin : begin + in_a_pass] for i in step]
        assert sorted(one_pass) == list(range(len(targets)))
    for step in steps:
        assert len(step) <= 2 * few_shot.PAIRS
    for label in range(6):  # all but an odd one have a partner in their step
        alone = sum([targets[i] for i in step].count(label) == 1 for step in steps)
        assert alone <= (targets.count(label) % 2) * math.ceil(len(steps) / in_a_pass)


def test_a_step_has_labels_that_are_alike() -> None:
    targets = [label for label in range(40) for _ in range(2)]
    places = torch.arange(40.0)
    similar = -(places[:, None] - places[None, :]).abs()  # neighbours are alike
    for step in few_shot.schedule(targets, similar, 0)[: 40 // few_shot.PAIRS]:
        labels = sorted(targets[i] for i in step)
        assert len(set(labels)) == len(labels) / 2
    spreads = [max(s) - min(s) for s in few_shot.schedule(targets, similar, 0)]
    assert np.mean(spreads) < np.mean([79] * 2) * 0.8


def test_the_cosines_of_labels() -> None:
    vectors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    found = few_shot.centroid_cosines(vectors, [0, 1, 0, 1, 2], 3)
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, half], [0.0, 1.0, half], [half, half, 1.0]]))


def similar_within_labels(model: Any, opened: opener.Opened, options: TrainOptions) -> float:
    """Mean cosine of texts with the same label less that of others."""
    examples: Any = tasks.read_labelled(tasks.load("text-classification"), options.train)
    batch = opened.tokenizer(
        [e.text for e in examples], return_tensors="pt", padding=True, truncation=True, max_length=32
    )
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    unit = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)
    alike = torch.tensor([[a.gold == b.gold for b in examples] for a in examples])
    cosines = unit @ unit.T
    return float(cosines[alike].mean() - cosines[~alike].mean())


def test_the_body_draws_together_what_has_the_same_label(
    options: TrainOptions, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny random model needs a greater learning rate than a real one, and learns nothing under dropout."""
    monkeypatch.setattr(few_shot, "LEARNING_RATE", 1e-3)
    model = shutil.copytree(pretrained, tmp_path / "without-dropout")
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    opened = train(replace(options, model=str(model), learning_rate=1e-9))
    before, after = (
        similar_within_labels(AutoModel.from_pretrained(folder).eval(), opened, options)
        for folder in (pretrained, opened.folder)
    )
    assert after > before + 0.3
    examples = tasks.read_labelled(tasks.load("text-classification"), options.train)
    right = [r.label == e.gold for r, e in zip(opener.predict(opened, examples), examples, strict=True)]  # type: ignore[union-attr]
    assert np.mean(right) > 0.9  # by the fitted head: the loop has changed nothing


def test_what_comes_out_is_exported_and_run(options: TrainOptions, tmp_path: Path) -> None:
    opened = train(replace(options, eval=options.train))
    assert opened.spec.settings.pooling == "mean"
    assert opened.manifest.options["few_shot"] is True
    bundle.export(opened.folder, ExportOptions(output=tmp_path / "bundle", precision="fp32"))
    examples: Any = tasks.read_labelled(tasks.load("text-classification"), options.train)
    results: Any = load(tmp_path / "bundle", threads=1)([e.text for e in examples])
    wanted: Any = opener.predict(opened, examples)
    assert [r.label for r in results] == [r.label for r in wanted]
    np.testing.assert_allclose([r.score for r in results], [r.score for r in wanted], *TOLERANCE["float32"])


@pytest.mark.parametrize("pooling", ["cls", "max", "attention", "model"])
def test_every_pooling_is_trained(options: TrainOptions, pooling: Any) -> None:
    opened = train(replace(options, pooling=pooling))
    assert opened.spec.settings.pooling == pooling
    if pooling == "model":
        AutoModelForSequenceClassification.from_pretrained(opened.folder)


def test_a_vector_is_what_the_head_reads(options: TrainOptions) -> None:
    opened = train(options)
    examples: Any = tasks.read_labelled(tasks.load("text-classification"), options.train)
    rows = tasks.load("text-classification").rows(examples, opened.tokenizer.backend_tokenizer, opened.spec)  # type: ignore[attr-defined]
    encode = few_shot.Encoder(opened.model, len(opened.spec.labels))
    vectors = encode.encode(encoder.inputs(rows), encoder.Collator(opened.tokenizer))
    answers = encoder.run(opened.model, rows, opened.tokenizer, silent)
    with torch.no_grad():
        logits = opened.model.classifier(vectors).numpy()
    np.testing.assert_allclose(logits, np.stack([a.logits for a in answers]), *TOLERANCE["float32"])


def test_the_same_seed_gives_the_same_weights_and_a_resumed_run_too(
    options: TrainOptions, tmp_path: Path
) -> None:
    options = replace(options, epochs=3, learning_rate=1e-3)
    uninterrupted = train(replace(options, output=tmp_path / "uninterrupted")).folder
    with pytest.raises(Killed):
        train(options, killed_after(6))  # four steps an epoch: in the middle of the second
    resumed = train(replace(options, resume=True)).folder
    for name in ("model.safetensors", "head.safetensors"):
        assert_equal(load_file(resumed / name), load_file(uninterrupted / name))


def test_two_texts_a_record(options: TrainOptions, tmp_path: Path) -> None:
    file = corpora.write(corpora.pairs, "train", tmp_path, 32)
    assert train(replace(options, train=file)).spec.settings.pair


@pytest.mark.parametrize(
    ("make", "changes", "problem"),
    [
        (corpora.multi, {}, "--few-shot: is for data with one label each"),
        (corpora.regression, {}, "--few-shot: is for data with one label each"),
        (corpora.single, {"freeze": 3}, "--few-shot: trains the body, of which --freeze 3 leaves nothing"),
    ],
)
def test_what_it_does_not_do_is_refused(
    options: TrainOptions, tmp_path: Path, make: Any, changes: dict[str, Any], problem: str
) -> None:
    file = corpora.write(make, "train", tmp_path, 32)
    with pytest.raises(UsageError) as told:
        train(replace(options, train=file, **changes))
    assert str(told.value) == problem


def test_one_example_a_label_is_refused(options: TrainOptions, tmp_path: Path) -> None:
    rows = [records("train", 1, [label])[0] for label in LABELS]
    with pytest.raises(UsageError, match=r"^--few-shot: .* but each label has only one$"):
        train(replace(options, train=write_jsonl(tmp_path / "few.jsonl", rows)))


def test_other_tasks_refuse_it(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match=r"^--few-shot: has no meaning for token-classification$"):
        fit.train("token-classification", options)


def test_the_study_replaces_its_own_section_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "quality.md"
    page.write_text("# Quality\n\ntable\n")
    monkeypatch.setattr(study, "SEEDS", {8: (13, 14)})
    monkeypatch.setattr(study, "METHODS", {"default": {}})
    monkeypatch.setattr(study, "measure", lambda *_: {"macro_f1": 0.5, "processor_seconds": 61.2})
    words = ["few_shot", "--data", ".", "--model", ".", "--work", f"{tmp_path}/work", "--output", str(page)]
    monkeypatch.setattr("sys.argv", words)
    study.main()
    once = page.read_text()
    assert once.startswith(f"# Quality\n\ntable\n\n{study.HEADING}\n")
    assert "| 8 × 2 | 50.00 (50.00–50.00) | 61 |  |  |" in once
    study.main()
    assert page.read_text() == once
    assert "# Quality\n\ntable\n" + study.section_of(page) == once


def test_a_sample_has_so_many_of_each_label() -> None:
    rows = [{"text": str(i), "label": "abc"[min(i // 10, 2)]} for i in range(23)]
    drawn = study.sample(rows, 5, 13)
    assert sorted(row["label"] for row in drawn) == ["a"] * 5 + ["b"] * 5 + ["c"] * 3
    assert drawn == study.sample(rows, 5, 13) != study.sample(rows, 5, 14)
