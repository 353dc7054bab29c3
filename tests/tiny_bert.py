"""A tiny random BERT with a WordPiece tokenizer of given words, as `transformers` saves it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def tiny_bert(folder: Path, texts: Iterable[str], *, length: int, layers: int) -> Path:
    """Write it; it knows the texts' words and all their letters, and reads texts of so many tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special |= {"mask_token": "[MASK]"}
    words = re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())
    letters = sorted(set("".join(words)))
    pieces = [*special.values(), *letters, *(f"##{c}" for c in letters), *sorted(set(words) - set(letters))]
    raw = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))  # type: ignore[call-arg]
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    sep, cls = raw.token_to_id("[SEP]"), raw.token_to_id("[CLS]")
    raw.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=raw, model_input_names=names, model_max_length=length, **special
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=raw.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=length,
        pad_token_id=raw.token_to_id("[PAD]"),
        initializer_range=0.3,  # far apart, so that an untrained model gives many different answers
    )
    BertModel(config).save_pretrained(folder)
    return folder
