"""Which weights are trained and how fast, in parts, on several processes: the weights that come out tell."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from headway.core.errors import UnavailableError, UsageError
from headway.train import adapt, fit
from headway.train import checkpoint as opener
from headway.train.options import TrainOptions
from tests.conftest import records, write_jsonl
from tests.test_train import Killed, killed_after
from tests.tolerance import TOLERANCE

Weights = dict[str, torch.Tensor]


@pytest.fixture
def options(pretrained: Path, tmp_path: Path) -> TrainOptions:
    """Two epochs of four steps without dropout, so that parts of a batch see what the whole would."""
    model = shutil.copytree(pretrained, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    return TrainOptions(
        model=str(model),
        train=write_jsonl(tmp_path / "train.jsonl", records("train", 64)),
        output=tmp_path / "checkpoint",
        epochs=2,
        batch_size=16,
        learning_rate=1e-3,
        max_length=32,
        precision="fp32",
        threads=1,
    )


def train(options: TrainOptions, **changes: Any) -> Weights:
    output = options.output.with_name("-".join(["checkpoint", *map(str, changes.values())]))
    came = fit.train("text-classification", replace(options, output=output, **changes))
    return load_file(came.checkpoint / "model.safetensors")


def before(options: TrainOptions) -> Weights:
    """The body's weights as they were, by their names in the checkpoint."""
    return {f"bert.{n}": w for n, w in load_file(Path(str(options.model)) / "model.safetensors").items()}


def assert_close(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    for name in one:
        if name.endswith("key.bias"):
            continue  # plays no part in a softmax over keys: its gradient is rounding alone
        np.testing.assert_allclose(one[name].numpy(), other[name].numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_parts_of_a_step_come_to_the_whole_step(options: TrainOptions) -> None:
    assert_close(train(options, accumulate=4), train(options))


def test_gradient_checkpointing_changes_nothing(options: TrainOptions) -> None:
    assert_close(train(options, gradient_checkpointing=True), train(options))


def test_frozen_layers_stay_as_they_are(options: TrainOptions) -> None:
    found, old = train(options, freeze=2), before(options)
    frozen = {n for n in old if "embeddings" in n or "layer.0." in n}
    assert all(torch.equal(found[n], old[n]) for n in frozen)
    free = {n for n in old if "layer.1." in n and n.endswith("weight")}
    assert free
    assert not any(torch.equal(found[n], old[n]) for n in free)


def test_more_frozen_than_there_is(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match="--freeze: is 4, but there are 2 layers and embeddings"):
        train(options, freeze=4)


def test_low_layers_learn_slower(options: TrainOptions) -> None:
    model = BertForSequenceClassification(BertConfig(**SMALL))
    groups = adapt.parameter_groups(model, {"classifier.weight"}, 0.01, 1.0, 0.5)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    named = dict(model.named_parameters())
    assert set(rates) == {id(p) for p in named.values()}
    assert rates[id(named["classifier.weight"])] == 1.0
    assert rates[id(named["bert.encoder.layer.1.output.dense.weight"])] == 0.5
    assert rates[id(named["bert.encoder.layer.0.output.dense.weight"])] == 0.25
    assert rates[id(named["bert.embeddings.word_embeddings.weight"])] == 0.125
    assert {n for n, p in named.items() if decays[id(p)]} == {"classifier.weight"}
    slow, plain, old = train(options, layer_decay=0.1), train(options), before(options)
    name = "bert.embeddings.word_embeddings.weight"
    moved = [float((w[name] - old[name]).abs().sum()) for w in (slow, plain)]
    assert 0 < moved[0] < 0.1 * moved[1]


SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def test_depths_of_other_architectures() -> None:
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )
    found = adapt.depths(t5)
    assert found["shared.weight"] == 0
    assert found["encoder.block.1.layer.0.SelfAttention.q.weight"] == 2
    assert found["decoder.block.0.layer.2.DenseReluDense.wi.weight"] == 1
    assert found["decoder.final_layer_norm.weight"] == 3
    llama = adapt.depths(LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=False)))
    assert (llama["model.embed_tokens.weight"], llama["model.layers.1.mlp.up_proj.weight"]) == (0, 2)
    assert (llama["model.norm.weight"], llama["lm_head.weight"]) == (3, 3)
    both = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**SMALL), BertConfig(**SMALL))
    pair = adapt.depths(EncoderDecoderModel(both))
    assert pair["encoder.encoder.layer.0.attention.self.query.weight"] == 1
    assert pair["decoder.bert.encoder.layer.1.crossattention.self.query.weight"] == 2


