"""`generate()` of Transformers in PyTorch, fp32 and bf16 weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from headway.bench.writers.base import Found, Hypothesis, Ids, Wish, Write, told, up_to_end

PRECISIONS = ("fp32", "bf16")
EXACT = ("fp32",)


def interpreter() -> str:
    return sys.executable


def prepared(checkpoint: Path, precision: str, folder: Path) -> None:
    """Nothing: it opens the checkpoint."""


def open_subject(checkpoint: Path, precision: str, folder: Path, threads: int) -> Generating:
    import torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return Generating(opened(checkpoint, dtype), checkpoint)


def opened(checkpoint: Path, dtype: Any = None) -> Any:
    """The checkpoint's model in PyTorch, fp32 if no type is given."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if told(checkpoint)["is_encoder_decoder"] else AutoModelForCausalLM
    return auto.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True).eval()


class Generating:
    """`generate()`; and where the next token alone is wanted of a decoder, also one run of the model for it."""

    def __init__(self, model: Any, checkpoint: Path) -> None:
        self._model, self._told = model, told(checkpoint)

    def ways(self, wish: Wish, scored: bool) -> Mapping[str, Write]:
        found: dict[str, Write] = {"generate()": partial(self._generated, wish, scored)}
        if wish.new == 1 and not self._told["is_encoder_decoder"]:
            found["one run"] = partial(self._next, wish)
        return found

    def engine_seconds(self) -> None:
        return None

    def _generated(self, wish: Wish, scored: bool, sources: Ids) -> Found:
        import torch

        ids = torch.tensor(sources)
        with torch.inference_mode():
            said = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=wish.beams,
                num_return_sequences=wish.returned,
                min_new_tokens=wish.least,
                max_new_tokens=wish.new,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=scored,
            )
        prompt = 1 if self._told["is_encoder_decoder"] else ids.shape[1]
        rows = said.sequences[:, prompt:].tolist()
        scores = said.sequences_scores.tolist() if scored else [0.0] * len(rows)
        every = [
            Hypothesis(up_to_end(row, self._told.get("eos_token_id")), score)
            for row, score in zip(rows, scores, strict=True)
        ]
        return [every[i : i + wish.returned] for i in range(0, len(every), wish.returned)]

    def _next(self, wish: Wish, sources: Ids) -> Found:
        import torch

        ids = torch.tensor(sources)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1]
            best = torch.log_softmax(logits.float(), -1).topk(wish.returned)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[Hypothesis([token], score) for token, score in zip(*row, strict=True)] for row in rows]


def step_weights(model: Any) -> int:
    """Numbers that a step of the decoder reads: all of what runs in it but tables that it looks up rows of."""
    import torch

    ran: dict[int, Any] = {}
    hooks = [model.get_decoder().register_forward_pre_hook(lambda *_: ran.clear())]
    for module in model.modules():
        if (
            not isinstance(module, torch.nn.Embedding)
            and next(module.parameters(recurse=False), None) is not None
        ):
            hooks.append(module.register_forward_hook(lambda module, *_: ran.update({id(module): module})))
    with torch.inference_mode():
        model.generate(torch.tensor([[5, 6, 7]]), min_new_tokens=2, max_new_tokens=2, do_sample=False)
    for hook in hooks:
        hook.remove()
    return sum(weights.numel() for module in ran.values() for weights in module.parameters(recurse=False))
