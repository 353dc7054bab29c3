"""optimum-intel's `generate()` over OpenVINO. It wants an older transformers, and so an environment of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headway.bench.peers.base import interpreter_of
from headway.bench.writers.base import told
from headway.bench.writers.optimum_onnx import Optimum

PRECISIONS = ("fp32",)
EXACT = ("fp32",)

ENVIRONMENT = "HEADWAY_OPTIMUM_INTEL_PYTHON"
"""environment variable: the Python that has optimum-intel[openvino] and msgspec; unset: this one"""


def interpreter() -> str:
    return interpreter_of(ENVIRONMENT)


def prepared(checkpoint: Path, precision: str, folder: Path) -> None:
    """Its own export; it would make weights of large models int8 unless told otherwise."""
    options: dict[str, Any] = {"export": True, "compile": False, "load_in_8bit": False}
    _kind(checkpoint).from_pretrained(checkpoint, **options).save_pretrained(folder)


def open_subject(checkpoint: Path, precision: str, folder: Path, threads: int) -> Optimum:
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return Optimum(_kind(checkpoint).from_pretrained(folder, ov_config=settings), checkpoint, threads)


def _kind(checkpoint: Path) -> Any:
    from optimum.intel import OVModelForCausalLM, OVModelForSeq2SeqLM

    return OVModelForSeq2SeqLM if told(checkpoint)["is_encoder_decoder"] else OVModelForCausalLM
