"""Other architectures than BERT through the same loop: tiny random models of each kind learn and come back."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from headway.core import tasks
from headway.train import checkpoint as opener
from headway.train import fit, scratch
from headway.train.options import TrainOptions
from headway.train.tasks import base
from tests import corpora

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "num_key_value_heads": 2,
}
HALVES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
}
ENCODERS = ["bert", "distilbert", "roberta", "electra", "mpnet", "deberta-v2", "modernbert"]
ENCODER_DECODERS = ["bart", "mbart", "marian", "pegasus", "t5"]
DECODERS = ["gpt2", "llama", "qwen2"]


def tokenizer_of(folder: Path, kind: str) -> Any:
    """A byte-level tokenizer of the support messages, with the special tokens that the kind of model wants."""
    texts = [row["text"] for row in corpora.texts("train")[:80]]
    made = scratch.tokenizer(texts, 128, closed=kind in ENCODER_DECODERS)
    if kind in ENCODERS:
        made = copy.deepcopy(made)
        made.add_special_tokens({"cls_token": "<cls>", "sep_token": "</s>", "mask_token": "<mask>"})
        from tokenizers.processors import TemplateProcessing

        cls, sep = made.convert_tokens_to_ids(["<cls>", "</s>"])
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<cls> $A </s>",
            pair="<cls> $A </s> $B </s>",
            special_tokens=[("<cls>", cls), ("</s>", sep)],
        )
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def model_of(kind: str, auto: Any, folder: Path) -> Path:
    tokenizer = tokenizer_of(folder, kind)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    tokens = len(tokenizer) + 8 * (kind == "qwen2")  # whose tokenizer gets some from Transformers
    special = {"vocab_size": tokens, "pad_token_id": pad, "eos_token_id": end, "bos_token_id": end}
    if kind in ENCODER_DECODERS:
        start = pad if kind in ("t5", "marian", "pegasus") else end
        sizes = HALVES | {"decoder_start_token_id": start, "forced_eos_token_id": None}
        if kind == "t5":
            sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2} | {
                "decoder_start_token_id": pad
            }
    else:
        sizes = SIZES | (
            {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2} if kind == "gpt2" else {}
        )
        if kind == "distilbert":
            sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 128}
        if kind in ("gpt2", "llama", "qwen2"):
            sizes = {k: v for k, v in sizes.items() if kind != "gpt2" or k.startswith("n_")}
    if kind == "modernbert":
        special |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(sizes | special))
    auto.from_config(config).save_pretrained(folder)
    return folder


def learn(
    task: str, model: Path, make: Any, tmp_path: Path, **changes: Any
) -> tuple[dict[str, float], dict[str, float]]:
    """Figures after a step of almost nothing, and after training; both on the training data."""
    data = corpora.write(make, "train", tmp_path, 32)
    options: dict[str, Any] = {
        "model": str(model), "train": data, "eval": data, "epochs": 15, "patience": 15, "batch_size": 8,
        "learning_rate": 3e-3, "max_length": 96, "precision": "fp32", "threads": 1,
    }  # fmt: skip
    options |= changes
    hardly = fit.train(
        task, TrainOptions(**(options | {"output": tmp_path / "hardly", "learning_rate": 1e-9, "epochs": 1}))
    )
    came = fit.train(task, TrainOptions(**(options | {"output": tmp_path / "checkpoint"})))
    opened = opener.open_checkpoint(came.checkpoint)
    module = tasks.load(task)
    examples = tasks.read_labelled(module, data, spec=opened.spec)
    assert module.metrics(examples, opener.predict(opened, examples)) == pytest.approx(
        came.metrics, abs=1e-3, rel=1e-3
    )
    return hardly.metrics, came.metrics


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, transformers.AutoModel, tmp_path / "model")
    before, after = learn("token-classification", model, corpora.plain_tags, tmp_path)
    assert after["macro_f1"] > before["macro_f1"]


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_encoder_decoders(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, transformers.AutoModelForSeq2SeqLM, tmp_path / "model")
    data = corpora.write(corpora.rewrites, "train", tmp_path, 32)
    options = TrainOptions(
        model=str(model),
        train=data,
        output=tmp_path / "checkpoint",
        epochs=20,
        batch_size=8,
        learning_rate=1e-2,
        max_length=96,
        max_target_length=16,
        precision="fp32",
        threads=1,
    )
    fit.train(
        "text2text-generation", replace(options, output=tmp_path / "hardly", learning_rate=1e-9, epochs=1)
    )
    fit.train("text2text-generation", options)
    assert loss_of(tmp_path / "checkpoint", tmp_path) < 0.8 * loss_of(tmp_path / "hardly", tmp_path)
    assert transformers.AutoModelForSeq2SeqLM.from_pretrained(options.output).config.model_type == kind
    opened = opener.open_checkpoint(options.output)
    examples = tasks.read_labelled(tasks.load("text2text-generation"), data)[:4]
    assert len(opener.predict(opened, examples)) == 4


def loss_of(folder: Path, data: Path) -> float:
    """Loss of the targets that were trained."""
    opened, specifics = opener.open_checkpoint(folder), base.load("text2text-generation")
    options = TrainOptions(model="none", train=data, output=data, max_target_length=16)
    rows = corpora.write(corpora.rewrites, "train", data, 32)
    examples = tasks.read_labelled(tasks.load("text2text-generation"), rows)
    prepared = specifics.prepare(examples, opened.tokenizer, opened.model, opened.spec, options)
    batch = specifics.collate(opened.tokenizer)(prepared.rows)
    with torch.no_grad():
        return float(specifics.objective(examples, opened.spec, options)(opened.model, batch))


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, transformers.AutoModelForCausalLM, tmp_path / "model")
    before, after = learn("text-generation", model, corpora.texts, tmp_path)
    assert after["perplexity"] < before["perplexity"] / 2
