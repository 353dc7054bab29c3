"""Classifiers that are not encoders: those of causal models are exported, the others refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from headway.core.errors import CheckpointError
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.train import checkpoint
from tests.test_architectures import HALVES, SIZES, tokenizer_of

LABELS = ["calm", "angry", "glad"]
GPT2 = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
MISTRAL = SIZES | {"sliding_window": 8}
TEXTS = [
    "Where is my parcel?",
    "It does not work at all since the last update, why?",
    "no",
    "thanks a lot " * 9,
]


def classifier(kind: str, sizes: dict[str, Any], folder: Path, **changes: Any) -> Path:
    tokenizer = tokenizer_of(folder, kind)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    size = len(AutoTokenizer.from_pretrained(folder)) + 1  # Qwen2's class of tokenizer adds a token
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    config = AutoConfig.for_model(kind, **(sizes | special | names | changes), vocab_size=size)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "sizes"), [("gpt2", GPT2), ("llama", SIZES), ("qwen2", SIZES), ("mistral", MISTRAL)]
)
def test_causal_classifiers_answer_as_the_pipeline_does(
    kind: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    folder = classifier(kind, sizes, tmp_path / "model")
    export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    pipe: Any = load(tmp_path / "bundle", threads=1)
    library: Any = pipeline("text-classification", model=str(folder), top_k=None)
    together = pipe(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        expected = {answer["label"]: answer["score"] for answer in library([text])[0]}
        assert found.scores == pytest.approx(expected, abs=1e-5)
        assert pipe(text).scores == pytest.approx(expected, abs=1e-5)
    assert len({round(found.scores["calm"], 4) for found in together}) > 1


@pytest.mark.parametrize(("kind", "sizes"), [("bart", HALVES), ("mbart", HALVES), ("t5", T5)])
def test_classifiers_of_encoder_decoders_are_refused_by_name(
    kind: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    folder = classifier(kind, sizes, tmp_path / "model")
    with pytest.raises(CheckpointError, match="ForSequenceClassification is an encoder-decoder.* cannot be"):
        export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("pad", [None, 5])
def test_causal_classifiers_that_cannot_pad_are_refused_by_name(pad: int | None, tmp_path: Path) -> None:
    folder = classifier("gpt2", GPT2, tmp_path / "model")
    told = json.loads((folder / "config.json").read_text()) | {"pad_token_id": pad}
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=f"pad_token_id, which is {pad} in config.json"):
        checkpoint.open_foreign(folder, "text-classification", [])


# --- folders that are no whole model


def test_adapters_are_named(tmp_path: Path) -> None:
    folder = tokenizer_of(tmp_path / "adapter", "gpt2") and tmp_path / "adapter"
    (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "some/base"}'
    )
    for config in (None, {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}):
        if config:
            (folder / "config.json").write_text(json.dumps(config))
        for task in (None, "text-generation"):
            with pytest.raises(CheckpointError, match=r"adapter.*merge_and_unload\(\)"):
                export(folder, ExportOptions(output=tmp_path / "bundle", task=task, threads=1))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_pointers_of_git_lfs_are_named(name: str, tmp_path: Path) -> None:
    folder = classifier("gpt2", GPT2, tmp_path / "model")
    (folder / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    with pytest.raises(CheckpointError, match=f"{name} is a pointer of Git LFS.*git lfs pull"):
        export(folder, ExportOptions(output=tmp_path / "bundle", threads=1))
