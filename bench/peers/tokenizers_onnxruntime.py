"""ONNX Runtime with tokenizers alone, as fastembed does it: padded batches through the bundle's fp32 graph."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.peers.base import Setting, Wanted, graph, in_batches, require

TASKS = ("sentence-embedding",)
NEEDS_CHECKPOINT = False


def precisions(model: Path) -> list[str]:
    require(("onnxruntime", "tokenizers"), "onnxruntime", "pip install 'headway[cpu]'")
    graph(model)
    return ["fp32"]


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Session:
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(wanted.max_length)
    tokenizer.enable_padding(pad_id=wanted.pad_id)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = wanted.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph(model)), options, providers=["CPUExecutionProvider"])
    return Session(session, tokenizer)


class Session:
    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "by_length": by_length}
        for size in (1, 8, 32, 256)  # fastembed's own is 256
        for by_length in (False, True)
    )

    def __init__(self, session: Any, tokenizer: Any) -> None:
        self._session, self._tokenizer = session, tokenizer
        self._inputs = {tensor.name for tensor in session.get_inputs()}

    def one(self, text: str) -> Any:
        return self._batch([text])[0]

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        return in_batches(texts, self._batch, **setting)

    def _batch(self, texts: Sequence[str]) -> Any:
        """Vectors (B, D)."""
        encodings = self._tokenizer.encode_batch(texts)
        given = {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
            "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
        }
        wanted = {name: values for name, values in given.items() if name in self._inputs}
        return self._session.run(["sentence_embedding"], wanted)[0]
