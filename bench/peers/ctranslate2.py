"""CTranslate2's encoder, float32 and int8, its token vectors pooled in numpy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.peers.base import Setting, Wanted, order, require
from headway.core.errors import UnavailableError

TASKS = ("sentence-embedding",)
NEEDS_CHECKPOINT = True

OLD_SETTINGS = {"position_embedding_type": "absolute", "normalize_before": False}
"""of BERT and of BART"""


def precisions(model: Path) -> list[str]:
    require(
        ("ctranslate2", "torch", "transformers"),
        "CTranslate2 with PyTorch",
        "pip install 'headway[train,peers]'",
    )
    return ["float32", "int8"]


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    """Converted, with the tokenizer beside it. Raises UnavailableError where its converter does not know the model."""
    from transformers import AutoTokenizer

    converter = import_module("ctranslate2.converters").TransformersConverter
    found = folder / "converted"
    try:
        converter(str(with_old_settings(model, folder / "checkpoint"))).convert(
            str(found), quantization=precision
        )
    except Exception as error:  # whatever comes of an architecture that it does not know
        raise UnavailableError(f"{model.name} in CTranslate2", f"its converter says: {error}") from error
    AutoTokenizer.from_pretrained(model).backend_tokenizer.save(str(found / "tokenizer.json"))
    return found


def with_old_settings(model: Path, copy: Path) -> Path:
    """A copy with settings that the converter asks for and transformers 5 writes no more."""
    shutil.copytree(model, copy, dirs_exist_ok=True)
    config = json.loads((model / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps(OLD_SETTINGS | config), encoding="utf-8")
    return copy


def open_subject(model: Path, precision: str, wanted: Wanted) -> Encoder:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(wanted.max_length)
    tokenizer.no_padding()
    return Encoder(import_module("ctranslate2"), model, precision, wanted, tokenizer)


class Encoder:
    """One batch on all threads; or, where `many` is to, a batch on each thread, which share the weights."""

    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "workers": workers} for size in (1, 8, 32) for workers in (False, True)
    )

    def __init__(self, ctranslate2: Any, model: Path, precision: str, wanted: Wanted, tokenizer: Any) -> None:
        self._ctranslate2, self._model, self._precision = ctranslate2, model, precision
        self._wanted, self._tokenizer = wanted, tokenizer
        self._opened: dict[bool, Any] = {}
        self._pool = ThreadPoolExecutor(wanted.threads)
        self._for(workers=False)

    def one(self, text: str) -> Any:
        return self._batch(self._for(workers=False), [text])[0]

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        places, size = order(texts, by_length=True), setting["batch_size"]
        batches = [[texts[i] for i in places[k : k + size]] for k in range(0, len(places), size)]
        encoder = self._for(setting["workers"])
        run = self._pool.map if setting["workers"] else map
        vectors = np.concatenate(list(run(lambda batch: self._batch(encoder, batch), batches)))
        found = np.empty_like(vectors)
        found[places] = vectors
        return found

    def _for(self, workers: bool) -> Any:
        if workers not in self._opened:
            inter, intra = (self._wanted.threads, 1) if workers else (1, self._wanted.threads)
            self._opened[workers] = self._ctranslate2.Encoder(
                str(self._model),
                device="cpu",
                compute_type=self._precision,
                inter_threads=inter,
                intra_threads=intra,
            )
        return self._opened[workers]

    def _batch(self, encoder: Any, texts: Sequence[str]) -> Any:
        """Vectors (B, D)."""
        ids = [e.ids for e in self._tokenizer.encode_batch(texts)]
        hidden = np.array(encoder.forward_batch(ids).last_hidden_state)  # (B, T, D)
        if self._wanted.pooling == "cls":
            return hidden[:, 0]
        lengths = np.array([len(row) for row in ids])
        kept = (np.arange(hidden.shape[1]) < lengths[:, None])[..., None]  # (B, T, 1)
        if self._wanted.pooling == "max":
            return np.where(kept, hidden, -np.inf).max(axis=1)
        return np.where(kept, hidden, 0).sum(axis=1) / lengths[:, None].astype(np.float32)
