"""Plain causal language modelling (run_clm) of a model that lies initialised in the folder.

Options: train_text, test_text (whole strings), block (tokens). Records are not used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import AutoModelForCausalLM, default_data_collator

from headway.bench.plain import base


def run(setting: base.Setting) -> dict[str, float]:
    """perplexity of a token, word_perplexity: the same total spread over the white-space words of the text."""
    tokenizer = base.start(setting)
    model = AutoModelForCausalLM.from_pretrained(setting.model)
    size = setting.options["block"]
    train = [
        {"input_ids": block, "labels": block}
        for block in _blocks(tokenizer, setting.options["train_text"], size)
        if len(block) == size
    ]
    base.fit(setting, model, train_dataset=train, data_collator=default_data_collator)
    total, tokens = _loss(model, _blocks(tokenizer, setting.options["test_text"], size))
    words = len(setting.options["test_text"].split())
    return {"perplexity": math.exp(total / tokens), "word_perplexity": math.exp(total / words)}


def _blocks(tokenizer: Any, text: str, size: int) -> list[list[int]]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [ids[begin : begin + size] for begin in range(0, len(ids), size)]


def _loss(model: torch.nn.Module, blocks: list[list[int]]) -> tuple[float, int]:
    """Sum of the negative log-likelihoods, and their number: every token but the first of each block."""
    total, tokens = 0.0, 0
    for batch in base.by_length([len(b) for b in blocks]):
        for rows in _equal_lengths([blocks[i] for i in batch]):
            with torch.inference_mode():
                logits = model(input_ids=rows).logits[:, :-1]  # (B, T - 1, V)
            targets = rows[:, 1:]
            total += float(torch.nn.functional.cross_entropy(logits.mT, targets, reduction="sum"))
            tokens += targets.numel()
    return total, tokens


def _equal_lengths(blocks: list[list[int]]) -> list[torch.Tensor]:
    """Only the last block of a text can be shorter."""
    lengths = sorted({len(b) for b in blocks} - {1})
    return [torch.tensor([b for b in blocks if len(b) == length]) for length in lengths]  # (B, T)
