"""PyTorch with Transformers, fp32 and bf16 weights, compiled where asked for: its pipelines, and `generate()`.

For questions and sequential sentences Transformers 5 has no pipeline; the checkpoint is asked as training asks it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.answers import plain
from headway.bench.peers.base import Setting, Wanted, halves, order, require
from headway.core import tasks

TRAINED = ("question-answering", "sequential-sentence-classification")
"""tasks that Transformers has no pipeline for"""
TASKS = (
    *TRAINED,
    "text-classification",
    "token-classification",
    "sentence-embedding",
    "text-ranking",
    "text2text-generation",
    "text-generation",
)
NEEDS_CHECKPOINT = True
COMPILED, EVALUATED = "-compiled", "-evaluate"
BY_NAME = tuple(precision + kind for kind in (COMPILED, EVALUATED) for precision in ("fp32", "bf16"))
"""measured only where they are asked for: torch.compile takes minutes, and what `headway evaluate` does is no other's"""


def precisions(model: Path) -> list[str]:
    require(("torch", "transformers"), "PyTorch with transformers", "pip install 'headway[train]'")
    return halves()


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Any:
    import torch
    import transformers

    torch.set_num_threads(wanted.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision.partition("-")[0]]
    if wanted.task in TRAINED or precision.endswith(EVALUATED):
        trained = Trained(model, wanted)
        trained.network.to(dtype)
        if precision.endswith(COMPILED):
            trained.network.forward = torch.compile(trained.network.forward, dynamic=True)
        return trained
    kind, read = KINDS[wanted.task]
    if wanted.task == "text-classification" and wanted.settings.get("pooling", "model") != "model":
        network: Any = _pooled_classifier(model, wanted.labels, dtype)
    else:
        network = getattr(transformers, kind).from_pretrained(model, dtype=dtype, use_safetensors=True)
    if precision.endswith(COMPILED):
        network.forward = torch.compile(network.forward, dynamic=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    return read(network, tokenizer, wanted)


def _pooled_classifier(checkpoint: Path, labels: Sequence[str], dtype: Any) -> Any:
    """A classifier whose head Transformers has not, as a model that its pipeline takes."""
    from copy import deepcopy

    import transformers

    from headway.train.checkpoint import open_checkpoint

    trained = open_checkpoint(checkpoint).model
    trained.body.to(dtype)  # the head, a layer of one row a class, stays as it is
    config = deepcopy(trained.config)
    config.id2label = dict(enumerate(labels))

    class PooledClassifier(transformers.PreTrainedModel):  # type: ignore[no-untyped-call]
        _supports_sdpa = True

        def __init__(self) -> None:
            super().__init__(config)
            self.trained = trained

        def forward(self, **inputs: Any) -> dict[str, Any]:
            return {"logits": self.trained(**inputs).logits}

    return PooledClassifier().eval()  # type: ignore[no-untyped-call]


class Piped:
    """A pipeline of Transformers."""

    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "by_length": by_length}
        for size in (1, 8, 32, 128)
        for by_length in (False, True)
    )

    def __init__(self, pipe: Any, cut: dict[str, Any]) -> None:
        self._pipe, self._cut = pipe, cut

    def one(self, given: Any) -> Any:
        return self._pipe(self.given(given), **self._cut)

    def given(self, given: Any) -> Any:
        """An input as the pipeline takes it."""
        return {"text": given[0], "text_pair": given[1]} if isinstance(given, tuple) else given

    def _answers(self, inputs: Sequence[Any], batch_size: int, by_length: bool) -> list[Any]:
        places = order(inputs, by_length)
        answers = self._pipe([self.given(inputs[i]) for i in places], batch_size=batch_size, **self._cut)
        placed = dict(zip(places, answers, strict=True))
        return [placed[i] for i in range(len(inputs))]


class Labels(Piped):
    """One label; those whose logits reach what their thresholds and the temperature ask for; or a score."""

    def __init__(self, network: Any, tokenizer: Any, wanted: Wanted) -> None:
        from scipy.special import logit
        from transformers import pipeline

        cut: dict[str, Any] = {"truncation": True, "max_length": wanted.max_length}
        self._ranks = wanted.task == "text-ranking"
        self._kind = "regression" if self._ranks else wanted.settings.get("kind", "single")
        if self._kind == "multi":
            cut |= {"top_k": None, "function_to_apply": "none"}
        if self._ranks:
            cut["function_to_apply"] = "sigmoid"
        limits = wanted.settings.get("thresholds") or [0.5] * len(wanted.labels)
        scale = wanted.settings.get("temperature", 1.0)
        self._limits = dict(zip(wanted.labels, scale * logit(limits), strict=True))
        super().__init__(
            pipeline("text-classification", model=network, tokenizer=tokenizer, device="cpu"), cut
        )

    def many(self, inputs: Sequence[Any], **setting: Any) -> list[Any]:
        return [self._read(answer) for answer in self._answers(inputs, **setting)]

    def _read(self, answer: Any) -> Any:
        if self._kind == "multi":
            return sorted(row["label"] for row in answer if row["score"] >= self._limits[row["label"]])
        return float(answer["score"]) if self._kind == "regression" else str(answer["label"])


