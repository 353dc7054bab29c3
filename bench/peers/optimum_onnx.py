"""optimum-onnx on the bundle's fp32 graph. It wants an older transformers, and so an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headway.bench.peers.base import Setting, Wanted, graph, in_batches, interpreter_of, require_there

TASKS = ("sentence-embedding",)
NEEDS_CHECKPOINT = False

ENVIRONMENT = "HEADWAY_OPTIMUM_PYTHON"
"""environment variable: the Python that has optimum-onnx[onnxruntime] and msgspec; unset: this one"""


def precisions(model: Path) -> list[str]:
    packages = "'optimum-onnx[onnxruntime]' msgspec"
    require_there(("msgspec", "optimum.onnxruntime"), "optimum-onnx", packages, ENVIRONMENT)
    graph(model)
    return ["fp32"]


def interpreter() -> str:
    return interpreter_of(ENVIRONMENT)


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Optimum:
    import onnxruntime
    import torch
    import transformers
    from optimum.onnxruntime import ORTModelForCustomTasks
    from tokenizers import Tokenizer

    torch.set_num_threads(wanted.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = wanted.threads
    options.log_severity_level = 3
    opened = ORTModelForCustomTasks.from_pretrained(graph(model).parent, session_options=options)
    raw = Tokenizer.from_file(str(model / "tokenizer.json"))
    names = [tensor.name for tensor in opened.model.get_inputs()]
    fast: Any = transformers.PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=raw, pad_token=raw.id_to_token(wanted.pad_id), model_input_names=names)
    return Optimum(opened, tokenizer, wanted.max_length)


class Optimum:
    SETTINGS: Sequence[Setting] = tuple(
        {"batch_size": size, "by_length": by_length} for size in (1, 8, 32) for by_length in (False, True)
    )

    def __init__(self, opened: Any, tokenizer: Any, max_length: int) -> None:
        self._opened, self._tokenizer, self._max_length = opened, tokenizer, max_length

    def one(self, text: str) -> Any:
        return self._batch([text])[0]

    def many(self, texts: Sequence[str], **setting: Any) -> Any:
        return in_batches(texts, self._batch, **setting)

    def _batch(self, texts: Sequence[str]) -> Any:
        """Vectors (B, D)."""
        given = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="np"
        )
        return self._opened(**given)["sentence_embedding"]
