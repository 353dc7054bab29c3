"""sentence-embedding: pooled vectors; triplet, contrastive, cosine, in-batch negatives or softmax loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedTokenizerBase

from headway.core.errors import DataError, UsageError
from headway.core.progress import silent
from headway.core.tasks import Spec
from headway.core.tasks import sentence_embedding as task
from headway.core.tasks.sentence_embedding import FIGURE, Example, Settings
from headway.train import encoder, losses
from headway.train.batches import forward
from headway.train.heads import Pooled
from headway.train.options import TrainOptions, numbers
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"pooling", "loss", "margin", "scale", "hard_negatives", "dimensions"})
LOSSES = {
    "score": ("cosine",),
    "label": ("contrastive", "softmax"),
    "pair": ("mnr",),
    "triplet": ("mnr", "triplet"),
}
"""which losses each form of record can be trained with; the first where none is asked for"""


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    task.uniform(examples)
    task.uniform([e for e in held_out if e.form not in ("document", "query")])
    form, asked = examples[0].form, options.loss
    if form not in LOSSES:
        raise DataError("has single texts; training wants pairs or triplets", file=str(options.train))
    if asked not in ("auto", *LOSSES[form]):
        raise UsageError("--loss", f"'{asked}' is not for this data: {' or '.join(LOSSES[form])} is")
    if options.hard_negatives and form != "pair":
        raise UsageError("--hard-negatives", "are mined for pairs of anchor and positive")
    if options.pooling == "attention":
        raise UsageError("--pooling", "attention is for classification; sentence-transformers has it not")
    dimensions = [int(d) for d in numbers("--dimensions", options.dimensions)]
    if _loss(examples, options) == "contrastive":
        for example in examples:
            if example.gold not in ("0", "1"):
                raise example.record.error(
                    f"must be 0 or 1 for the contrastive loss, not {example.gold}", "label"
                )
    labels = sorted({str(e.gold) for e in examples}) if form == "label" else []
    settings = Settings(
        pooling="mean" if options.pooling == "auto" else options.pooling,
        dimensions=dimensions,
        figure=FIGURE[held_out[0].form] if held_out else "spearman",
    )
    return Spec(labels, options.max_length, settings)


def _loss(examples: Sequence[Example], options: TrainOptions) -> str:
    return LOSSES[examples[0].form][0] if options.loss == "auto" else options.loss


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    settings: Settings = spec.settings
    body = encoder.pretrained(AutoModel, name, None, options is not None)
    model = Pooled(body, settings.pooling, normalize=settings.normalize)
    size = body.config.hidden_size
    if any(not 0 < d <= size for d in settings.dimensions):
        raise UsageError("--dimensions", f"must be from 1 to the model's {size}, not {settings.dimensions}")
    if options is not None and options.loss == "softmax":
        model.pairs = torch.nn.Linear(3 * size, len(spec.labels))
    return model


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    if options.hard_negatives:
        examples = mine(model, tokenizer, examples, spec, options.hard_negatives)
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    prepared: list[dict[str, Any]] = [{"texts": [], "positive": hash_of(e.texts[1])} for e in examples]
    for row, features in zip(rows, encoder.inputs(rows), strict=True):
        prepared[row.example]["texts"].append(features)
    if examples[0].form == "score":
        scores = np.array([e.gold for e in examples], dtype=np.float64)
        low, high = scores.min(), scores.max()
        for own, score in zip(prepared, scores, strict=True):
            own["target"] = float((score - low) / max(high - low, 1e-12))  # from 0 to 1
    elif examples[0].form == "label":
        for own, example in zip(prepared, examples, strict=True):
            own["target"] = spec.labels.index(str(example.gold))
    return Prepared(prepared, encoder.count_cut(rows))


def hash_of(text: str) -> int:
    """A number that is the same for equal texts."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=7).digest(), "little")


def mine(
    model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], spec: Spec, count: int
) -> list[Example]:
    """Each pair `count` times, each time with another negative: the positives of others most like its anchor.

    What is more than 0.95 times as similar as the own positive is left out, as it may be right, too.
    """
    outputs = encoder.run(model, task.rows(examples, tokenizer.backend_tokenizer, spec), tokenizer, silent)
    vectors = np.stack([o.logits for o in outputs])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    anchors, positives = vectors[::2], vectors[1::2]
    texts = np.array([e.texts[1] for e in examples], dtype=object)
    mined: list[Example] = []
    for i, example in enumerate(examples):
        similar = positives @ anchors[i]
        usable = (texts != texts[i]) & (similar <= 0.95 * similar[i])
        best = np.argsort(-np.where(usable, similar, -np.inf), kind="stable")
        negatives = list(dict.fromkeys(texts[j] for j in best[: 4 * count] if usable[j]))[:count]
        mined += [replace(example, texts=(*example.texts, n), form="triplet") for n in negatives]
    return mined


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    pad = encoder.Collator(tokenizer)

    def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """All first texts, then all second ones, and so on: (K · B, T)."""
        parts = len(rows[0]["texts"])
        batch: dict[str, Any] = pad([row["texts"][k] for k in range(parts) for row in rows])
        if "target" in rows[0]:
            batch["target"] = torch.tensor([row["target"] for row in rows])
        return batch | {"positive": torch.tensor([row["positive"] for row in rows])}

    return together


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    kind, settings = _loss(examples, options), spec.settings

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        positive, target = inputs.pop("positive"), inputs.pop("target", None)
        vectors = forward(model, inputs)  # (K · B, D)
        if kind == "softmax":
            u, v = vectors.view(2, len(positive), -1)
            pairs = getattr(model, "module", model).pairs
            return losses.pair_softmax(u, v, _given(target), pairs)
        sizes = [vectors.shape[-1], *settings.dimensions]
        return torch.stack(
            [_compared(kind, vectors[:, :d].reshape(-1, len(positive), d), positive, target) for d in sizes]
        ).mean()

    def _compared(
        kind: str, parts: torch.Tensor, positive: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """Loss of (K, B, D) vectors."""
        if kind == "triplet":
            return losses.triplet(parts[0], parts[1], parts[2], options.margin)
        if kind == "contrastive":
            return losses.contrastive(parts[0], parts[1], _given(target).float(), options.margin)
        if kind == "cosine":
            return losses.cosine(parts[0], parts[1], _given(target).float())
        same = positive[:, None] == positive[None, :]
        same = torch.cat([same, torch.zeros_like(same).repeat(1, len(parts) - 2)], dim=1)
        return losses.multiple_negatives(parts[0], parts[1:].flatten(0, 1), same, options.scale)

    return loss


def _given(target: torch.Tensor | None) -> torch.Tensor:
    assert target is not None  # prepare gives one to records with a score or label
    return target


infer = encoder.inference(task)


def outputs(said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"sentence_embedding": said.logits.float()}


def save(model: Any, tokenizer: PreTrainedTokenizerBase, spec: Spec, folder: Path) -> None:
    """As sentence-transformers saves: modules.json names the body, the pooling and the normalization."""
    encoder.save(model, tokenizer, spec, folder)
    settings: Settings = spec.settings
    kinds = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]
    kinds += ["base.modules.normalize.Normalize"] * settings.normalize
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=False))
    ]
    pooling = {
        "embedding_dimension": model.config.hidden_size,
        "pooling_mode": settings.pooling,
        "include_prompt": True,
    }
    contents: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
            "max_seq_length": spec.max_length,
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    if settings.normalize:
        contents["2_Normalize/config.json"] = {}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
