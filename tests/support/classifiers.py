"""Text classifiers as transformers saves them: label maps, problem types, truncation sides and odd lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers

from tests.support import models, tokenizers
from tests.support.files import ABSENT, change


@dataclass(frozen=True)
class Classifier:
    """One form of each setting of a text classifier."""

    architecture: str = "bert"
    tokenizer: str = ""
    outputs: int = 3
    config: Mapping[str, Any] = field(default_factory=dict)
    """further fields of config.json; `files.ABSENT` takes one out"""
    length: Any = tokenizers.LENGTH
    """the tokenizer's model_max_length"""
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    """further fields of tokenizer_config.json"""
    limit: int = tokenizers.LENGTH
    """tokens a text that the model can read: what a user must give the pipeline where the tokenizer says more"""
    refused: str = ""

    def save(self, folder: Path) -> Path:
        """Write the folder, which must not exist."""
        auto = transformers.AutoModelForSequenceClassification
        tokenizer = models.tokenizer_of(self.architecture, self.tokenizer)
        models.save(folder, auto, self.architecture, tokenizer=tokenizer, num_labels=self.outputs)
        change(folder / "config.json", **self.config)
        change(folder / "tokenizer_config.json", model_max_length=self.length, **self.tokenizer_config)
        return folder


def labels(*names: Any) -> dict[str, Any]:
    """id2label and label2id of config.json."""
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {str(name): i for i, name in enumerate(names)},
    }


MANY = [f"topic {i}" for i in range(12)]
BY_TEXT = {key: MANY[int(key)] for key in sorted(str(i) for i in range(12))}
"""as a tool that sorts keys as texts writes them: "10" and "11" before "2" """

FORMS: dict[str, Classifier] = {
    "numbered": Classifier(tokenizer="no-unk"),
    "named": Classifier(
        architecture="roberta", tokenizer="byte-level-prefix-space", length=66,
        config=labels("negative", "neutral", "positive"), tokenizer_config={"truncation_side": "left"},
    ),
    "by-text": Classifier(
        outputs=12, tokenizer="wordpiece-uncased-accents", length=int(1e30),
        config={"id2label": BY_TEXT, "label2id": {name: int(i) for i, name in BY_TEXT.items()}},
    ),
    "no-labels": Classifier(
        architecture="distilbert", tokenizer="no-post-processor", length=ABSENT,
        config={"id2label": ABSENT, "label2id": ABSENT, "num_labels": 3},
    ),
    "numbers": Classifier(config=labels(3, 1, 2)),
    "other-label2id": Classifier(
        tokenizer="no-pad", length=512,
        config=labels("a", "b", "c") | {"label2id": {"c": 0, "b": 1, "a": 2}},
    ),
    "problem-single": Classifier(
        architecture="xlm-roberta", tokenizer="unigram-nfkc-byte-fallback", length=512,
        config=labels("no", "yes", "maybe") | {"problem_type": "single_label_classification"},
    ),
    "problem-multi": Classifier(
        architecture="electra", tokenizer="wordpiece-cased-no-accents", length=24, limit=24,
        config=labels("billing", "parcel", "praise") | {"problem_type": "multi_label_classification"},
        tokenizer_config={"truncation_side": "left"},
    ),
    "one-output": Classifier(outputs=1, tokenizer="byte-level-robbert", config=labels("toxic")),
    "one-output-regression": Classifier(
        outputs=1, tokenizer="metaspace-never", config={"problem_type": "regression"}
    ),
    "two-outputs": Classifier(
        architecture="mpnet", tokenizer="metaspace-first", outputs=2, config=labels("spam", "ham")
    ),
    "max-len": Classifier(
        tokenizer="metaspace-unsplit", length=ABSENT, tokenizer_config={"max_len": 32}, limit=32
    ),
}  # fmt: skip
"""forms that the text-classification pipeline gives probabilities or scores for"""
REFUSED: dict[str, Classifier] = {
    "duplicate-labels": Classifier(config=labels("other", "bug", "other"), refused="other"),
    "regression": Classifier(config={"problem_type": "regression"}, refused="regression with 3 outputs"),
    "half-a-character": Classifier(config=labels("a", "b", "\ud83d"), refused="id2label.*surrogate"),
    "labels-a-list": Classifier(config={"id2label": ["a", "b", "c"]}, refused="config.json cannot be read"),
    "outputs-a-text": Classifier(
        config={"id2label": ABSENT, "label2id": ABSENT, "num_labels": "3"},
        refused="config.json cannot be read",
    ),
    "width-a-text": Classifier(config={"hidden_size": "32"}, refused="config.json cannot be read"),
    "architecture-a-number": Classifier(config={"architectures": [5]}, refused="its head is 5"),
    "a-label-missing": Classifier(config={"id2label": {"0": "a", "1": "b", "5": "c"}}, refused="id2label"),
}
"""forms of which no right answer can be given"""
LENGTHS: dict[str, tuple[Any, int]] = {
    "1e30": (int(1e30), 64),
    "float 1e30": (1e30, 64),
    "float": (32.0, 32),
    "512": (512, 64),
    "null": (None, 64),
    "absent": (ABSENT, 64),
    "1": (1, 0),
    "0": (0, 0),
    "negative": (-1, 0),
}
"""model_max_length, and how many tokens are read of a text by a model of 64; 0: of no use, and the pipeline fails or
does not truncate"""
