"""Checkpoints of real shapes with random weights, and words that are called by their numbers: "t17"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-small": (
        "T5ForConditionalGeneration",
        {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128}
        | {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
    ),
    "bart-base": (
        "BartForConditionalGeneration",
        {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072}
        | {"decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12}
        | {"vocab_size": 50265, "bos_token_id": 0, "pad_token_id": 2, "eos_token_id": 1}
        | {"decoder_start_token_id": 1, "forced_eos_token_id": None},
    ),
    "gpt2-small": (
        "GPT2LMHeadModel",
        {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
        | {"bos_token_id": 0, "pad_token_id": 2, "eos_token_id": 1},
    ),
}
"""class of the model, sizes"""
SPECIAL = 4
"""tokens that are no words, the first ones"""


def write(shape: str, folder: Path) -> None:
    """Write the checkpoint of a shape; always the same weights."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    name, sizes = SHAPES[shape]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    kind(kind.config_class(**sizes)).save_pretrained(folder)
    raw = Tokenizer(models.WordLevel({f"t{i}": i for i in range(sizes["vocab_size"])}, unk_token="t3"))
    special = {"eos": sizes["eos_token_id"], "pad": sizes["pad_token_id"], "bos": 0, "unk": 3}
    fast: Any = transformers.PreTrainedTokenizerFast
    tokens = {f"{name}_token": f"t{i}" for name, i in special.items()}
    fast(tokenizer_object=raw, **tokens).save_pretrained(folder)
