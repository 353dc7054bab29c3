"""Plain sequence-to-sequence fine-tuning (run_summarization); an encoder-only model starts both halves.

Options: max_target_length (64), num_beams (1), max_new_tokens (max_target_length).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoConfig, AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, EncoderDecoderModel

from headway.bench.plain import base

ROUGE = ["rouge1", "rouge2", "rougeL"]


def run(setting: base.Setting) -> dict[str, float]:
    """rouge1, rouge2, rougeL, bleu, chrf."""
    tokenizer = base.start(setting)
    warm = not AutoConfig.from_pretrained(setting.model).is_encoder_decoder
    model = (
        _warm_start(setting.model, tokenizer)
        if warm
        else AutoModelForSeq2SeqLM.from_pretrained(setting.model)
    )
    train = _features(tokenizer, setting.train, setting.max_length)
    length = setting.options.get("max_target_length", 64)
    targets = tokenizer(
        text_target=[r["target"] for r in setting.train], truncation=True, max_length=length + warm
    )["input_ids"]
    for feature, target in zip(train, targets, strict=True):
        feature["labels"] = target[1:] if warm else target  # [CLS] is what the decoder starts from
    base.fit(setting, model, train_dataset=train, data_collator=DataCollatorForSeq2Seq(tokenizer))
    limits = {
        "max_new_tokens": setting.options.get("max_new_tokens", length),
        "num_beams": setting.options.get("num_beams", 1),
    }
    outputs = _generate(model, tokenizer, _features(tokenizer, setting.test, setting.max_length), limits)
    return scores(outputs, [r.get("references") or [r["target"]] for r in setting.test])


def scores(outputs: list[str], references: list[list[str]]) -> dict[str, float]:
    """rouge1, rouge2, rougeL (mean of the best reference's F1), bleu, chrf (of the corpus)."""
    scorer = RougeScorer(ROUGE, use_stemmer=True)
    pairs = zip(outputs, references, strict=True)
    rouge = [scorer.score_multi(targets, output) for output, targets in pairs]
    most = max(map(len, references))
    columns = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return {
        **{name: fmean(row[name].fmeasure for row in rouge) for name in ROUGE},
        "bleu": sacrebleu.corpus_bleu(outputs, columns, force=True).score / 100,  # type: ignore[arg-type]
        "chrf": sacrebleu.corpus_chrf(outputs, columns).score / 100,  # type: ignore[arg-type]
    }


def _warm_start(folder: str, tokenizer: Any) -> Any:
    """BERT2BERT: cross attention is new."""
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = tokenizer.cls_token_id
        config.eos_token_id = tokenizer.sep_token_id
        config.pad_token_id = tokenizer.pad_token_id
    return model


def _features(tokenizer: Any, records: list[dict[str, Any]], max_length: int) -> base.Features:
    encoded = tokenizer([r["source"] for r in records], truncation=True, max_length=max_length)
    return [{name: encoded[name][i] for name in ("input_ids", "attention_mask")} for i in range(len(records))]


def _generate(model: Any, tokenizer: Any, features: base.Features, limits: Mapping[str, int]) -> list[str]:
    outputs: dict[int, str] = {}
    for batch in base.by_length([len(f["input_ids"]) for f in features]):
        inputs = tokenizer.pad([features[i] for i in batch], return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**inputs, **limits, do_sample=False)
        outputs |= zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
    return [outputs[i] for i in range(len(features))]
