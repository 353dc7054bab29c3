"""What a model's own files say about how it writes: its settings for generation and its longest text."""

from __future__ import annotations

from typing import Any

from headway.core.errors import CheckpointError, UnavailableError, UsageError
from headway.core.search import Search
from headway.train.checkpoint import Opened

NO_EFFECT = frozenset({
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size",
    "compile_config", "disable_compile", "continuous_batching_config",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "max_matching_ngram_size", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight",
    "prompt_lookup_num_tokens", "assistant_early_exit", "speculation_type",
    "transformers_version", "_from_model_config", "bos_token_id",
})  # fmt: skip
"""settings of `generate()` that do not change its tokens: they say what is returned, how memory is used, and how tokens
are guessed ahead"""
NEUTRAL = {
    "remove_invalid_values": False,
    "low_memory": False,
    "token_healing": False,
    "use_mtp": False,
    "is_assistant": False,
    "encoder_repetition_penalty": 1.0,
    "guidance_scale": 1.0,
    "penalty_alpha": 0.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""values of the others that change nothing either"""
OF_A_CALL = ("stop_strings", "force_words_ids", "max_time")
"""settings that a model's own may not hold: `generate()` needs a tokenizer for them, code of others, or a clock"""
KNOWN = tuple(name for name in Search.__struct_fields__ if name not in OF_A_CALL)


def read(opened: Opened) -> Search:
    """The model's own settings for generation, as `generate()` of it would use them with do_sample=False.

    They lie in generation_config.json, or in config.json of checkpoints from before transformers 4.26. A model without
    any length has none here either, see `Search.longest`.

    Raises UnavailableError, naming the setting, for one that changes what is generated and is not in `Search`, and
    CheckpointError for a value that `Search` refuses.
    """
    given = {n: v for n, v in opened.model.generation_config.to_dict().items() if v is not None}
    given.pop("do_sample", None)  # the same text gives the same answer unless a caller wants it otherwise
    for name, value in given.items():
        if name not in (*KNOWN, *NO_EFFECT) and value != NEUTRAL.get(name):
            raise UnavailableError(
                f"the generation setting {name}={value!r} of {opened.folder}",
                "remove it from its generation_config.json (of older checkpoints: config.json) if the model generates "
                "well without it",
            )
    if opened.model.config.is_encoder_decoder:
        given.setdefault("decoder_start_token_id", given.get("bos_token_id"))
    known = {n: v for n, v in given.items() if n in KNOWN and not _without_effect(n, given)}
    try:
        return Search().changed(**known)
    except UsageError as error:
        raise CheckpointError(opened.folder, f"its generation settings: {error}") from error


def _without_effect(name: str, given: dict[str, Any]) -> bool:
    """Whether a known setting's value means the same to `generate()` as no value."""
    if name == "diversity_penalty":
        return int(given.get("num_beam_groups", 1)) == 1
    return name == "pad_token_id" and given[name] < 0


def longest(opened: Opened) -> int | None:
    """Tokens that the decoder has positions for; None where they are not limited."""
    model = opened.model
    decoder = getattr(model, "decoder", model) if model.config.model_type == "encoder-decoder" else model
    found = getattr(decoder.config, "max_position_embeddings", None)
    return None if found is None else int(found)
