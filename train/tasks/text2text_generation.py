"""text2text-generation: encoder-decoders, and encoders that begin a new one; cross-entropy of the target's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    EncoderDecoderModel,
    PreTrainedTokenizerBase,
)

from headway.core.generation import Hypothesis, Result
from headway.core.progress import Progress
from headway.core.tasks import Spec
from headway.core.tasks.text2text_generation import Example, Settings
from headway.train import encoder, generation, scratch
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"label_smoothing", "max_target_length", "beams", "from_scratch"})


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    settings = Settings(max_new_tokens=options.max_target_length, num_beams=options.beams)
    return Spec([], options.max_length, settings)


def new_tokenizer(examples: Sequence[Example], options: TrainOptions) -> PreTrainedTokenizerBase:
    texts = (text for e in examples for text in (e.source, *(e.references or ())[:1]))
    return scratch.tokenizer(texts, options.max_length, closed=True)


def new_model(tokenizer: Any, options: TrainOptions) -> Any:
    return scratch.encoder_decoder(tokenizer)


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    """An encoder-decoder; from a model that is only an encoder, one whose two halves begin as that encoder.

    The second half's cross-attention begins at random (Rothe et al. 2020).
    """
    fresh = options is not None
    if AutoConfig.from_pretrained(name, trust_remote_code=False).is_encoder_decoder:
        return encoder.pretrained(AutoModelForSeq2SeqLM, name, None, fresh)
    if not fresh:
        raise ValueError("it is an encoder alone; its decoder's cross-attention would begin at random")
    return EncoderDecoderModel.from_encoder_decoder_pretrained(
        name,
        name,
        encoder_use_safetensors=True,
        decoder_use_safetensors=True,
        encoder_dtype=torch.float32,
        decoder_dtype=torch.float32,
    )


def adopt(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tell a new encoder-decoder its tokenizer's special tokens, where it does not know them."""
    config = model.config
    if config.decoder_start_token_id is None:
        config.decoder_start_token_id = tokenizer.cls_token_id
        config.eos_token_id = tokenizer.sep_token_id
        config.pad_token_id = tokenizer.pad_token_id
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(config, name))


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    adopt(model, tokenizer)
    rows, cut = _sources(examples, tokenizer, spec)
    first, end = model.config.decoder_start_token_id, model.config.eos_token_id
    wanted = tokenizer(text_target=[(e.references or ("",))[0] for e in examples])["input_ids"]
    shortened = 0
    for row, target in zip(rows, wanted, strict=True):
        if target and target[0] == first:
            target = target[1:]  # the model puts it there itself
        if end not in target:
            target = [*target, end]
        if len(target) > spec.settings.max_new_tokens:
            target, shortened = [*target[: spec.settings.max_new_tokens - 1], end], shortened + 1
        row["labels"] = target
    counts = {
        "sources cut at the model's longest input": cut,
        "targets cut at --max-target-length": shortened,
    }
    return Prepared(rows, {reason: n for reason, n in counts.items() if n})


def _sources(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, spec: Spec
) -> tuple[list[dict[str, Any]], int]:
    sources = [e.source for e in examples]
    encoded = tokenizer(sources, truncation=True, max_length=spec.max_length)
    whole = tokenizer(sources, verbose=False)["input_ids"]
    rows: list[dict[str, Any]] = [{"input_ids": ids} for ids in encoded["input_ids"]]
    for row, full in zip(rows, whole, strict=True):
        row["truncated"] = len(full) > spec.max_length
    return rows, sum(row["truncated"] for row in rows)


def collate(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    pad_id = tokenizer.pad_token_id or 0

    def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {
            "input_ids": encoder.padded([row["input_ids"] for row in rows], pad_id),
            "attention_mask": encoder.padded([[1] * len(row["input_ids"]) for row in rows], 0),
        }
        if "labels" in rows[0]:
            batch["labels"] = encoder.padded([row["labels"] for row in rows], encoder.IGNORED)
        return batch

    return together


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = inputs.pop("labels")
        bare = getattr(model, "module", model)  # without torch's wrapper for several processes
        shifted = bare.prepare_decoder_input_ids_from_labels(labels=targets)
        logits = model(**inputs, decoder_input_ids=shifted).logits
        return encoder.cross_entropy(logits, targets, None, options.label_smoothing)

    return loss


def infer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    spec: Spec,
    progress: Progress,
) -> list[Result]:
    """Greedy or beam search by transformers' `generate`, sources of similar length together."""
    settings: Settings = spec.settings
    rows, _ = _sources(examples, tokenizer, spec)
    pad = collate(tokenizer)
    results: list[Result | None] = [None] * len(rows)
    was_training = model.training
    model.train(False)
    beams = settings.num_beams or model.generation_config.num_beams or 1
    batches = encoder.batched([len(row["input_ids"]) for row in rows], max(1, encoder.BATCH_TOKENS // beams))
    with torch.inference_mode():
        for batch in progress(batches, "generating", len(batches)):
            padded = {k: v.to(model.device) for k, v in pad([rows[i] for i in batch]).items()}
            for i, hypotheses in zip(
                batch, _generate(model, tokenizer, padded, settings, beams), strict=True
            ):
                best = hypotheses[0]
                results[i] = Result(best.text, best.score, hypotheses, rows[i]["truncated"])
    model.train(was_training)
    return [r for r in results if r is not None]


def _generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    batch: dict[str, torch.Tensor],
    settings: Settings,
    beams: int,
) -> list[list[Hypothesis]]:
    lengths = {} if settings.max_new_tokens is None else {"max_new_tokens": settings.max_new_tokens}
    said = generation.generate(
        model, **batch, **lengths, num_beams=beams, return_dict_in_generate=True, output_scores=True
    )
    written = [
        _until_end(ids, model.generation_config.eos_token_id) for ids in said.sequences[:, 1:].tolist()
    ]
    if beams > 1:
        scores = said.sequences_scores.tolist()
    else:
        steps = model.compute_transition_scores(said.sequences, said.scores, normalize_logits=True)
        scores = [
            float(own[: len(ids)].sum()) for own, ids in zip(steps, written, strict=True)
        ]  # not of padding
    return [
        [Hypothesis(str(tokenizer.decode(ids, skip_special_tokens=True)), score, ids)]
        for ids, score in zip(written, scores, strict=True)
    ]


def _until_end(ids: list[int], ends: int | list[int] | None) -> list[int]:
    """Tokens up to the first end token, which stays."""
    known = ends if isinstance(ends, list) else [ends]
    return ids[: next((i + 1 for i, token in enumerate(ids) if token in known), len(ids))]


def save(model: Any, tokenizer: PreTrainedTokenizerBase, spec: Spec, folder: Path) -> None:
    encoder.save(model, tokenizer, spec, folder)
