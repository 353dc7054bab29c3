"""`generate()` of the model with its own generation settings, without sampling, from texts to texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from headway.export.end_to_end.base import Answer, Case, installed
from headway.train.checkpoint import Opened

NEW_TOKENS = 12
"""that are generated for each text"""
TEXTS = 12
"""that are continued: a text costs as much as its tokens and beams together"""
NEUTRAL = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
}
"""generation settings, with the value that changes nothing"""


def open_reference(opened: Opened) -> GenerationReference | None:
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    special = getattr(opened.spec.settings, "special_tokens", True)
    return GenerationReference(opened.model, tokenizer, bool(special), opened.spec.max_length)


@dataclass(frozen=True)
class GenerationReference:
    model: Any
    tokenizer: Any
    special_tokens: bool
    max_length: int
    name: str = "generate"

    @property
    def computed_by(self) -> str:
        return installed("transformers")

    def cases(self, texts: Sequence[str]) -> list[Case]:
        """Texts that the model reads whole with what it generates."""
        room = self.max_length - NEW_TOKENS
        short = [text for text in texts if 0 < len(self._ids(text)[0]) <= room]
        every = max(1, len(short) // TEXTS)
        return [Case(text, {"max_new_tokens": NEW_TOKENS}) for text in short[::every][:TEXTS]]

    def _ids(self, text: str) -> torch.Tensor:  # (1, T)
        ids = self.tokenizer(text, add_special_tokens=self.special_tokens, truncation=False, verbose=False)
        return torch.tensor([ids["input_ids"]])

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        return self._computed(cases, {})

    def read(self, case: Case, result: Any) -> Answer:
        return Answer(np.zeros(1), (result.text,))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        own = self.model.generation_config
        for name, neutral in NEUTRAL.items():
            if getattr(own, name, None) not in (None, neutral):
                yield name, self._computed(cases, {name: neutral})

    def _computed(self, cases: Sequence[Case], settings: dict[str, Any]) -> list[Answer]:
        begin = 1 if self.model.config.is_encoder_decoder else None
        found = []
        for case in cases:
            ids = self._ids(case.input)
            with torch.inference_mode():
                tokens = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=NEW_TOKENS,
                    max_length=None,
                    num_return_sequences=1,
                    do_sample=False,
                    **settings,
                )[0, begin or ids.shape[1] :]
            found.append(Answer(np.zeros(1), (self.tokenizer.decode(tokens, skip_special_tokens=True),)))
        return found
