"""The Transformers pipeline in PyTorch, fp32 and bf16 weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headway.bench.peers.base import Setting
from headway.core.errors import UnavailableError

NEEDS_CHECKPOINT = True


def precisions(model: Path) -> list[str]:
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise UnavailableError("PyTorch with transformers", "pip install 'headway[train]'")
    return ["fp32", "bf16"]


def open_subject(model: Path, precision: str, threads: int, max_length: int) -> TransformersPipeline:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    return TransformersPipeline(
        pipeline("text-classification", model=network, tokenizer=tokenizer, device="cpu"), max_length
    )


class TransformersPipeline:
    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "by_length": by_length}
        for size in (1, 8, 32, 128)
        for by_length in (False, True)
    )

    def __init__(self, pipe: Any, max_length: int) -> None:
        self._pipe, self._cut = pipe, {"truncation": True, "max_length": max_length}

    def one(self, text: str) -> str:
        return str(self._pipe(text, **self._cut)[0]["label"])

    def many(self, texts: Sequence[str], **setting: Any) -> list[str]:
        order = (
            sorted(range(len(texts)), key=lambda i: len(texts[i]))
            if setting["by_length"]
            else range(len(texts))
        )
        answers = self._pipe([texts[i] for i in order], batch_size=setting["batch_size"], **self._cut)
        labels = dict(zip(order, (str(a["label"]) for a in answers), strict=True))
        return [labels[i] for i in range(len(texts))]
