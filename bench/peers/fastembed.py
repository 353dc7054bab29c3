"""fastembed on the bundle's fp32 graph. It wants an older huggingface_hub, and so an environment of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.peers.base import Setting, Wanted, graph, in_batches, interpreter_of, require_there

TASKS = ("sentence-embedding",)
NEEDS_CHECKPOINT = False

ENVIRONMENT = "HEADWAY_FASTEMBED_PYTHON"
"""environment variable: the Python that has fastembed and msgspec; unset: this one"""


def precisions(model: Path) -> list[str]:
    require_there(("msgspec", "fastembed"), "fastembed", "fastembed msgspec", ENVIRONMENT)
    graph(model)
    return ["fp32"]


def interpreter() -> str:
    return interpreter_of(ENVIRONMENT)


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    """All in one folder, and said in the files where fastembed looks for it."""
    from tokenizers import Tokenizer

    shutil.copytree(graph(model).parent, folder, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=wanted.pad_id)
    tokenizer.save(str(folder / "tokenizer.json"))
    cut = json.dumps({"model_max_length": wanted.max_length})
    (folder / "tokenizer_config.json").write_text(cut, "utf-8")
    return folder


def open_subject(model: Path, precision: str, wanted: Wanted) -> Embedder:
    kinds = import_module("fastembed.common.model_description")
    embedding = import_module("fastembed").TextEmbedding
    embedding.add_custom_model(
        "bundle",
        pooling=kinds.PoolingType.DISABLED,  # the graph pools
        normalization=False,
        sources=kinds.ModelSource(url=str(model)),  # which is a must; nothing is fetched
        dim=0,  # it does not look at it
        model_file="model.onnx",
        output_name="sentence_embedding",
    )
    folder, cpu = str(model), ["CPUExecutionProvider"]
    own = {"cache_dir": folder, "specific_model_path": folder, "local_files_only": True}
    return Embedder(embedding("bundle", threads=wanted.threads, providers=cpu, **own))


class Embedder:
    """One session on all threads: its `parallel`, a process a thread, starts them anew at each call and gains nothing."""

    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "by_length": by_length}
        for size in (1, 8, 32, 256)  # its own is 256
        for by_length in (False, True)
    )

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def one(self, text: str) -> Any:
        return next(iter(self._opened.embed(text)))

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        embed = self._opened.embed
        return in_batches(texts, lambda batch: np.stack(list(embed(batch, len(batch)))), **setting)
