"""Folders of sentence-transformers cross-encoders, in every form that says what becomes of their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers

from tests.support import embedders, models, tokenizers
from tests.support.files import change, write

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
MODALITIES = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
"""what version 5.4 and later write into sentence_bert_config.json"""

PAIRS = (
    ("Where is my parcel?", "The parcel is late."),
    ("Where is my parcel?", "Refunds take five days."),
    ("WHERE IS MY REFUND", "Refunds take five days."),
    ("Сегодня холодно", "今天外面很冷"),
    ("great 😀", "Café René, naïve"),
    ("u", "n"),
    ("Where is it?", "The parcel never came. " * 40 + "Now it ends."),
    ("Is this a long query? " * 20, "The parcel never came. " * 40),
)
"""queries and passages; the last two are longer than every tiny model"""


@dataclass(frozen=True)
class CrossEncoder:
    """One form of each file of a CrossEncoder."""

    architecture: str = "bert"
    tokenizer: str = ""
    labels: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)
    """further fields of config.json"""
    library: Mapping[str, Any] | None = None
    """config_sentence_transformers.json beside a modules.json, as version 5.4 and later write them"""
    sentence_config: Mapping[str, Any] = field(default_factory=lambda: dict(MODALITIES))
    """sentence_bert_config.json, where there is a modules.json"""
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    ranks: bool = True
    """its files say that it is a cross-encoder, so that no task need be given"""
    refused: str = ""

    def save(self, folder: Path) -> Path:
        """Write the folder, which must not exist."""
        auto = transformers.AutoModelForSequenceClassification
        tokenizer = models.tokenizer_of(self.architecture, self.tokenizer)
        models.save(folder, auto, self.architecture, tokenizer=tokenizer, num_labels=self.labels)
        change(folder / "config.json", **self.config)
        change(folder / "tokenizer_config.json", **self.tokenizer_config)
        if self.library is not None:
            kind = "sentence_transformers.base.modules.transformer.Transformer"
            write(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
            write(folder / "config_sentence_transformers.json", dict(self.library))
            write(folder / "sentence_bert_config.json", dict(self.sentence_config))
        return folder


def library(**settings: Any) -> dict[str, Any]:
    """config_sentence_transformers.json as version 6 writes it."""
    told = {
        "model_type": "CrossEncoder",
        "prompts": {},
        "default_prompt_name": None,
        "activation_fn": SIGMOID,
    }
    return embedders.VERSION | told | settings


FORMS: dict[str, CrossEncoder] = {
    "no-activation": CrossEncoder(ranks=False),
    "regression": CrossEncoder(
        architecture="distilbert", config={"problem_type": "regression"}, ranks=False
    ),
    "3-identity": CrossEncoder(
        architecture="roberta", config={"sbert_ce_default_activation_function": IDENTITY}
    ),
    "3-sigmoid": CrossEncoder(
        architecture="xlm-roberta", config={"sbert_ce_default_activation_function": SIGMOID}
    ),
    "3-null": CrossEncoder(config={"sbert_ce_default_activation_function": None}, ranks=False),
    "4-sigmoid": CrossEncoder(
        config={"sentence_transformers": {"activation_fn": SIGMOID, "version": "4.0.1"}},
        tokenizer_config={"truncation_side": "left"},
    ),
    "4-identity": CrossEncoder(
        architecture="electra",
        config={"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.0.1"}},
    ),
    "4-null-beside-3": CrossEncoder(
        config={
            "sentence_transformers": {"activation_fn": None, "version": "4.0.1"},
            "sbert_ce_default_activation_function": IDENTITY,
        },
    ),
    "4-version-only": CrossEncoder(config={"sentence_transformers": {"version": "5.1.0"}}),
    "6-sigmoid": CrossEncoder(library=library()),
    "6-identity": CrossEncoder(
        architecture="modernbert", sentence_config=MODALITIES | {"max_seq_length": 40},
        library=library(
            activation_fn=IDENTITY, prompts={"query": "Rank: "}, default_prompt_name="query"
        ),
    ),
    "6-both": CrossEncoder(
        config={"sentence_transformers": {"activation_fn": SIGMOID, "version": "4.0.1"}},
        library=library(activation_fn=IDENTITY), tokenizer="wordpiece-cased",
        sentence_config=MODALITIES | {"do_lower_case": True},
    ),
}  # fmt: skip
"""forms of one output, for which CrossEncoder gives a score a pair"""
REFUSED: dict[str, CrossEncoder] = {
    "tanh": CrossEncoder(
        config={"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
        refused="activation_fn",
    ),
    "6-tanh": CrossEncoder(
        library=library(activation_fn="torch.nn.modules.activation.Tanh"), refused="activation_fn"
    ),
    "own-activation": CrossEncoder(
        config={"sbert_ce_default_activation_function": "mine.Squash"},
        refused="activation_fn|sbert_ce_default_activation_function",
    ),
    "own-identity": CrossEncoder(
        library=library(
            activation_fn="mine.Identity"
        ),  # the library takes Sigmoid for what it does not import
        refused="activation_fn",
    ),
}
"""forms that an export refuses by the name of a setting, unless its scores are the library's"""
NLI = CrossEncoder(
    labels=3,
    config={
        "id2label": {"0": "contradiction", "1": "entailment", "2": "neutral"},
        "label2id": {"contradiction": 0, "entailment": 1, "neutral": 2},
        "sentence_transformers": {"activation_fn": IDENTITY, "version": "4.0.1"},
    },
    ranks=False,
)
"""three outputs: a classifier of pairs"""
NLI_LIBRARY = CrossEncoder(labels=3, config=dict(NLI.config), library=library(activation_fn=IDENTITY))
"""the same as version 6 writes it"""


def logit_score(folder: Path) -> Path:
    """A cross-encoder made of a causal language model, whose score is the difference of two tokens' logits."""
    tokenizer = tokenizers.make("byte-level", types=False)
    config = transformers.AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    types = (
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
    )
    paths = ("", "1_LogitScore")
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(zip(paths, types, strict=True))
    ]
    write(folder / "modules.json", listed)
    (folder / "1_LogitScore").mkdir()
    write(folder / "1_LogitScore" / "config.json", {"true_token_id": 9, "false_token_id": 8})
    write(folder / "config_sentence_transformers.json", library(activation_fn=IDENTITY))
    task = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
    write(folder / "sentence_bert_config.json", MODALITIES | task)
    return folder
