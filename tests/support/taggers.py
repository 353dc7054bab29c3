"""Token classifiers that give each word the tag that is planted for it, in every way of writing tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from tests.support import models, tokenizers
from tests.support.files import change

ROLES = ("begin", "inside", "end", "single", "next")
"""of a word in an entity; next: an entity of one word right after one of the same type"""
WORDS: dict[str, tuple[str, str]] = {
    "Anna": ("begin", "PER"),
    "Maria": ("inside", "PER"),
    "Berg": ("end", "PER"),
    "Otto": ("single", "PER"),
    "Uwe": ("next", "PER"),
    "New": ("begin", "LOC"),
    "York": ("end", "LOC"),
    "Graz": ("single", "LOC"),
    "Linz": ("next", "LOC"),
}
"""the words that have a tag other than O"""
TYPES = ("PER", "LOC")
BIO = dict(zip(ROLES, "BIIBB", strict=True))
IOB1 = dict(zip(ROLES, "IIIIB", strict=True))
BIOES = dict(zip(ROLES, "BIESS", strict=True))
BILOU = dict(zip(ROLES, "BILUU", strict=True))
BMES = dict(zip(ROLES, "BMESS", strict=True))
IOE2 = dict(zip(ROLES, "IIEEE", strict=True))
IO = dict.fromkeys(ROLES, "I")


@dataclass(frozen=True)
class Scheme:
    """A way of writing tags."""

    letters: dict[str, str]
    """of each role; empty: the tag is the type alone"""
    form: str = "{letter}-{type}"
    joins: bool = False
    """neighbouring entities of one type cannot be told apart"""
    seqeval: str = ""
    """the name of the scheme in seqeval.scheme, where it has it"""
    pipeline: bool = False
    """the token-classification pipeline with aggregation_strategy="simple" reads it"""

    def tag(self, word: str) -> str:
        """The tag of a word."""
        role, kind = WORDS.get(word, ("", ""))
        if not role:
            return "O"
        return self.form.format(letter=self.letters[role], type=kind) if self.letters else kind

    def labels(self) -> list[str]:
        """All tags, "O" first."""
        if not self.letters:
            return ["O", *TYPES]
        letters = sorted(set(self.letters.values()))
        return ["O", *(self.form.format(letter=x, type=kind) for kind in TYPES for x in letters)]


SCHEMES: dict[str, Scheme] = {
    "BIO": Scheme(BIO, seqeval="IOB2", pipeline=True),
    "IOB1": Scheme(IOB1, seqeval="IOB1", pipeline=True),
    "BIOES": Scheme(BIOES, seqeval="IOBES"),
    "BILOU": Scheme(BILOU, seqeval="BILOU"),
    "BMES": Scheme(BMES),
    "IOE2": Scheme(IOE2, seqeval="IOE2"),
    "IO": Scheme(IO, joins=True, pipeline=True),
    "types": Scheme({}, joins=True, pipeline=True),
    "B_PER": Scheme(BIO, "{letter}_{type}"),
    "PER-B": Scheme(BIO, "{type}-{letter}"),
    "S_PER": Scheme(BIOES, "{letter}_{type}"),
    "PER-U": Scheme(BILOU, "{type}-{letter}"),
    "B-PER-x": Scheme(BIO, "{letter}-{type}-x", seqeval="IOB2", pipeline=True),
}
"""every way of writing tags that shared models have"""

Span = tuple[int, int, str]
SENTENCES: tuple[tuple[str, tuple[Span, ...]], ...] = (
    ("Anna Berg lives in Graz.", ((0, 9, "PER"), (19, 23, "LOC"))),
    ("Anna Maria Berg met Otto in New York", ((0, 15, "PER"), (20, 24, "PER"), (28, 36, "LOC"))),
    ("Otto Uwe left", ((0, 4, "PER"), (5, 8, "PER"))),
    ("in Graz Linz Otto", ((3, 7, "LOC"), (8, 12, "LOC"), (13, 17, "PER"))),
    ("nobody lives there", ()),
    ("Anna Berg Uwe", ((0, 9, "PER"), (10, 13, "PER"))),
)
"""texts, and begin, end and type of each entity in them, in characters"""


def spans(scheme: Scheme, expected: tuple[Span, ...]) -> list[Span]:
    """The entities that are expected of a scheme: those of one type side by side are one where it cannot part them."""
    suffix = "-x" if scheme.form.endswith("-x") else ""
    found: list[Span] = []
    for begin, end, kind in expected:
        if scheme.joins and found and found[-1][1] + 1 == begin and found[-1][2] == kind + suffix:
            found[-1] = (found[-1][0], end, kind + suffix)
        else:
            found.append((begin, end, kind + suffix))
    return found


def save(folder: Path, scheme: Scheme | str, labels: list[str] | None = None) -> Path:
    """A BERT whose layers add nothing, so that a token's tag is that of its embedding.

    `labels`: the model's labels in another order, or more of them.
    """
    scheme = SCHEMES[scheme] if isinstance(scheme, str) else scheme
    labels = labels or scheme.labels()
    learnt = [text for text, _ in SENTENCES]
    wrap: Any = PreTrainedTokenizerFast
    names = {f"{name}_token": token for name, token in tokenizers.BERT.items()}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    raw = tokenizers.wordpiece(lowercase=False, learnt=learnt)
    tokenizer = wrap(tokenizer_object=raw, model_max_length=64, model_input_names=inputs, **names)
    auto = transformers.AutoModelForTokenClassification
    model = models.model(auto, "bert", tokenizer, num_labels=len(labels))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" not in name:
                weight.zero_()
        rows = model.get_input_embeddings().weight
        for word, token in tokenizer.get_vocab().items():
            rows[token, labels.index(scheme.tag(word))] = 1.0
        model.classifier.weight[:, : len(labels)] = 2 * torch.eye(len(labels))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    change(
        folder / "config.json",
        id2label={str(i): label for i, label in enumerate(labels)},
        label2id={label: i for i, label in enumerate(labels)},
    )
    return folder
