"""The Transformers pipeline `text-classification`, of texts (and of pairs, for a bundle that reads pairs)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AutoTokenizer, TextClassificationPipeline

from headway.export.end_to_end.base import Answer, Case, installed, with_config_of_files
from headway.train.checkpoint import Opened

FUNCTIONS = ("softmax", "sigmoid", "none")
"""values of the pipeline's `function_to_apply`"""


def open_reference(opened: Opened) -> TextClassificationReference | None:
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    return TextClassificationReference(
        TextClassificationPipeline(model=with_config_of_files(opened), tokenizer=tokenizer),  # type: ignore[no-untyped-call]
        tokenizer.truncation_side,
        opened.spec.max_length,
        opened.spec.settings.pair is True,
    )


@dataclass(frozen=True)
class TextClassificationReference:
    pipeline: Any
    truncation_side: str
    max_length: int
    pair: bool
    name: str = 'pipeline("text-classification")'

    @property
    def computed_by(self) -> str:
        return installed("transformers")

    def cases(self, texts: Sequence[str]) -> list[Case]:
        if self.pair:
            return [Case(pair) for pair in zip(texts, [*texts[1:], texts[0]], strict=True)]
        return [Case(text) for text in texts]

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        return self._computed(cases, None, self.truncation_side)

    def read(self, case: Case, result: Any) -> Answer:
        if not hasattr(result, "scores"):
            return Answer(np.array([result.score]))
        labels = sorted(result.scores)
        return Answer(np.array([result.scores[label] for label in labels]), tuple(labels))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        other = "left" if self.truncation_side == "right" else "right"
        yield "truncation_side", self._computed(cases, None, other)
        for function in FUNCTIONS:
            yield "problem_type", self._computed(cases, function, self.truncation_side)

    def _computed(self, cases: Sequence[Case], function: str | None, side: str) -> list[Answer]:
        self.pipeline.tokenizer.truncation_side = side
        found = []
        for case in cases:
            given: Any = case.input
            if isinstance(given, tuple):
                given = {"text": given[0], "text_pair": given[1]}
            scores = self.pipeline(
                given,
                top_k=None,
                truncation="longest_first",
                max_length=self.max_length,
                function_to_apply=function,
            )
            ordered = sorted(scores, key=lambda one: str(one["label"]))  # id2label may name numbers
            single = len(ordered) == 1
            labels = () if single else tuple(str(one["label"]) for one in ordered)
            found.append(Answer(np.array([one["score"] for one in ordered]), labels))
        return found
