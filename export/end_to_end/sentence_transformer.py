"""`SentenceTransformer.encode`, `encode_query`, `encode_document` and `similarity`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import normalizers
from transformers import AutoTokenizer

from headway.core.tasks.sentence_embedding import similarities
from headway.export.end_to_end.base import CONFIGURATION_FILES, IN_FP32, Answer, Case, installed, with_effect
from headway.train.checkpoint import Opened
from headway.train.heads import Pooled
from headway.train.sentence_transformers_config import (
    POOLING_MODES,
    SIMILARITY_FUNCTIONS,
    default_embedder,
    model_type,
    read_embedder,
)

METHODS: Mapping[str, Mapping[str, Any]] = {
    "encode": {},
    "encode_query": {"prompt_name": "query"},
    "encode_document": {"prompt_name": "document"},
}
"""of the library, with the settings of a bundle's call that do the same"""
PAIRS = 8
"""pairs of texts whose similarity is compared"""


@dataclass(frozen=True)
class Settings:
    """All that the answers depend on beside the weights and the tokenizer's file, by the library's names."""

    prompts: Mapping[str, str]
    default_prompt_name: str | None
    do_lower_case: bool
    truncation_side: str
    max_seq_length: int
    pooling_mode: str
    normalize: bool
    truncate_dim: int | None
    similarity_fn_name: str


def open_reference(opened: Opened) -> SentenceTransformerReference | None:
    """Also of a Transformers folder, which the library opens with mean pooling."""
    if opened.foreign is None:
        return None
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return SentenceTransformerReference(opened, tokenizer, _settings_of_files(opened, tokenizer), None)
    library = SentenceTransformer(
        str(opened.foreign),
        device="cpu",
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs=dict(IN_FP32),
    )
    # beyond the model's positions the library fails
    longest = opened.spec.max_length
    library.max_seq_length = int(min(library.max_seq_length or longest, longest))
    return SentenceTransformerReference(opened, tokenizer, _settings_of_library(library), library)


def _settings_of_files(opened: Opened, tokenizer: Any) -> Settings:
    folder = opened.foreign or opened.folder
    plain = model_type(folder) is None
    config = default_embedder(folder, opened.model.config) if plain else read_embedder(folder)
    return Settings(
        config.prompt.prompts,
        config.prompt.default_prompt_name,
        config.transformer.do_lower_case,
        tokenizer.truncation_side,
        opened.spec.max_length,
        config.pooling_mode,
        config.normalize,
        config.truncate_dim,
        config.similarity_fn_name,
    )


def _settings_of_library(model: Any) -> Settings:
    transformer, pooling, *others = model
    return Settings(
        {name: prompt or "" for name, prompt in model.prompts.items()},
        model.default_prompt_name,
        transformer.do_lower_case,
        model.tokenizer.truncation_side,
        model.max_seq_length,
        pooling.pooling_mode,
        "Normalize" in [type(other).__name__ for other in others],
        model.truncate_dim,
        model.similarity_fn_name,
    )


@dataclass(frozen=True)
class SentenceTransformerReference:
    """By the library where it is installed, else computed as the configuration files say."""

    opened: Opened
    tokenizer: Any
    settings: Settings
    library: Any
    name: str = "SentenceTransformer.encode"

    @property
    def computed_by(self) -> str:
        return CONFIGURATION_FILES if self.library is None else installed("sentence-transformers")

    def cases(self, texts: Sequence[str]) -> list[Case]:
        pairs = [Case(pair) for pair in pairwise(texts[: PAIRS + 1])]
        return [Case(text, call) for call in METHODS.values() for text in texts] + pairs

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        if self.library is None:
            return self._computed(cases, self.settings)
        return [self._of_library(case) for case in cases]

    def _of_library(self, case: Case) -> Answer:
        if isinstance(case.input, tuple):
            a, b = (self.library.encode(text, show_progress_bar=False) for text in case.input)
            return Answer(self.library.similarity(a, b).double().numpy()[0], group="similarity")
        method = next(name for name, call in METHODS.items() if call == case.settings)
        vector = getattr(self.library, method)(case.input, show_progress_bar=False)
        return Answer(np.asarray(vector, np.float64))

    def read(self, case: Case, result: Any) -> Answer:
        if isinstance(case.input, tuple):
            return Answer(np.array(result.similarities), group="similarity")
        return Answer(np.array(result.embedding))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        own = self.settings
        changes: list[dict[str, Any]] = [
            {"prompts": dict.fromkeys(own.prompts, "")},
            {"default_prompt_name": None},
            {"do_lower_case": not own.do_lower_case},
            {"truncation_side": "left" if own.truncation_side == "right" else "right"},
            {"normalize": not own.normalize},
            {"truncate_dim": None},
            *({"pooling_mode": mode} for mode in POOLING_MODES),
            *({"similarity_fn_name": name} for name in SIMILARITY_FUNCTIONS),
        ]
        others = [(next(iter(change)), replace(own, **change)) for change in changes]
        found = ((name, self._computed(cases, other)) for name, other in others if other != own)
        return with_effect(found, self._computed(cases, own))

    def _computed(self, cases: Sequence[Case], settings: Settings) -> list[Answer]:
        """As the library does: each text alone."""
        raw = self.tokenizer.backend_tokenizer
        normalizer = raw.normalizer
        if settings.do_lower_case:
            first = normalizers.Lowercase()
            raw.normalizer = normalizers.Sequence([first, normalizer] if normalizer else [first])
        self.tokenizer.truncation_side = settings.truncation_side
        body = getattr(self.opened.model, "body", self.opened.model)
        model = Pooled(body, settings.pooling_mode, normalize=settings.normalize)
        model.train(False)
        try:
            with torch.inference_mode():
                return [self._answer(model, case, settings) for case in cases]
        finally:
            raw.normalizer = normalizer

    def _answer(self, model: Any, case: Case, settings: Settings) -> Answer:
        name = case.settings.get("prompt_name", settings.default_prompt_name)
        prompt = settings.prompts.get(name or "", "")
        if isinstance(case.input, tuple):
            a, b = (self._vector(model, prompt + text, settings)[None] for text in case.input)
            return Answer(similarities(a, b, settings.similarity_fn_name)[0], group="similarity")  # type: ignore[arg-type]
        return Answer(self._vector(model, prompt + case.input, settings))

    def _vector(self, model: Any, text: str, settings: Settings) -> NDArray[np.float64]:  # (D)
        encoded = self.tokenizer(
            text, truncation="longest_first", max_length=settings.max_seq_length, return_tensors="pt"
        )
        return np.asarray(model(**encoded).logits[0, : settings.truncate_dim].double().numpy())
