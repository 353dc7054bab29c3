"""sentence-embedding: pooled vectors; triplet, contrastive, cosine, in-batch negatives or softmax loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedTokenizerBase

from headway.core import gold
from headway.core.errors import DataError, UsageError
from headway.core.progress import silent
from headway.core.tasks import Spec
from headway.core.tasks import sentence_embedding as task
from headway.core.tasks.sentence_embedding import FIGURE, Example, Settings
from headway.train import encoder, losses
from headway.train.batches import forward
from headway.train.heads import Pooled
from headway.train.options import TrainOptions, whole_numbers
from headway.train.sentence_transformers_config import model_type, read_embedder
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"pooling", "loss", "margin", "scale", "hard_negatives", "dimensions"})
LOSSES = {
    "score": ("cosine",),
    "label": ("contrastive", "softmax"),
    "pair": ("mnr",),
    "triplet": ("mnr", "triplet"),
}
"""which losses each form of record can be trained with; the first where none is asked for"""
MARGIN = 0.95
"""a mined negative is at most this many times as similar to the anchor as its own positive is, as what is nearer may
be right, too (TopK-PercPos of Moreira et al. 2024, who measured 95 % as best)"""
NO_NEGATIVE = "left out, as no other positive can be a hard negative of theirs"
FEWER_NEGATIVES = "with fewer hard negatives than asked for"


def wanted_gold(options: TrainOptions, training: Sequence[Example]) -> tuple[str, ...]:
    """The form that --loss reads; held-out pairs that have a score are judged by it, unless 0 and 1 are trained."""
    if not training:
        return tuple(form for form, losses in LOSSES.items() if options.loss in losses)
    form = training[0].form
    return ("score", "label") if form == "label" and options.loss == "softmax" else (form,)


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
    dimensions = whole_numbers("--dimensions", options.dimensions)
    if _loss(examples, options) == "contrastive":
        for example in examples:
            if example.gold not in ("0", "1"):
                raise example.record.error(
                    f"must be 0 or 1 for the contrastive loss, not {example.gold}; --loss softmax takes any",
                    "label",
                )
    if _loss(examples, options) == "mnr" and form == "pair" and not options.hard_negatives:
        _refuse_no_negatives(examples, options)
    labels = sorted({str(e.gold) for e in examples}) if form == "label" else []
    settings = msgspec.structs.replace(
        _settings_of(options.model),
        dimensions=dimensions,
        figure=FIGURE[held_out[0].form] if held_out else "spearman",
    )
    if options.pooling != "auto":
        settings = msgspec.structs.replace(settings, pooling=options.pooling)
    return Spec(labels, options.max_length, settings)


def _settings_of(model: str | None) -> Settings:
    """Those of a sentence-transformers folder that training starts from; else mean pooling and vectors of length 1.

    Raises CheckpointError for settings that headway does not compute, as they would be lost.
    """
    if model is None or model_type(Path(model)) != "SentenceTransformer":
        return Settings()
    return msgspec.convert(read_embedder(Path(model)).settings(), Settings)


def _refuse_no_negatives(examples: Sequence[Example], options: TrainOptions) -> None:
    """Raise an error where no batch can hold a negative, so that the loss would always be 0."""
    if options.batch_size // options.accumulate < 2:
        raise UsageError(
            "--batch-size", "must be 2 or more a part, as other pairs are the negatives (mnr loss)"
        )
    if len({example.texts[0] for example in examples}) < 2:
        raise DataError("has one anchor; in-batch negatives (mnr loss) want several", file=str(options.train))
    if len({example.texts[1] for example in examples}) < 2:
        raise DataError(
            "has one positive; in-batch negatives (mnr loss) want several", file=str(options.train)
        )


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
    counts: dict[str, int] = {}
    if options.loss == "auto":
        counts = gold.unread(task, examples, examples[0].form, "--loss decides")
    if options.hard_negatives:
        examples, missing = mine(model, tokenizer, examples, spec, options.hard_negatives)
        counts |= missing
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    prepared: list[dict[str, Any]] = [{"texts": [], **names} for names in _names(examples)]
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
    return Prepared(prepared, encoder.count_cut(rows) | counts)


def _names(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Of each example a number for each of its texts, and those of all texts that its anchor is like, in all examples.

    Equal texts have equal numbers.
    """
    numbers: dict[str, int] = {}
    names = [[numbers.setdefault(text, len(numbers)) for text in e.texts] for e in examples]
    alike: dict[int, set[int]] = {}
    for anchor, positive, *_ in names:
        alike.setdefault(anchor, {anchor}).add(positive)
    arrays = {anchor: np.array(list(texts)) for anchor, texts in alike.items()}
    return [{"names": own, "alike": arrays[own[0]]} for own in names]


