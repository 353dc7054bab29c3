"""OpenVINO used directly: the bundle's fp32 graph with dynamic shapes, batches sorted by length, f32 and bf16."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench.peers.base import Setting, Wanted, graph, halves, order, require

TASKS = ("sentence-embedding",)
NEEDS_CHECKPOINT = False

HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of the types that it computes in"""


def precisions(model: Path) -> list[str]:
    require(("openvino", "tokenizers"), "openvino", "pip install 'headway[openvino]'")
    graph(model)
    return halves()


def interpreter() -> str:
    return sys.executable


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Compiled:
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(wanted.max_length)
    tokenizer.enable_padding(pad_id=wanted.pad_id)
    options = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": wanted.threads}
    return Compiled(openvino, graph(model), options, tokenizer)


class Compiled:
    """Compiled for latency, one batch on all threads; and, where `many` is to, for throughput, a stream a thread."""

    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "hint": hint} for size in (1, 8, 32) for hint in ("LATENCY", "THROUGHPUT")
    )

    def __init__(self, openvino: Any, path: Path, options: dict[str, Any], tokenizer: Any) -> None:
        self._openvino, self._path, self._options, self._tokenizer = openvino, path, options, tokenizer
        self._compiled: dict[str, Any] = {}
        latency = self._for("LATENCY")
        self._inputs = {tensor.any_name for tensor in latency.inputs}
        self._request = latency.create_infer_request()

    def one(self, text: str) -> Any:
        return self._request.infer(self._given([text]))["sentence_embedding"][0]

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        places, size = order(texts, by_length=True), setting["batch_size"]
        batches = [places[i : i + size] for i in range(0, len(places), size)]
        queue = self._openvino.AsyncInferQueue(self._for(setting["hint"]))
        found: list[Any] = [None] * len(texts)

        def keep(request: Any, batch: list[int]) -> None:
            for i, vector in zip(batch, request.get_tensor("sentence_embedding").data, strict=True):
                found[i] = vector.copy()

        queue.set_callback(keep)
        for batch in batches:
            queue.start_async(self._given([texts[i] for i in batch]), batch)
        queue.wait_all()
        return np.stack(found)

    def _for(self, hint: str) -> Any:
        if hint not in self._compiled:
            options = self._options | {"PERFORMANCE_HINT": hint}
            self._compiled[hint] = self._openvino.Core().compile_model(self._path, "CPU", options)
        return self._compiled[hint]

    def _given(self, texts: Sequence[str]) -> dict[str, Any]:
        """Inputs (B, T)."""
        encodings = self._tokenizer.encode_batch(texts)
        given = {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
            "token_type_ids": np.array([e.type_ids for e in encodings], np.int64),
        }
        return {name: values for name, values in given.items() if name in self._inputs}
