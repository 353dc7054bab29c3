"""token-classification: a token head read at each word's first token, cross-entropy.

In scripts in which an entity may end inside a run of letters, the further tokens of a word are asked as well when a text
comes without tokens, and so they are trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from headway.core import offsets, tag_schemes
from headway.core.errors import DataError
from headway.core.tasks import Spec
from headway.core.tasks import token_classification as task
from headway.core.tasks.token_classification import Example, Settings
from headway.train import encoder
from headway.train.batches import forward
from headway.train.options import TrainOptions
from headway.train.tasks.base import Objective, Prepared

OPTIONS = frozenset({"class_weights", "label_smoothing", "stride"})


def describe(
    examples: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
) -> Spec:
    counts = Counter(tag for e in examples for tag in e.tags or ())
    if len(counts) < 2:
        raise DataError(f"has {len(counts)} tag; training needs two or more", file=str(options.train))
    offsets.check("token-classification", options.name, tokenizer.backend_tokenizer, examples)
    labels = sorted(counts)
    try:
        scheme = tag_schemes.scheme_of_data([e.tags or () for e in examples], labels)
    except ValueError as error:
        raise DataError(str(error), file=str(options.train), field="tags") from error
    for example in examples:
        task.check_scheme(example, scheme, labels)
    read = tag_schemes.parse_labels(tuple(labels)) or {}
    outside = [label for label, tag in read.items() if not tag.kind]
    settings = Settings(scheme=scheme, fallback=outside[0] if outside else counts.most_common(1)[0][0])
    if options.stride is not None:
        settings = msgspec.structs.replace(settings, stride=options.stride)
    return Spec(labels, options.max_length, settings)


def open(name: str, spec: Spec, options: TrainOptions | None) -> Any:
    return encoder.pretrained(AutoModelForTokenClassification, name, spec.labels, options is not None)


def prepare(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    spec: Spec,
    options: TrainOptions,
) -> Prepared:
    rows = task.rows(examples, tokenizer.backend_tokenizer, spec)
    prepared = encoder.inputs(rows)
    place = {label: i for i, label in enumerate(spec.labels)}
    marked: list[set[int]] = [set() for _ in examples]
    inner = {
        label: place.get(
            tag_schemes.inner_label(label, spec.labels, spec.settings.scheme) or "", encoder.IGNORED
        )
        for label in spec.labels
    }
    for row, features in zip(rows, prepared, strict=True):
        example = examples[row.example]
        tags = example.tags or ()
        targets = [encoder.IGNORED] * len(row.ids)
        for token in task.inner_tokens(example, row.marks):
            targets[token] = inner[tags[row.marks.words[token]]]
        for word, token in row.marks:
            targets[token] = place[tags[word]]
            marked[row.example].add(word)
        features["token_labels"] = targets
    lost = sum(len(e.words) - len(m) for e, m in zip(examples, marked, strict=True))
    return Prepared(prepared, {"words that the tokenizer makes nothing of": lost} if lost else {})


collate = encoder.Collator


def objective(examples: Sequence[Example], spec: Spec, options: TrainOptions) -> Objective:
    weights = None
    if options.class_weights == "balanced":
        weights = encoder.balanced([tag for e in examples for tag in e.tags or ()], spec.labels)

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = inputs.pop("labels")
        return encoder.cross_entropy(forward(model, inputs), targets, weights, options.label_smoothing)

    return loss


infer = encoder.inference(task)

save = encoder.save


def outputs(said: Any, spec: Spec, temperature: torch.Tensor) -> dict[str, torch.Tensor]:
    logits = said.logits.float()
    return {"logits": logits, "probabilities": torch.softmax(logits / temperature, dim=-1)}
