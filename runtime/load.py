"""Open a bundle: verify it, choose precision and engine, put the four steps together."""

from __future__ import annotations

import os
from pathlib import Path

from headway.core import hardware, manifest
from headway.core.errors import UnavailableError, UsageError
from headway.core.threads import budget as thread_budget
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.pipeline import Pipeline
from headway.runtime.plan import BATCH_TOKENS
from headway.runtime.tasks import load_decoder
from headway.runtime.tokenize import Tokenizer

TOKENIZER = "tokenizer.json"


def load(
    bundle: str | Path,
    *,
    device: str = "cpu",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Pipeline:
    """Open a bundle for prediction.

    Args:
        bundle: the folder that `headway export` wrote.
        device: where to run; the device asked for is the device used.
        backend: name of an engine, or "auto": the first that runs on the device.
        precision: name of a variant, or "auto": int8 where the bundle has it and 8-bit products are fast, else fp32.
        threads: for tokenizer, engine and kernels together; None: all that affinity and cgroup leave.
        batch_tokens: padded tokens in a batch, at most (one text may be longer).
    Raises:
        BundleError: missing, damaged, tampered with, or of an unknown format.
        UsageError: an unknown precision, backend, or number.
        UnavailableError: no engine for the device, or the engine is not installed.
    """
    folder = Path(bundle)
    if batch_tokens < 1:
        raise UsageError("--batch-tokens", f"must be at least 1, not {batch_tokens}")
    budget = thread_budget(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(budget))  # the tokenizer's pool, made at its first batch
    declared = manifest.Bundle.read(folder)
    chosen = _precision(declared, precision)
    graph = declared.variants[chosen].graphs["model"]
    declared.verify(
        folder, [TOKENIZER, *(n for n in declared.files if n.startswith(f"{Path(graph).parent}/"))]
    )
    return Pipeline(
        declared,
        chosen,
        Tokenizer(folder / TOKENIZER, declared.max_length),
        load_engine(_backend(backend, device)).open_graph(folder / graph, declared, device, budget),
        load_decoder(declared.task),
        batch_tokens,
    )


def _precision(declared: manifest.Bundle, wanted: str) -> str:
    if wanted == "auto":
        fast = "int8" if hardware.has_fast_int8(hardware.cpu_flags()) else "fp32"
        return fast if fast in declared.variants else next(iter(declared.variants))
    if wanted not in declared.variants:
        raise UsageError(
            "--precision", f"the bundle has no '{wanted}'; it has {', '.join(declared.variants)}"
        )
    return wanted


def _backend(wanted: str, device: str) -> str:
    able = engines_for(device)
    if not able:
        raise UnavailableError(f"device '{device}'", "no engine of this version runs on it; use --device cpu")
    if wanted == "auto":
        return able[0]
    load_engine(wanted)
    if wanted not in able:
        raise UsageError("--backend", f"'{wanted}' does not run on '{device}'; {', '.join(able)} would")
    return wanted
