"""optimum-onnx's `generate()` over ONNX Runtime. It wants an older transformers, and so an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.bench.peers import optimum_onnx
from headway.bench.writers.base import Found, Ids, Wish, Write, told
from headway.bench.writers.generate import Generating

PRECISIONS = ("fp32",)
EXACT = ("fp32",)

interpreter = optimum_onnx.interpreter


def prepared(checkpoint: Path, precision: str, folder: Path) -> None:
    """Its own export."""
    _kind(checkpoint).from_pretrained(checkpoint, export=True).save_pretrained(folder)


def open_subject(checkpoint: Path, precision: str, folder: Path, threads: int) -> Optimum:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return Optimum(_kind(checkpoint).from_pretrained(folder, session_options=options), checkpoint, threads)


def _kind(checkpoint: Path) -> Any:
    from optimum.onnxruntime import ORTModelForCausalLM, ORTModelForSeq2SeqLM

    return ORTModelForSeq2SeqLM if told(checkpoint)["is_encoder_decoder"] else ORTModelForCausalLM


class Optimum(Generating):
    """With one thread of PyTorch, which then does not fight the engine's for the processors, and with all."""

    def __init__(self, model: Any, checkpoint: Path, threads: int) -> None:
        super().__init__(model, checkpoint)
        self._counts = dict.fromkeys((1, threads))

    def ways(self, wish: Wish, scored: bool) -> Mapping[str, Write]:
        return {
            f"{name}, {count} of PyTorch's threads": _with_threads(count, write)
            for name, write in super().ways(wish, scored).items()
            for count in self._counts
        }


def _with_threads(count: int, write: Write) -> Write:
    def run(sources: Ids) -> Found:
        import torch

        torch.set_num_threads(count)
        return write(sources)

    return run
