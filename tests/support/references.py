"""The right answers: those of sentence-transformers and transformers, on raw strings and at their defaults."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice of the libraries."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logger = logging.getLogger("sentence_transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        logger.setLevel(before)


def embedder(folder: Path, **settings: Any) -> Any:
    """The SentenceTransformer of a folder."""
    from sentence_transformers import SentenceTransformer

    with quiet():
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **settings)


def encode(model: Any, texts: Sequence[str], how: str = "encode", **settings: Any) -> NDArray[np.float32]:
    """Vectors (N, D) by `encode`, `encode_query` or `encode_document`, each text alone, so that none is padded."""
    method = getattr(model, how)
    return np.stack([method(text, show_progress_bar=False, **settings) for text in texts])


def cross_encoder(folder: Path) -> Any:
    """The CrossEncoder of a folder."""
    from sentence_transformers import CrossEncoder

    with quiet():
        return CrossEncoder(str(folder), device="cpu", local_files_only=True)


def predict(model: Any, pairs: Sequence[tuple[str, str]], **settings: Any) -> NDArray[np.float32]:
    """Scores (N) or (N, C) of a CrossEncoder, each pair alone."""
    return np.stack([model.predict(pair, show_progress_bar=False, **settings) for pair in pairs])


def pipeline(task: str, folder: Path, **settings: Any) -> Any:
    """A pipeline of transformers on one processor."""
    with quiet():
        return transformers.pipeline(task, model=str(folder), device="cpu", **settings)


def classified(
    folder: Path, texts: Sequence[str] | Sequence[tuple[str, str]], **settings: Any
) -> list[dict[str, float]]:
    """The probability of each label of each text or pair by the text-classification pipeline."""
    pipe = pipeline("text-classification", folder)
    found = []
    for text in texts:
        asked: Any = text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
        truncation = True if isinstance(text, str) else "longest_first"
        said = pipe(asked, top_k=None, truncation=truncation, **settings)
        found.append({str(one["label"]): float(one["score"]) for one in said})
    return found


def entities(folder: Path, texts: Sequence[str], aggregation: str) -> list[list[dict[str, Any]]]:
    """What the token-classification pipeline finds in each text with an aggregation_strategy."""
    pipe = pipeline("token-classification", folder, aggregation_strategy=aggregation)
    with torch.inference_mode():
        return [pipe(text) for text in texts]
