"""`SentenceTransformer.encode`, of texts, queries and documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import normalizers
from transformers import AutoTokenizer

from headway.export.end_to_end.base import Answer, Case
from headway.train.checkpoint import Opened
from headway.train.heads import Pooled
from headway.train.quiet import quiet
from headway.train.sentence_transformers_config import EmbedderConfig, model_type, read_embedder

METHODS = {
    "encode": {},
    "encode_query": {"prompt_name": "query"},
    "encode_document": {"prompt_name": "document"},
}
"""of the library, with the settings of a bundle's call that do the same"""


def open_reference(opened: Opened) -> SentenceTransformerReference | None:
    """None where the folder is not one of sentence-transformers."""
    folder = opened.foreign
    if folder is None or model_type(folder) != "SentenceTransformer":
        return None
    tokenizer: Any = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    config = read_embedder(folder)
    settings = Settings(config, tokenizer.truncation_side, opened.spec.max_length)
    return SentenceTransformerReference(opened, tokenizer, settings, _library(opened))


def _library(opened: Opened) -> Any:
    """The library's own model, cut at what the model has positions for; None where it is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    with quiet():
        model = SentenceTransformer(
            str(opened.foreign), device="cpu", trust_remote_code=False, local_files_only=True
        )
    model.max_seq_length = min(model.max_seq_length or opened.spec.max_length, opened.spec.max_length)
    return model


@dataclass(frozen=True)
class Settings:
    """All that the answers depend on beside the weights and the tokenizer's file."""

    config: EmbedderConfig
    truncation_side: str
    max_length: int


@dataclass(frozen=True)
class SentenceTransformerReference:
    """By the library where it is installed, else by the folder's configuration files."""

    opened: Opened
    tokenizer: Any
    settings: Settings
    library: Any
    name: str = "SentenceTransformer.encode"

    def cases(self, texts: Sequence[str]) -> list[Case]:
        return [Case(text, call) for call in METHODS.values() for text in texts]

    def answers(self, cases: Sequence[Case]) -> list[Answer]:
        if self.library is None:
            return self._computed(cases, self.settings)
        found = []
        for method, call in METHODS.items():
            texts = [case.input for case in cases if case.settings == call]
            if texts:
                vectors = getattr(self.library, method)(texts, batch_size=1, show_progress_bar=False)
                found += [Answer(np.asarray(vector, np.float64)) for vector in vectors]
        return found

    def read(self, case: Case, result: Any) -> Answer:
        return Answer(np.array(result.embedding))

    def variations(self, cases: Sequence[Case]) -> Iterator[tuple[str, list[Answer]]]:
        own = self.settings
        prompt, transformer = own.config.prompt, own.config.transformer
        changed = {
            "prompts": replace(own, config=replace(own.config, prompt=replace(prompt, prompts={}))),
            "default_prompt_name": replace(
                own, config=replace(own.config, prompt=replace(prompt, default_prompt_name=None))
            ),
            "do_lower_case": replace(
                own, config=replace(own.config, transformer=replace(transformer, do_lower_case=False))
            ),
            "truncation_side": replace(
                own, truncation_side="left" if own.truncation_side == "right" else "right"
            ),
            "Normalize": replace(own, config=replace(own.config, normalize=not own.config.normalize)),
            "truncate_dim": replace(own, config=replace(own.config, truncate_dim=None)),
            **{
                f"pooling_mode {own.config.pooling_mode}": replace(
                    own, config=replace(own.config, pooling_mode=mode)
                )
                for mode in ("mean", "cls", "max", "lasttoken")
                if mode != own.config.pooling_mode
            },
        }
        for setting, other in changed.items():
            if other != own:
                yield setting, self._computed(cases, other)

    def _computed(self, cases: Sequence[Case], settings: Settings) -> list[Answer]:
        """As the library does, from the configuration files: each text alone."""
        config, raw = settings.config, self.tokenizer.backend_tokenizer
        written = raw.normalizer
        self.tokenizer.truncation_side = settings.truncation_side
        if config.transformer.do_lower_case:
            raw.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([written] if written else [])])
        body = getattr(self.opened.model, "body", self.opened.model)
        model = Pooled(body, config.pooling_mode, normalize=config.normalize)
        model.train(False)
        try:
            with torch.inference_mode():
                return [Answer(self._vector(model, case, settings)) for case in cases]
        finally:
            raw.normalizer = written

    def _vector(self, model: Any, case: Case, settings: Settings) -> Any:
        config = settings.config
        name = case.settings.get("prompt_name", config.prompt.default_prompt_name)
        text = config.prompt.prompts.get(name or "", "") + case.input
        encoded = self.tokenizer(
            text, truncation="longest_first", max_length=settings.max_length, return_tensors="pt"
        )
        return model(**encoded).logits[0, : config.truncate_dim].double().numpy()