def test_adapters_are_merged_and_of_their_rank(options: TrainOptions) -> None:
    found, old, plain = train(options, lora=2), before(options), train(options)
    assert found.keys() == plain.keys()
    name = "bert.encoder.layer.1.attention.self.query.weight"
    change = (found[name] - old[name]).numpy()
    assert np.linalg.matrix_rank(change, tol=1e-5) == 2
    still = {n for n in old if "embeddings" in n or "LayerNorm" in n or (n.endswith("bias") and "layer" in n)}
    assert all(torch.equal(found[n], old[n]) for n in still)
    assert not torch.equal(found["classifier.weight"], train(options, lora=2, seed=14)["classifier.weight"])


def test_a_rank_that_no_weight_has(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match=r"^--lora: is 33, but the layers' weights have ranks up to 32$"):
        train(options, lora=33)


def test_adapters_resume(options: TrainOptions, tmp_path: Path) -> None:
    wanted = train(options, lora=2)
    output = tmp_path / "killed"
    with pytest.raises(Killed):
        fit.train("text-classification", replace(options, lora=2, output=output), killed_after(6))
    fit.train("text-classification", replace(options, lora=2, output=output, resume=True))
    found = load_file(output / "model.safetensors")
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("task", ["text2text-generation", "sentence-embedding"])
def test_other_tasks_resume(task: str, options: TrainOptions, tmp_path: Path) -> None:
    """A model that is not transformers' own, and one with two halves, from the same place with the same result."""
    from tests import corpora

    make = corpora.rewrites if task.startswith("text2text") else corpora.triplets
    data = corpora.write(make, "train", tmp_path, 40)
    options = replace(options, train=data, batch_size=8)
    fit.train(task, replace(options, output=tmp_path / "uninterrupted"))
    with pytest.raises(Killed):
        fit.train(task, options, killed_after(7))
    fit.train(task, replace(options, resume=True))
    wanted, found = (load_file(tmp_path / n / "model.safetensors") for n in ("uninterrupted", "checkpoint"))
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_bf16_trains_fp32_weights(options: TrainOptions) -> None:
    found, plain = train(options, precision="bf16"), train(options)
    assert {w.dtype for w in found.values()} == {torch.float32}
    assert not torch.equal(found["classifier.weight"], plain["classifier.weight"])
    rtol, atol = TOLERANCE["bfloat16"]
    np.testing.assert_allclose(found["classifier.weight"], plain["classifier.weight"], rtol, atol)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_needs_a_gpu(options: TrainOptions) -> None:
    with pytest.raises(UnavailableError, match="fp16 training on a processor is not available"):
        train(options, precision="fp16")


def test_options_of_other_tasks_are_refused(options: TrainOptions) -> None:
    for changes, flag in (({"loss": "mnr"}, "--loss"), ({"beams": 2}, "--beams")):
        with pytest.raises(UsageError, match=f"{flag}: has no meaning for text-classification"):
            train(options, **changes)


def test_label_smoothing_takes_part(options: TrainOptions) -> None:
    sharp, smooth = train(options, epochs=1), train(options, epochs=1, label_smoothing=0.3)
    assert not torch.equal(sharp["classifier.weight"], smooth["classifier.weight"])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "attention"])
def test_pooled_heads_come_back(pooling: str, options: TrainOptions) -> None:
    output = options.output
    fit.train("text-classification", replace(options, pooling=pooling, epochs=1))
    opened = opener.open_checkpoint(output)
    names = set(load_file(output / "head.safetensors"))
    assert ("attention.weight" in names) == (pooling == "attention")
    batch = opened.tokenizer(["one text", "and another, longer text"], padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.no_grad():
        logits = opened.model(**batch).logits
        tokens = opened.model.body(**batch).last_hidden_state
        for row in range(2):
            own = tokens[row][: int(mask[row].sum())]
            pooled = {"cls": own[0], "mean": own.mean(0), "max": own.amax(0)}.get(pooling)
            if pooled is None:
                weights = (own @ opened.model.attention.weight[0]).softmax(0)
                pooled = (weights[:, None] * own).sum(0)
            np.testing.assert_allclose(logits[row], opened.model.classifier(pooled), *TOLERANCE["float32"])


def test_two_processes_come_to_what_one_does(options: TrainOptions, dev_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "two"
    arguments = ["--model", options.model, "--train", options.train, "--eval", dev_file, "--output", output]
    arguments += ["--epochs", 2, "--batch-size", 16, "--learning-rate", 1e-3, "--max-length", 32]
    arguments += ["--precision", "fp32"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*launch, "-m", "headway.cli.main", "train", "text-classification", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("checkpoint: ") == 1
    assert not (tmp_path / "two.training").exists()
    alone = fit.train("text-classification", replace(options, eval=dev_file))
    assert_close(load_file(output / "model.safetensors"), load_file(alone.checkpoint / "model.safetensors"))
    told = json.loads((output / "headway.json").read_text())["metrics"]
    assert told == pytest.approx(alone.metrics, abs=0.05)


def test_a_batch_that_cannot_be_shared(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match="--batch-size: is 16, which 1 processes times 3 parts do not share"):
        train(options, accumulate=3)
