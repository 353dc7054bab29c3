"""The Transformers pipeline in PyTorch, fp32 and bf16 weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.peers.base import Setting, Wanted, halves, order, require

TASKS = ("text-classification", "sentence-embedding")
NEEDS_CHECKPOINT = True


def precisions(model: Path) -> list[str]:
    require(("torch", "transformers"), "PyTorch with transformers", "pip install 'headway[train]'")
    return halves()


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Labels | Vectors:
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

    torch.set_num_threads(wanted.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    tokenizer = AutoTokenizer.from_pretrained(model)
    cut = {"truncation": True, "max_length": wanted.max_length}
    if wanted.task == "text-classification":
        network = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype, use_safetensors=True)
        return Labels(pipeline("text-classification", model=network, tokenizer=tokenizer, device="cpu"), cut)
    body = AutoModel.from_pretrained(model, dtype=dtype, use_safetensors=True)
    kind = _pooling(wanted.pooling)
    pipe = pipeline("feature-extraction", model=body, tokenizer=tokenizer, device="cpu", pipeline_class=kind)
    return Vectors(pipe, {"tokenize_kwargs": cut})


def _pooling(pooling: str) -> type:
    """The feature-extraction pipeline, which leaves pooling to its users, with pooling before batches are taken apart."""
    import transformers

    features: Any = transformers.FeatureExtractionPipeline

    class Pooled(features):  # type: ignore[misc]
        def _forward(self, input_tensors: Any, **parameters: Any) -> Any:
            hidden = self.model(**input_tensors).last_hidden_state  # (B, T, D)
            kept = input_tensors["attention_mask"][..., None].bool()
            if pooling == "cls":
                return {"pooled": hidden[:, 0].float()}
            if pooling == "max":
                return {"pooled": hidden.float().masked_fill(~kept, -1e9).amax(1)}
            return {"pooled": (hidden.float() * kept).sum(1) / kept.sum(1)}

        def postprocess(self, model_outputs: Any, **parameters: Any) -> Any:
            return model_outputs["pooled"][0].numpy()

    return Pooled


class TransformersPipeline:
    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "by_length": by_length}
        for size in (1, 8, 32, 128)
        for by_length in (False, True)
    )

    def __init__(self, pipe: Any, cut: dict[str, Any]) -> None:
        self._pipe, self._cut = pipe, cut

    def one(self, text: str) -> Any:
        return self._pipe(text, **self._cut)

    def _answers(self, texts: Sequence[str], batch_size: int, by_length: bool) -> list[Any]:
        places = order(texts, by_length)
        answers = self._pipe([texts[i] for i in places], batch_size=batch_size, **self._cut)
        placed = dict(zip(places, answers, strict=True))
        return [placed[i] for i in range(len(texts))]


class Labels(TransformersPipeline):
    def many(self, texts: Sequence[str], **setting: Any) -> list[str]:
        return [str(answer["label"]) for answer in self._answers(texts, **setting)]


class Vectors(TransformersPipeline):
    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        return np.stack(self._answers(texts, **setting))
