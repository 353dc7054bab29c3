"""Tiny random models of several architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from tests.support import tokenizers

HIDDEN = 32
ARCHITECTURES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "mpnet",
    "electra",
    "albert",
    "deberta-v2",
    "modernbert",
)
"""the encoders that most shared models are"""
OFFSET = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
"""positions before the first token's, by architecture: the padding's id, which is 1 for these, and one"""
USUAL_TOKENIZER = {
    "roberta": "byte-level",
    "xlm-roberta": "unigram-nfkc",
    "camembert": "unigram-nfkc",
    "deberta-v2": "unigram-nfkc",
    "modernbert": "byte-level-nfc",
}
"""the kind of tokenizer that goes with an architecture; with the others, uncased WordPiece"""
WITH_TYPES = ("bert", "electra", "albert", "deberta-v2")
"""architectures whose tokenizers give token_type_ids; the others' models have one segment or none"""


def tokenizer_of(architecture: str, kind: str = "", length: Any = tokenizers.LENGTH, **settings: Any) -> Any:
    """A tokenizer of a kind, by default the architecture's usual one, with the inputs that the architecture reads."""
    kind = kind or usual_tokenizer(architecture)
    return tokenizers.make(kind, length, architecture in WITH_TYPES, **settings)


def usual_tokenizer(architecture: str) -> str:
    return USUAL_TOKENIZER.get(architecture, "wordpiece-uncased")


def configuration(
    architecture: str, tokenizer: Any, positions: int = tokenizers.LENGTH, **settings: Any
) -> Any:
    """The configuration of a tiny model that reads texts of `positions` tokens."""
    positions += OFFSET.get(architecture, 0)
    if architecture == "distilbert":
        sizes = {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    else:
        sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 64}
    if architecture in ("roberta", "xlm-roberta", "camembert"):
        sizes["type_vocab_size"] = 1
    if architecture in ("electra", "albert"):
        sizes["embedding_size"] = HIDDEN
    if architecture == "modernbert":
        special = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        special |= {"global_attn_every_n_layers": 2, "local_attention": 16}
    else:
        special = {}
    # Many weights' random values are far apart, so that each part of a text changes the answer
    settings = {"initializer_range": 0.3, "num_labels": 2} | settings
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": positions,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return AutoConfig.for_model(architecture, **(fields | sizes | special | settings))


def model(auto: Any, architecture: str, tokenizer: Any, seed: int = 0, **settings: Any) -> Any:
    """A model with random weights. `auto`: AutoModel or a class of its kind; `settings`: of the configuration."""
    torch.manual_seed(seed)
    made = auto.from_config(configuration(architecture, tokenizer, **settings)).eval()
    for name, weight in made.named_parameters():
        if name.startswith(("classifier", "score", "qa_outputs")) and weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.5)
    return made


def save(
    folder: Path,
    auto: Any = transformers.AutoModel,
    architecture: str = "bert",
    kind: str = "",
    tokenizer: Any = None,
    **settings: Any,
) -> Path:
    """A folder as transformers saves it: a model, and a tokenizer of a kind (by default the architecture's usual one)."""
    tokenizer = tokenizer or tokenizer_of(architecture, kind)
    model(auto, architecture, tokenizer, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def without_embeddings(folder: Path, auto: Any = transformers.AutoModel, **settings: Any) -> Path:
    """A folder whose tokenizer has tokens for which the model has no embedding, as add_tokens without a resize leaves it."""
    tokenizer = tokenizers.make("wordpiece-uncased")
    save(folder, auto, tokenizer=tokenizer, **settings)
    tokenizer.add_tokens(list(tokenizers.ADDED))
    tokenizer.save_pretrained(folder)
    return folder
