"""`generate()` of a model in PyTorch as the reference: what does not change its tokens, or is headway's alone, is off."""

from __future__ import annotations

from typing import Any

from headway.core.errors import CheckpointError

OFF = {
    "do_sample": False,
    "return_dict_in_generate": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "use_cache": True,
    "cache_implementation": None,
    "cache_config": None,
    "prefill_chunk_size": None,
    "compile_config": None,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "speculation_type": None,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "num_return_sequences": 1,
}
"""settings with the value that a reference has. They say what is returned, how much memory is used, how tokens are
guessed ahead, and what Transformers 5 has moved out of itself (groups of beams)"""


def generate(model: Any, **given: Any) -> Any:
    """`model.generate()` with the model's own settings, as far as a call does not give others.

    With `max_new_tokens` the model's own `max_length` does not count. Raises CheckpointError for settings of the model
    that `generate()` refuses.
    """
    if given.get("max_new_tokens") is not None:
        given.setdefault("max_length", None)
    try:
        return model.generate(**(OFF | given))
    except ValueError as error:
        said = next(iter(str(error).splitlines()), "")
        raise CheckpointError(
            model.name_or_path, f"generate() refuses its generation settings: {said}"
        ) from error
