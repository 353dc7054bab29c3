"""`CrossEncoder.predict`, of pairs; `rank` sorts by the same scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from headway.export.end_to_end.base import CONFIGURATION_FILES, IN_FP32, Answer, Case, installed, with_effect
from headway.train.checkpoint import Opened
from headway.train.sentence_transformers_config import (
    ACTIVATION_FUNCTIONS,
    is_cross_encoder,
    read_cross_encoder,
)

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "identity": torch.nn.Identity(),
}


@dataclass(frozen=True)
class Settings:
    """All that the answers depend on beside the weights and the tokenizer's file."""

    activation_fn: str
    prompt: str
    truncation_side: str
    max_length: int


def open_reference(opened: Opened) -> CrossEncoderReference | None:
    """None where the folder does not say that `CrossEncoder` wrote it: what its score means is not told then."""
    if opened.foreign is None or not is_cross_encoder(opened.foreign, opened.model.config):
        return None
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    longest = opened.spec.max_length
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        config = read_cross_encoder(opened.foreign, opened.model.config, 1)
        prompt = config.prompt.prompts.get(config.prompt.default_prompt_name or "", "")
        settings = Settings(config.activation_fn, prompt, tokenizer.truncation_side, longest)
        return CrossEncoderReference(opened, tokenizer, settings, None)
    library = CrossEncoder(
        str(opened.foreign),
        device="cpu",
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs=dict(IN_FP32),
    )
    # beyond the model's positions the library fails
    library.max_seq_length = int(min(library.max_seq_length or longest, longest))
    prompt = library.prompts.get(library.default_prompt_name or "") or ""
    activation = ACTIVATION_FUNCTIONS.get(type(library.activation_fn).__name__, "identity")
    settings = Settings(activation, prompt, library.tokenizer.truncation_side, library.max_seq_length)
    return CrossEncoderReference(opened, tokenizer, settings, library)


@dataclass(frozen=True)
class CrossEncoderReference:
    """By the library where it is installed, else computed as the configuration files say."""

    opened: Opened
    tokenizer: Any
    settings: Settings
    library: Any
    name: str = "CrossEncoder.predict"

    @property
    def computed_by(self) -> str:
        return CONFIGURATION_FILES if self.library is None else installed("sentence-transformers")

    def cases(self, texts: Sequence[str]) -> list[Case]:
        return [Case((query, passage)) for query, passage in zip(texts, [*texts[1:], texts[0]], strict=True)]

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        if self.library is None:
            return self._computed(cases, self.settings)
        scores = [self.library.predict(case.input, show_progress_bar=False) for case in cases]
        return [Answer(np.atleast_1d(np.asarray(score, np.float64))) for score in scores]

    def read(self, case: Case, result: Any) -> Answer:
        return Answer(np.array([result.score]))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        own = self.settings
        changes: list[dict[str, Any]] = [
            *({"activation_fn": name} for name in ACTIVATIONS),
            {"prompt": ""},
            {"truncation_side": "left" if own.truncation_side == "right" else "right"},
        ]
        others = [(next(iter(change)), replace(own, **change)) for change in changes]
        found = ((name, self._computed(cases, other)) for name, other in others if other != own)
        return with_effect(found, self._computed(cases, own))

    def _computed(self, cases: Sequence[Case], settings: Settings) -> list[Answer]:
        """As the library does: each pair alone."""
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
