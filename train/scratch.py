"""Starting without a pretrained model: a BPE tokenizer trained on the user's texts, and a small new model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 4096
"""tokens, at most"""
PAD, END = "<pad>", "</s>"


def tokenizer(texts: Iterable[str], max_length: int, closed: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (Sennrich et al. 2016), which has a token for every byte.

    `closed`: every text ends with the end token, as encoder-decoders want it.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    if closed:
        end = raw.token_to_id(END)
        raw.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, end)]
        )
    make: Any = PreTrainedTokenizerFast
    return cast(
        PreTrainedTokenizerFast,
        make(
            tokenizer_object=raw,
            pad_token=PAD,
            eos_token=END,
            model_max_length=max_length,
            model_input_names=["input_ids", "attention_mask"],
        ),
    )


def decoder(tokens: PreTrainedTokenizerFast, max_length: int) -> Any:
    """A Llama of 4 layers (about 4 million weights)."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=704,
            max_position_embeddings=max_length,
            tie_word_embeddings=True,
            bos_token_id=tokens.eos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
    )


def encoder_decoder(tokens: PreTrainedTokenizerFast) -> Any:
    """A T5 of 3 + 3 layers (about 8 million weights)."""
    config = T5Config(
        vocab_size=len(tokens),
        d_model=256,
        d_kv=64,
        d_ff=704,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.1,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    config.decoder_start_token_id = tokens.pad_token_id
    return T5ForConditionalGeneration(config)