class Entities(Piped):
    def __init__(self, network: Any, tokenizer: Any, wanted: Wanted) -> None:
        from transformers import pipeline

        tokenizer.model_max_length = wanted.max_length
        pipe = pipeline("token-classification", model=network, tokenizer=tokenizer, device="cpu")
        super().__init__(pipe, {"aggregation_strategy": "first", "stride": wanted.settings.get("stride", 0)})

    def many(self, inputs: Sequence[Any], **setting: Any) -> list[Any]:
        found = self._answers(inputs, **setting)
        return [[[row["start"], row["end"], row["entity_group"]] for row in rows] for rows in found]


class Vectors(Piped):
    def __init__(self, network: Any, tokenizer: Any, wanted: Wanted) -> None:
        from transformers import pipeline

        kind = _pooling(wanted.pooling)
        pipe = pipeline(
            "feature-extraction", model=network, tokenizer=tokenizer, device="cpu", pipeline_class=kind
        )
        super().__init__(pipe, {"tokenize_kwargs": {"truncation": True, "max_length": wanted.max_length}})

    def many(self, inputs: Sequence[Any], **setting: Any) -> Any:
        return np.stack(self._answers(inputs, **setting))


class Texts:
    """`generate()`, which the pipelines of Transformers 5 have for decoders alone."""

    SETTINGS: Sequence[Setting] = tuple({"batch_size": size, "by_length": True} for size in (1, 8, 32))

    def __init__(self, network: Any, tokenizer: Any, wanted: Wanted) -> None:
        self._network, self._tokenizer, self._wanted = network.eval(), tokenizer, wanted
        self._crossed = network.config.is_encoder_decoder
        tokenizer.padding_side = "right" if self._crossed else "left"
        tokenizer.truncation_side = tokenizer.padding_side  # of a prompt the end is read
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        own = {name: wanted.settings.get(name) for name in ("max_new_tokens", "num_beams")}
        self._settings = {name: value for name, value in own.items() if value is not None}

    def one(self, given: Any) -> Any:
        return self._batch([given])[0]

    def many(self, inputs: Sequence[Any], batch_size: int, by_length: bool) -> list[str]:
        places = order(inputs, by_length)
        found: list[str] = [""] * len(inputs)
        for first in range(0, len(places), batch_size):
            batch = places[first : first + batch_size]
            for i, text in zip(batch, self._batch([inputs[i] for i in batch]), strict=True):
                found[i] = text
        return found

    def _batch(self, texts: list[str]) -> list[str]:
        given = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._wanted.max_length, return_tensors="pt"
        )
        given.pop("token_type_ids", None)
        written = self._network.generate(**given, do_sample=False, **self._settings)
        new = written if self._crossed else written[:, given["input_ids"].shape[1] :]
        found: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return found


class Trained:
    """A checkpoint as `headway evaluate` asks it: windows of similar length go together."""

    SETTINGS: Sequence[Setting] = tuple({"batch_size": size} for size in (1, 8, 1000))

    def __init__(self, checkpoint: Path, wanted: Wanted) -> None:
        from headway.train.checkpoint import open_checkpoint

        opened = open_checkpoint(checkpoint)
        self._opened = replace(opened, spec=replace(opened.spec, max_length=wanted.max_length))
        self._task, self.network = wanted.task, opened.model

    def one(self, given: Any) -> Any:
        return self.many([given], batch_size=1)[0]

    def many(self, inputs: Sequence[Any], batch_size: int) -> Any:
        from headway.train.checkpoint import predict

        task = tasks.load(self._task)
        examples = [tasks.read_input(task, given, i) for i, given in enumerate(inputs)]
        batches = (examples[i : i + batch_size] for i in range(0, len(examples), batch_size))
        results: list[Any] = [result for batch in batches for result in predict(self._opened, batch)]
        if self._task == "sentence-embedding":
            return np.array([r.embedding for r in results], np.float32)
        return [plain(self._task, result) for result in results]


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


KINDS: dict[str, tuple[str, Any]] = {
    "text-classification": ("AutoModelForSequenceClassification", Labels),
    "text-ranking": ("AutoModelForSequenceClassification", Labels),
    "token-classification": ("AutoModelForTokenClassification", Entities),
    "sentence-embedding": ("AutoModel", Vectors),
    "text2text-generation": ("AutoModelForSeq2SeqLM", Texts),
    "text-generation": ("AutoModelForCausalLM", Texts),
}
"""class of the model, and how it is asked"""
