"""`CrossEncoder.predict`, of pairs; `rank` sorts by the same scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from headway.export.end_to_end.base import Answer, Case
from headway.train.checkpoint import Opened
from headway.train.quiet import quiet
from headway.train.sentence_transformers_config import is_cross_encoder, read_cross_encoder

ACTIVATIONS = {"sigmoid": torch.sigmoid, "identity": torch.nn.Identity()}


def open_reference(opened: Opened) -> CrossEncoderReference | None:
    """None where the folder does not say that `CrossEncoder` wrote it, as no default is then told."""
    folder, config = opened.foreign, opened.model.config
    if folder is None or not is_cross_encoder(folder, config):
        return None
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    told = read_cross_encoder(folder, config, 1)
    prompt = told.prompt.prompts.get(told.prompt.default_prompt_name or "", "")
    settings = Settings(told.activation_fn, prompt, tokenizer.truncation_side, opened.spec.max_length)
    return CrossEncoderReference(opened, tokenizer, settings, _library(opened))


def _library(opened: Opened) -> Any:
    """The library's own model, cut at what the model has positions for; None where it is not installed."""
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        return None
    with quiet():
        model = CrossEncoder(
            str(opened.foreign), device="cpu", trust_remote_code=False, local_files_only=True
        )
    model.max_seq_length = min(model.max_seq_length or opened.spec.max_length, opened.spec.max_length)
    return model


@dataclass(frozen=True)
class Settings:
    """All that the answers depend on beside the weights and the tokenizer's file."""

    activation_fn: str
    prompt: str
    truncation_side: str
    max_length: int


@dataclass(frozen=True)
class CrossEncoderReference:
    """By the library where it is installed, else by the folder's configuration files."""

    opened: Opened
    tokenizer: Any
    settings: Settings
    library: Any
    name: str = "CrossEncoder.predict"

    def cases(self, texts: Sequence[str]) -> list[Case]:
        return [Case((query, passage)) for query, passage in zip(texts, [*texts[1:], texts[0]], strict=True)]

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        if self.library is None:
            return self._computed(cases, self.settings)
        scores = self.library.predict([c.input for c in cases], batch_size=1, show_progress_bar=False)
        return [Answer(np.array([score], np.float64)) for score in scores.tolist()]

    def read(self, case: Case, result: Any) -> Answer:
        return Answer(np.array([result.score]))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        own = self.settings
        changed = {
            "activation_fn": replace(
                own, activation_fn="identity" if own.activation_fn == "sigmoid" else "sigmoid"
            ),
            "prompts": replace(own, prompt=""),
            "truncation_side": replace(
                own, truncation_side="left" if own.truncation_side == "right" else "right"
            ),
        }
        for setting, other in changed.items():
            if other != own:
                yield setting, self._computed(cases, other)

    def _computed(self, cases: Sequence[Case], settings: Settings) -> list[Answer]:
        """As the library does, from the configuration files: each pair alone."""
        self.tokenizer.truncation_side = settings.truncation_side
        found = []
        with torch.inference_mode():
            for query, passage in (case.input for case in cases):
                encoded = self.tokenizer(
                    settings.prompt + query,
                    passage,
                    truncation="longest_first",
                    max_length=settings.max_length,
                    return_tensors="pt",
                )
                score = ACTIVATIONS[settings.activation_fn](self.opened.model(**encoded).logits[0])
                found.append(Answer(score.double().numpy()))
        return found
