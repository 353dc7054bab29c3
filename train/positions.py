"""How many tokens a model has positions for, from its configuration."""

from __future__ import annotations

from typing import Any

AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""model types of transformers whose first token has the position after the padding token's id"""
MPNET_PADDING = 1
"""MPNet's own constant, whatever the configuration says"""


def max_positions(config: Any) -> int | None:
    """Tokens in one input of a model (of an encoder-decoder: of its encoder), special ones included, at most.

    Where positions are computed (rotary, sinusoidal), it is what the configuration says the model is made for. None where
    the model has no such limit: relative positions alone, as in T5, XLNet, Funnel and DeBERTa-v3.
    """
    if config.model_type == "encoder-decoder":
        return max_positions(config.encoder)
    return _usable(config, getattr(config, "max_encoder_position_embeddings", None))


def max_target_positions(config: Any) -> int | None:
    """Tokens that the decoder of an encoder-decoder reads, at most; None where it has no such limit."""
    if config.model_type == "encoder-decoder":
        return max_positions(config.decoder)
    return _usable(config, getattr(config, "max_decoder_position_embeddings", None))


def _usable(config: Any, rows: int | None) -> int | None:
    if rows is None:
        rows = getattr(config, "max_position_embeddings", None)
    if not isinstance(rows, int) or rows <= 0:
        return None
    if getattr(config, "position_biased_input", True) is False:  # DeBERTa with relative positions alone
        return None
    return max(0, rows - _first(config))


def _first(config: Any) -> int:
    """The position of the first token. BART, OPT and the like have as many rows more as they leave out."""
    if config.model_type not in AFTER_PADDING:
        return 0
    if config.model_type == "esm" and config.position_embedding_type != "absolute":
        return 0
    padding = MPNET_PADDING if config.model_type == "mpnet" else config.pad_token_id or 0
    return int(padding) + 1
