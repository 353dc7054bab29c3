"""sentence-transformers in PyTorch, fp32 and bf16 weights. It sorts by length itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headway.bench.peers.base import Setting, Wanted, halves, require

TASKS = ("sentence-embedding",)
NEEDS_CHECKPOINT = True


def precisions(model: Path) -> list[str]:
    require(("torch", "sentence_transformers"), "sentence-transformers", "pip install 'headway[train,peers]'")
    return halves()


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Embedder:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(wanted.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    opened = SentenceTransformer(
        str(model), device="cpu", model_kwargs={"dtype": dtype, "use_safetensors": True}
    )
    opened.max_seq_length = wanted.max_length
    return Embedder(opened)


class Embedder:
    SETTINGS: Sequence[Setting] = tuple({"batch_size": size} for size in (1, 8, 16, 32, 64, 128))

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def one(self, text: str) -> Any:
        return self._opened.encode(text, show_progress_bar=False)

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        return self._opened.encode(list(texts), show_progress_bar=False, **setting)
