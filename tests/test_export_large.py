"""Models above 2 GB, which one ONNX file cannot hold: their weights lie beside it through every step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from headway.core.errors import BundleError
from headway.core.manifest import Bundle
from headway.export import store
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from tests.test_architectures import tokenizer_of

TEXTS = ["Where is my parcel?", "I want a refund, please, as it does not work at all since the last update"]


def classifier(folder: Path, vocabulary: int, width: int) -> Path:
    tokenizer = tokenizer_of(folder, "bert")
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, pad_token_id=tokenizer.pad_token_id, num_labels=2,
    )  # fmt: skip
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        used = weight.data[: len(tokenizer)]  # of the vocabulary; the other rows stay zeros that nobody wrote
        weight.data.zero_()
        used.normal_(std=0.2, generator=generator).add_(1 if name.endswith("LayerNorm.weight") else 0)
    body: Any = model.bert.embeddings
    body.position_ids = torch.arange(40)[None]
    body.token_type_ids = torch.zeros(1, 40, dtype=torch.int64)
    model.save_pretrained(folder)
    return folder


def answers(model: Path, bundle: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    tokenizer, reference = (
        AutoTokenizer.from_pretrained(model),
        BertForSequenceClassification.from_pretrained(model),
    )
    with torch.no_grad():
        scores = [
            reference.eval()(**tokenizer(t, return_tensors="pt")).logits.softmax(-1)[0, 1] for t in TEXTS
        ]
    found: Any = load(bundle, precision="fp32", threads=1)(TEXTS)
    return np.array([r.scores["LABEL_1"] for r in found]), np.array(scores)


def test_weights_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same small model in one file and in two."""
    model = classifier(tmp_path / "model", 2000, 16)
    options = {"precision": "fp32,int8,fp16", "threads": 1}
    export(model, ExportOptions(output=tmp_path / "one", **options))  # type: ignore[arg-type]
    monkeypatch.setattr(store, "LARGEST", 1000)
    export(model, ExportOptions(output=tmp_path / "two", **options))  # type: ignore[arg-type]
    export(model, ExportOptions(output=tmp_path / "again", **options))  # type: ignore[arg-type]
    one, two, again = (Bundle.read(tmp_path / name) for name in ("one", "two", "again"))
    beside = {f"{precision}/model.onnx.data" for precision in two.variants}
    assert set(two.files) - set(one.files) == beside
    assert two.files == again.files
    for name, variant in two.variants.items():
        assert variant.parity == one.variants[name].parity
    moved = shutil.move(tmp_path / "two", tmp_path / "moved")
    for precision in two.variants:
        assert load(tmp_path / "one", precision=precision)(TEXTS) == load(moved, precision=precision)(TEXTS)
    with (moved / "int8/model.onnx.data").open("r+b") as stream:
        stream.write(b"changed")
    with pytest.raises(BundleError, match=r"int8/model.onnx.data was changed"):
        load(moved, precision="int8")


def test_above_two_gigabytes(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", 1_100_000, 512)
    assert (model / "model.safetensors").stat().st_size > 2**31
    export(model, ExportOptions(output=tmp_path / "bundle", precision="fp32,int8", threads=2))
    files = Bundle.read(tmp_path / "bundle").files
    assert files["fp32/model.onnx.data"].bytes > 2**31
    assert files["fp32/model.onnx"].bytes < 2**20
    found, expected = answers(model, tmp_path / "bundle")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