def mine(
    model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], spec: Spec, count: int
) -> tuple[list[Example], dict[str, int]]:
    """Each pair `count` times, each time with another negative: the positives of others most like its anchor.

    No negative is the anchor itself or a positive of it in another pair, nor more than `MARGIN` times as similar as
    the own positive. Also how many pairs got no negative, and are left out, or got fewer than `count`.
    Raises UsageError if no pair got one.
    """
    outputs = encoder.run(model, task.rows(examples, tokenizer.backend_tokenizer, spec), tokenizer, silent)
    vectors = np.stack([o.logits for o in outputs])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    number: dict[str, int] = {}
    own = [number.setdefault(e.texts[1], len(number)) for e in examples]
    texts, positives = list(number), vectors[1::2][np.unique(own, return_index=True)[1]]  # (P), (P, D)
    alike: dict[str, set[str]] = {}
    for example in examples:
        anchor, positive = example.texts
        alike.setdefault(anchor, {anchor}).add(positive)
    mined: list[Example] = []
    counts = {NO_NEGATIVE: 0, FEWER_NEGATIVES: 0}
    for example, vector, positive_number in zip(examples, vectors[::2], own, strict=True):
        similar = positives @ vector
        usable = similar <= MARGIN * similar[positive_number]
        usable[[number[text] for text in alike[example.texts[0]] if text in number]] = False
        best = np.argsort(-np.where(usable, similar, -np.inf), kind="stable")[:count]
        negatives = [texts[j] for j in best if usable[j]]
        mined += [replace(example, texts=(*example.texts, n), form="triplet") for n in negatives]
        counts[NO_NEGATIVE] += not negatives
        counts[FEWER_NEGATIVES] += 0 < len(negatives) < count
    if not mined:
        raise UsageError(
            "--hard-negatives",
            f"finds none: for each of {len(examples)} pairs, every other positive is right as well, or nearly as "
            f"similar to the anchor (above {MARGIN:g} of its own positive)",
        )
    return mined, {reason: n for reason, n in counts.items() if n}


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    pad = encoder.Collator(tokenizer)

    def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """All first texts, then all second ones, and so on: (K · B, T)."""
        parts = len(rows[0]["texts"])
        batch: dict[str, Any] = pad([row["texts"][k] for k in range(parts) for row in rows])
        if "target" in rows[0]:
            batch["target"] = torch.tensor([row["target"] for row in rows])
        return batch | {"false_negatives": torch.from_numpy(_false_negatives(rows))}

    return together


def _false_negatives(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """Which texts behind the first are no negatives of which row: (B, (K - 1) · B), in the order of the batch.

    Those that the row's anchor is like anywhere in the data, and the positives of rows that share a text with the
    row's own pair, as a batch without repeated texts has none of them (NoDuplicatesBatchSampler of
    sentence-transformers).
    """
    names = np.array([row["names"] for row in rows])  # (B, K)
    found = np.stack([np.isin(names[:, 1:].T.ravel(), row["alike"]) for row in rows])
    pairs = names[:, :2]
    found[:, : len(rows)] |= (pairs[:, None, :, None] == pairs[None, :, None, :]).any((2, 3))
    return found


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    kind, settings = _loss(examples, options), spec.settings

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        same, target = inputs.pop("false_negatives"), inputs.pop("target", None)
        vectors = forward(model, inputs)  # (K · B, D)
        if kind == "softmax":
            u, v = vectors.view(2, len(same), -1)
            pairs = getattr(model, "module", model).pairs
            return losses.pair_softmax(u, v, _given(target), pairs)
        sizes = [vectors.shape[-1], *settings.dimensions]
        return torch.stack(
            [_compared(kind, vectors[:, :d].reshape(-1, len(same), d), same, target) for d in sizes]
        ).mean()

    def _compared(
        kind: str, parts: torch.Tensor, same: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """Loss of (K, B, D) vectors."""
        if kind == "triplet":
            return losses.triplet(parts[0], parts[1], parts[2], options.margin)
        if kind == "contrastive":
            return losses.contrastive(parts[0], parts[1], _given(target).float(), options.margin)
        if kind == "cosine":
            return losses.cosine(parts[0], parts[1], _given(target).float())
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
            "prompts": settings.prompts,
            "default_prompt_name": settings.default_prompt_name,
            "similarity_fn_name": settings.similarity_fn_name,
            **({} if settings.truncate_dim is None else {"truncate_dim": settings.truncate_dim}),
        },
    }
    if settings.normalize:
        contents["2_Normalize/config.json"] = {}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
