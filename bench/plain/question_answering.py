"""Plain extractive question answering (run_qa and the SQuAD 2.0 evaluation script).

Options: stride (64), tokens that neighbouring windows share.
"""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

from headway.bench.plain import base

N_BEST = 20
MAX_ANSWER = 30
"""tokens"""
NULL_THRESHOLD = 0.0


@dataclass(frozen=True)
class Window:
    """A question with a part of its context."""

    record: int
    feature: dict[str, Any]
    offsets: list[tuple[int, int] | None]
    """characters of each token in the context, None for other tokens"""


def run(setting: base.Setting) -> dict[str, float]:
    """exact_match, f1, both also _answerable; no_answer_accuracy if some test questions have no answer.

    no_answer_accuracy is the share of these that were answered by "".
    """
    tokenizer = base.start(setting)
    model = AutoModelForQuestionAnswering.from_pretrained(setting.model)
    collator = DataCollatorWithPadding(tokenizer)
    train = [
        window.feature | _target(window, setting.train[window.record])
        for window in _windows(tokenizer, setting.train, setting)
    ]
    base.fit(setting, model, train_dataset=train, data_collator=collator)
    null = any(not r["answers"]["text"] for r in setting.train)
    windows = _windows(tokenizer, setting.test, setting)
    rows = base.predict(model, [w.feature for w in windows], collator, _span_logits)
    by_record = defaultdict(list)
    for window, row in zip(windows, rows, strict=True):
        by_record[window.record].append((window, row[: len(window.offsets)]))
    predicted = [_answer(r["context"], by_record[i], null) for i, r in enumerate(setting.test)]
    return _metrics([r["answers"]["text"] for r in setting.test], predicted)


def _windows(tokenizer: Any, records: list[dict[str, Any]], setting: base.Setting) -> list[Window]:
    encoded = tokenizer(
        [r["question"].lstrip() for r in records],
        [r["context"] for r in records],
        truncation="only_second",
        max_length=setting.max_length,
        stride=setting.options.get("stride", 64),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    inputs = encoded.keys() - {"overflow_to_sample_mapping", "offset_mapping"}
    return [
        Window(
            record,
            {name: encoded[name][i] for name in inputs},
            [
                tuple(offset) if sequence == 1 else None
                for offset, sequence in zip(
                    encoded["offset_mapping"][i], encoded.sequence_ids(i), strict=True
                )
            ],
        )
        for i, record in enumerate(encoded["overflow_to_sample_mapping"])
    ]


def _target(window: Window, record: dict[str, Any]) -> dict[str, int]:
    """First and last token of the first answer; the leading [CLS] if it is not wholly inside the window."""
    first, last = 0, 0
    if record["answers"]["text"]:
        begin = record["answers"]["answer_start"][0]
        end = begin + len(record["answers"]["text"][0])
        context = [(i, *offset) for i, offset in enumerate(window.offsets) if offset]
        if context and context[0][1] <= begin and context[-1][2] >= end:
            first = max(i for i, token_begin, _ in context if token_begin <= begin)
            last = min(i for i, _, token_end in context if token_end >= end)
    return {"start_positions": first, "end_positions": last}


def _span_logits(output: Any) -> torch.Tensor:
    return torch.stack([output.start_logits, output.end_logits], -1)  # (B, T, 2)


def _answer(context: str, windows: list[tuple[Window, NDArray[np.float32]]], null: bool) -> str:
    """The best span of all windows, or "" if `null` and no answer scores higher by more than the threshold."""
    null_score = min(float(row[0].sum()) for _, row in windows)
    spans = [span for window, row in windows for span in _spans(window.offsets, row)]
    spans = sorted(spans, key=lambda span: -span[0])[:N_BEST]
    text, score = next(((context[b:e], s) for s, b, e in spans if b < e), ("", -np.inf))
    return "" if null and null_score - score > NULL_THRESHOLD else text


def _spans(offsets: list[tuple[int, int] | None], row: NDArray[np.float32]) -> list[tuple[float, int, int]]:
    """Score, first and last character of the spans made of the window's best starts and ends."""
    starts, ends = (np.argsort(row[:, side])[::-1][:N_BEST] for side in (0, 1))
    spans = []
    for first in starts:
        for last in ends:
            begin, end = offsets[first], offsets[last]
            if begin and end and first <= last < first + MAX_ANSWER:
                spans.append((float(row[first, 0] + row[last, 1]), begin[0], end[1]))
    return spans


def _metrics(answers: list[list[str]], predicted: list[str]) -> dict[str, float]:
    exact = [
        max(_exact(gold, p) for gold in golds or [""]) for golds, p in zip(answers, predicted, strict=True)
    ]
    f1 = [max(_f1(gold, p) for gold in golds or [""]) for golds, p in zip(answers, predicted, strict=True)]
    answerable = [i for i, golds in enumerate(answers) if golds]
    metrics = {
        "exact_match": fmean(exact),
        "f1": fmean(f1),
        "exact_match_answerable": fmean(exact[i] for i in answerable),
        "f1_answerable": fmean(f1[i] for i in answerable),
    }
    if len(answerable) < len(answers):
        metrics["no_answer_accuracy"] = fmean(
            not p for golds, p in zip(answers, predicted, strict=True) if not golds
        )
    return metrics


def _exact(gold: str, predicted: str) -> float:
    return float(_normalized(gold) == _normalized(predicted))


def _f1(gold: str, predicted: str) -> float:
    """Harmonic mean of precision and recall of the words."""
    gold_words, words = _normalized(gold).split(), _normalized(predicted).split()
    if not gold_words or not words:
        return float(gold_words == words)
    return 2 * (Counter(gold_words) & Counter(words)).total() / (len(gold_words) + len(words))


def _normalized(text: str) -> str:
    """Lower case without punctuation, articles and extra white space."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())
