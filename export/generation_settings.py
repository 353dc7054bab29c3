"""What a model's own files say about how it writes: its settings for generation and its longest text."""

from __future__ import annotations

from headway.core.errors import UnavailableError
from headway.core.search import Search
from headway.train.checkpoint import Opened

NO_EFFECT = frozenset({
    "top_h", "epsilon_cutoff", "eta_cutoff",
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size",
    "compile_config", "disable_compile", "continuous_batching_config",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "max_matching_ngram_size", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight",
    "transformers_version", "_from_model_config", "bos_token_id",
})  # fmt: skip
"""settings of `generate()` that change nothing in a search without sampling and without a second model"""
NEUTRAL = {
    "remove_invalid_values": False,
    "low_memory": False,
    "token_healing": False,
    "use_mtp": False,
    "is_assistant": False,
    "encoder_repetition_penalty": 1.0,
    "guidance_scale": 1.0,
    "penalty_alpha": 0.0,
}
"""values of the others that change nothing either"""
OF_A_CALL = ("stop_strings", "force_words_ids", "max_time")
"""settings that a model's own may not hold: `generate()` needs a tokenizer for them, code of others, or a clock"""
KNOWN = tuple(name for name in Search.__struct_fields__ if name not in OF_A_CALL)


def read(opened: Opened) -> Search:
    """The model's own settings for generation, as `generate()` of it would use them with do_sample=False.

    Raises UnavailableError, naming the setting, for one that changes what is generated and is not in `Search`.
    """
    given = {n: v for n, v in opened.model.generation_config.to_dict().items() if v is not None}
    given.pop("do_sample", None)  # the same text gives the same answer unless a caller wants it otherwise
    for name, value in given.items():
        if name not in (*KNOWN, *NO_EFFECT) and value != NEUTRAL.get(name):
            raise UnavailableError(
                f"the generation setting {name}={value!r} of {opened.folder}",
                "remove it from generation_config.json if the model writes well without it",
            )
    if opened.model.config.is_encoder_decoder:
        given.setdefault("decoder_start_token_id", given.get("bos_token_id"))
    return Search().changed(**{n: v for n, v in given.items() if n in KNOWN})


def longest(opened: Opened) -> int | None:
    """Tokens that the decoder has positions for; None where they are not limited."""
    model = opened.model
    decoder = getattr(model, "decoder", model) if model.config.model_type == "encoder-decoder" else model
    found = getattr(decoder.config, "max_position_embeddings", None)
    return None if found is None else int(found)
