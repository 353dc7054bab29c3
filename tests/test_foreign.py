"""Models that headway did not train: what their files tell, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headway.core.errors import CheckpointError, DataError, GateError, UsageError
from headway.core.manifest import Bundle
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.train import foreign
from tests import corpora
from tests.conftest import Run

HEADS: dict[str, Any] = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
}


def with_head(task: str, pretrained: Path, folder: Path, **settings: Any) -> Path:
    """A tiny model of a task as transformers saves it, with a random head."""
    torch.manual_seed(0)
    model = HEADS[task].from_pretrained(pretrained, **settings)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(pretrained).save_pretrained(folder)
    return folder


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


@pytest.mark.parametrize("task", HEADS)
def test_the_task_is_told_by_the_head(task: str, pretrained: Path, tmp_path: Path) -> None:
    folder = with_head(task, pretrained, tmp_path / "model")
    assert foreign.infer_task(folder) == task
    export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    bundle = Bundle.read(tmp_path / "bundle")
    assert (bundle.task, bundle.max_length) == (task, 64)
    assert bundle.labels == ([] if task == "question-answering" else ["LABEL_0", "LABEL_1"])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"num_labels": 3}, "single"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "multi"),
        ({"num_labels": 1, "problem_type": "regression"}, "regression"),
        ({"num_labels": 1}, "sigmoid"),
    ],
)
def test_the_right_activation(settings: dict[str, Any], kind: str, pretrained: Path, tmp_path: Path) -> None:
    folder = with_head("text-classification", pretrained, tmp_path / "model", **settings)
    export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    assert Bundle.read(tmp_path / "bundle").settings["kind"] == kind.replace("sigmoid", "regression")
    text = "Where is my parcel?"
    result: Any = load(tmp_path / "bundle", threads=1)(text)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits[0]
    activated = {"single": logits.softmax(0), "regression": logits}
    expected = activated.get(kind, logits.sigmoid()).tolist()
    found = [result.score] if kind in ("regression", "sigmoid") else list(result.scores.values())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pairs_are_told_by_the_users_data(pretrained: Path, tmp_path: Path) -> None:
    labels = {"id2label": {0: "other", 1: "same"}, "label2id": {"other": 0, "same": 1}}
    folder = with_head("text-classification", pretrained, tmp_path / "model", **labels)
    data = corpora.write(corpora.pairs, "train", tmp_path, 20)
    report = export(folder, ExportOptions(output=tmp_path / "b", precision="fp32", eval=data, threads=1))
    assert Bundle.read(tmp_path / "b").settings["pair"] is True
    assert report.variants["fp32"].quality == pytest.approx(report.reference)
    other = corpora.write(corpora.single, "train", tmp_path, 20)
    with pytest.raises(DataError, match="unknown label"):
        export(folder, ExportOptions(output=tmp_path / "c", precision="fp32", eval=other, threads=1))


def test_whether_pairs_are_read_is_unknown_without_the_users_data(
    pretrained: Path, tmp_path: Path, run: Run
) -> None:
    """As of a model of natural language inference: one text and two are accepted, and judged."""
    labels = {"id2label": {0: "other", 1: "same"}, "label2id": {"other": 0, "same": 1}}
    folder = with_head("text-classification", pretrained, tmp_path / "model", **labels)
    export(folder, ExportOptions(output=tmp_path / "b", precision="fp32", threads=1))
    assert Bundle.read(tmp_path / "b").settings["pair"] is None
    pipe: Any = load(tmp_path / "b", threads=1)
    assert pipe("one").label == pipe(["one"])[0].label
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)("one", "two", return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens).logits[0].softmax(0)
    np.testing.assert_allclose(
        list(pipe([("one", "two")])[0].scores.values()), expected, rtol=1e-4, atol=1e-5
    )
    data = corpora.write(corpora.pairs, "train", tmp_path, 20)
    ran = run("evaluate", tmp_path / "b", "--data", data, "--threads", 1)
    assert (ran.code, "20 records: accuracy" in ran.err) == (0, True), ran.err


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_two_outputs_of_one_name(task: str, pretrained: Path, tmp_path: Path) -> None:
    folder = with_head(task, pretrained, tmp_path / "model", num_labels=3)
    change(folder / "config.json", id2label={"0": "other", "1": "bug", "2": "other"})
    with pytest.raises(
        CheckpointError, match=r"two of its outputs are called 'other' \(id2label in config.json\)"
    ):
        export(folder, ExportOptions(output=tmp_path / "b", precision="fp32", threads=1))
    assert not (tmp_path / "b").exists()


def test_a_foreign_regression_is_judged_by_its_score(pretrained: Path, tmp_path: Path) -> None:
    folder = with_head("text-classification", pretrained, tmp_path / "model", num_labels=1)
    rows = [
        {"text": m["text"], "label": m["label"], "score": i} for i, m in enumerate(corpora.single("dev")[:12])
    ]
    data = tmp_path / "dev.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = export(folder, ExportOptions(output=tmp_path / "b", precision="fp32", eval=data, threads=1))
    assert set(report.variants["fp32"].quality) == {"pearson", "spearman"}


@pytest.fixture
def embedder(pretrained: Path, tmp_path: Path) -> Path:
    """As older sentence-transformers save it."""
    folder = tmp_path / "embedder"
    transformers.AutoModel.from_pretrained(pretrained).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(pretrained).save_pretrained(folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "2_Normalize").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    told = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 32}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    return folder


def test_sentence_transformers(embedder: Path, tmp_path: Path) -> None:
    export(embedder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    bundle = Bundle.read(tmp_path / "bundle")
    assert (bundle.task, bundle.max_length) == ("sentence-embedding", 40)
    found: Any = load(tmp_path / "bundle", threads=1)("Where is my parcel?")
    model = transformers.AutoModel.from_pretrained(embedder)
    tokens = transformers.AutoTokenizer.from_pretrained(embedder)("Where is my parcel?", return_tensors="pt")
    with torch.no_grad():
        vector = model(**tokens).last_hidden_state[0, 0]
    np.testing.assert_allclose(found.embedding, vector / vector.norm(), rtol=1e-4, atol=1e-5)


def test_what_headway_cannot_do_of_sentence_transformers(embedder: Path, tmp_path: Path) -> None:
    options = ExportOptions(output=tmp_path / "bundle", precision="fp32")
    change(embedder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=True)
    with pytest.raises(CheckpointError, match="its pooling_mode is cls, mean"):
        export(embedder, options)
    modules = json.loads((embedder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (embedder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="Dense"):
        export(embedder, options)
    assert not (tmp_path / "bundle").exists()


def test_another_task_may_be_asked_for(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="its head is BertModel, which tells no task: give --task"):
        export(pretrained, ExportOptions(output=tmp_path / "bundle"))
    options = ExportOptions(
        output=tmp_path / "bundle", task="sentence-embedding", precision="fp32", threads=1
    )
    export(pretrained, options)
    assert Bundle.read(tmp_path / "bundle").settings["pooling"] == "mean"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("token-classification", "its files have no weights for classifier"),
        ("text2text-generation", "it is an encoder alone"),
    ],
)
def test_no_random_head_is_exported(task: str, reason: str, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=reason):
        export(pretrained, ExportOptions(output=tmp_path / "bundle", task=task))
    assert list(tmp_path.iterdir()) == []


def test_a_ranker_has_one_output(pretrained: Path, tmp_path: Path) -> None:
    folder = with_head("text-classification", pretrained, tmp_path / "model")
    with pytest.raises(CheckpointError, match="has 2 outputs; a model for ranking has one"):
        export(folder, ExportOptions(output=tmp_path / "bundle", task="text-ranking"))


def damaged(name: str, folder: Path) -> None:
    if name == "tokenizer":
        for path in folder.glob("*token*"):
            path.unlink()
    elif name == "pickled":
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif name == "unknown":
        change(folder / "config.json", model_type="no-such-type")
    elif name == "code":
        change(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
        (folder / "mine.py").write_text("raise SystemExit('this code ran')")
    elif name == "config":
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize("name", ["tokenizer", "pickled", "unknown", "code", "config"])
def test_unusable_folders(name: str, pretrained: Path, tmp_path: Path) -> None:
    folder = with_head("text-classification", pretrained, tmp_path / "model")
    damaged(name, folder)
    with pytest.raises(CheckpointError):
        export(folder, ExportOptions(output=tmp_path / "bundle", threads=1))
    assert not (tmp_path / "bundle").exists()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        export(tmp_path / "none", ExportOptions(output=tmp_path / "bundle"))
    with pytest.raises(UsageError, match="--task: unknown"):
        export(tmp_path, ExportOptions(output=tmp_path / "bundle", task="nonsense"))


@pytest.mark.parametrize(("kind", "length"), [("roberta", 128), ("bert", 130)])
def test_positions_that_begin_after_the_padding(kind: str, length: int, tmp_path: Path) -> None:
    from tests.test_architectures import model_of

    folder = model_of(kind, transformers.AutoModelForTokenClassification, tmp_path / "model")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = int(1e30)
    change(folder / "config.json", pad_token_id=1 if kind == "roberta" else 0)
    manifest = foreign.describe(folder, "token-classification", tokenizer, [])
    assert manifest.max_length == length


def test_a_tokenizer_that_splits_otherwise_is_found(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_head("text-classification", pretrained, tmp_path / "model")
    from headway.export import bundle

    plain = bundle._tokenizer_json
    monkeypatch.setattr(
        bundle, "_tokenizer_json", lambda o: plain(o).replace('"lowercase": true', '"lowercase": false')
    )
    with pytest.raises(GateError, match="parity gate: variant tokenizer"):
        export(folder, ExportOptions(output=tmp_path / "bundle", threads=1))
