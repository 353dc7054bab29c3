"""`generate()` of the model with its own generation settings, lengths included, without sampling, from texts to texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from headway.core.search import NEW_TOKENS
from headway.export.end_to_end.base import Answer, Case, installed
from headway.train.checkpoint import Opened
from headway.train.generation import OFF, generate

MOST_NEW = 32
"""that are generated for each text, at most: where the model's own length allows more, the call gives this one"""
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
    "max_new_tokens": None,
    "early_stopping": False,
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
        """Texts that the model reads whole with what it generates; of prompts, such as its own length leaves room for."""
        short = [(text, n) for text in texts if (n := len(self._ids(text)[0])) > 0 and self._has_room(n)]
        every = max(1, len(short) // TEXTS)
        return [Case(text, self._settings(n)) for text, n in short[::every][:TEXTS]]

    def _has_room(self, source: int) -> bool:
        """Whether a source of so many tokens is read whole, and something can be generated after it."""
        own = self.model.generation_config
        if self.model.config.is_encoder_decoder:
            return source <= self.max_length
        if own.max_new_tokens is None and own.max_length is not None and source >= own.max_length:
            return False
        return source <= self.max_length - min(MOST_NEW, self.max_length // 2)

    def _settings(self, source: int) -> dict[str, Any]:
        """Settings of the call: none that the model has itself, but for groups of beams and what is too long."""
        own = self.model.generation_config
        prompt = 1 if self.model.config.is_encoder_decoder else source
        new = own.max_new_tokens
        if new is None:
            new = NEW_TOKENS if own.max_length is None else own.max_length - prompt
        capped = {"max_new_tokens": MOST_NEW} if new > MOST_NEW else {}
        if capped and (own.min_new_tokens or 0) > MOST_NEW:
            capped["min_new_tokens"] = MOST_NEW
        groups = {
            name: OFF[name] for name in ("num_beam_groups", "diversity_penalty", "num_return_sequences")
        }
        return capped | groups

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
        if own.max_new_tokens is None and own.max_length is not None:
            yield "max_length", self._computed(cases, {"max_new_tokens": NEW_TOKENS})

    def _computed(self, cases: Sequence[Case], settings: dict[str, Any]) -> list[Answer]:
        begin = 1 if self.model.config.is_encoder_decoder else None
        found = []
        for case in cases:
            ids = self._ids(case.input)
            with torch.inference_mode():
                tokens = generate(
                    self.model,
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    **(dict(case.settings) | settings),
                )[0, begin or ids.shape[1] :]
            found.append(Answer(np.zeros(1), (self.tokenizer.decode(tokens, skip_special_tokens=True),)))
        return found
