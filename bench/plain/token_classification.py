"""Plain token classification (run_ner): a word's first sub-word carries its tag. No options."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn.metrics import accuracy_score
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

from headway.bench.plain import base

IGNORED = -100


def run(setting: base.Setting) -> dict[str, float]:
    """token_accuracy, and entity_f1, precision, recall if the tags are BIO."""
    tokenizer = base.start(setting)
    counts = Counter(tag for r in setting.train for tag in r["tags"])
    tags = sorted(counts)
    bio = "O" in counts and all(tag == "O" or tag.startswith(("B-", "I-")) for tag in tags)
    model = AutoModelForTokenClassification.from_pretrained(setting.model, num_labels=len(tags))
    collator = DataCollatorForTokenClassification(tokenizer)
    train = _features(tokenizer, setting.train, setting.max_length)
    for feature, record in zip(train, setting.train, strict=True):
        feature["labels"] = _targets(feature, feature.pop("words"), record["tags"], tags)
    base.fit(setting, model, train_dataset=train, data_collator=collator)
    fallback = "O" if bio else counts.most_common(1)[0][0]
    predicted = _predict(model, tokenizer, collator, setting, tags, fallback)
    return _metrics([r["tags"] for r in setting.test], predicted, bio)


def _features(tokenizer: Any, records: list[dict[str, Any]], max_length: int) -> base.Features:
    """Encoded words; `words` maps a word to the position of its first sub-word."""
    encoded = tokenizer(
        [r["tokens"] for r in records], is_split_into_words=True, truncation=True, max_length=max_length
    )
    features = []
    for i in range(len(records)):
        words: dict[int, int] = {}
        for position, word in enumerate(encoded.word_ids(i)):
            if word is not None:
                words.setdefault(word, position)
        features.append({name: encoded[name][i] for name in encoded} | {"words": words})
    return features


def _targets(feature: dict[str, Any], words: dict[int, int], given: list[str], tags: list[str]) -> list[int]:
    targets = [IGNORED] * len(feature["input_ids"])
    for word, position in words.items():
        targets[position] = tags.index(given[word])
    return targets


def _predict(
    model: Any, tokenizer: Any, collator: Any, setting: base.Setting, tags: list[str], fallback: str
) -> list[list[str]]:
    """A tag for every word; `fallback` for words cut off by the length or without sub-words."""
    features = _features(tokenizer, setting.test, setting.max_length)
    positions = [feature.pop("words") for feature in features]
    rows = base.predict(model, features, collator)
    return [
        [tags[row[words[w]].argmax()] if w in words else fallback for w in range(len(record["tokens"]))]
        for record, words, row in zip(setting.test, positions, rows, strict=True)
    ]


def _metrics(truth: list[list[str]], predicted: list[list[str]], bio: bool) -> dict[str, float]:
    flat = [list(chain.from_iterable(rows)) for rows in (truth, predicted)]
    metrics = {"token_accuracy": float(accuracy_score(*flat))}
    if bio:
        metrics["entity_f1"] = float(f1_score(truth, predicted, zero_division=0))
        metrics["precision"] = float(precision_score(truth, predicted, zero_division=0))
        metrics["recall"] = float(recall_score(truth, predicted, zero_division=0))
    return metrics
