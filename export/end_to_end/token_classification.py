"""The Transformers pipeline `token-classification`, of words: the tag and the probability of each one's first token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from transformers import AutoTokenizer, TokenClassificationPipeline

from headway.export.end_to_end.base import Answer, Case, installed, with_config_of_files
from headway.train.checkpoint import Opened

CALL = {"constrained": False}
"""the pipeline knows no scheme"""


def open_reference(opened: Opened) -> TokenClassificationReference | None:
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    tokenizer.model_max_length = opened.spec.max_length
    pipeline = TokenClassificationPipeline(model=with_config_of_files(opened), tokenizer=tokenizer)  # type: ignore[no-untyped-call]
    return TokenClassificationReference(pipeline, opened.spec.max_length)


@dataclass(frozen=True)
class TokenClassificationReference:
    pipeline: Any
    max_length: int
    name: str = 'pipeline("token-classification")'

    @property
    def computed_by(self) -> str:
        return installed("transformers")

    def cases(self, texts: Sequence[str]) -> list[Case]:
        """Words of ASCII texts that the model reads whole: of longer ones the pipeline reads the beginning alone.

        Only texts in which a token begins where each word does: where none does, the pipeline has no tag for the word.
        """
        every = [text.split() for text in texts if text.isascii()]
        return [Case({"tokens": words}, CALL) for words in every if words and self._aligned(words)]

    def _aligned(self, words: Sequence[str]) -> bool:
        text = " ".join(words)
        encoded = self.pipeline.tokenizer(text, truncation=False, verbose=False, return_offsets_mapping=True)
        begins = {_first_letter(text, *span) for span in encoded["offset_mapping"] if span[0] < span[1]}
        return len(encoded["input_ids"]) <= self.max_length and begins.issuperset(_begins(words))

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        return [self._answer(case) for case in cases]

    def read(self, case: Case, result: Any) -> Answer:
        return Answer(np.array(result.scores), tuple(result.tags))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        """An order of labels of one's own is all that can be wrong here: tags alone differ."""
        names = self.pipeline.model.config.id2label
        try:
            self.pipeline.model.config.id2label = dict(enumerate(sorted(map(str, names.values()))))
            yield "id2label", [self._answer(case) for case in cases]
        finally:
            self.pipeline.model.config.id2label = names

    def _answer(self, case: Case) -> Answer:
        words: list[str] = case.input["tokens"]
        text = " ".join(words)
        tags: dict[int, tuple[str, float]] = {}
        for token in self.pipeline(text, aggregation_strategy="none", ignore_labels=[]):
            begin = _first_letter(text, token["start"], token["end"])
            tags.setdefault(begin, (str(token["entity"]), float(token["score"])))
        first = [tags[begin] for begin in _begins(words)]
        return Answer(np.array([score for _, score in first]), tuple(tag for tag, _ in first))


def _begins(words: Sequence[str]) -> list[int]:
    """Where each word begins in the words joined by spaces."""
    ends = accumulate(len(word) + 1 for word in words)
    return [end - 1 - len(word) for word, end in zip(words, ends, strict=True)]


def _first_letter(text: str, begin: int, end: int) -> int:
    """Where a token's own characters begin: byte-level tokenizers count the space before a word in."""
    while begin < end - 1 and text[begin].isspace():
        begin += 1
    return begin
