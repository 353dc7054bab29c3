"""Open a bundle: verify it, choose precision and engine, put the four steps together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec

from headway.core import hub, manifest, tasks
from headway.core.errors import BundleError, UnavailableError, UsageError
from headway.core.tasks import EncoderTask, Spec, Task
from headway.core.threads import budget as thread_budget
from headway.runtime import choice, tuned
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.cache import Cache
from headway.runtime.choice import Choice
from headway.runtime.devices import places
from headway.runtime.generation.base import Writer
from headway.runtime.generation.pipeline import GenerationPipeline
from headway.runtime.pipeline import EncoderPipeline, Following, Opening, Pipeline
from headway.runtime.plan import BATCH_TOKENS
from headway.runtime.replicas import Replicas
from headway.runtime.shapes import TOKENS
from headway.runtime.tokenize import open_tokenizer

TOKENIZER = "tokenizer.json"
WRITERS = {"onnxruntime": "engine", "onnxruntime-cuda": "gpu.onnxruntime", "tensorrt": "gpu.tensorrt"}
"""engines of models that write, each with its file in `runtime/generation/`"""


def load(
    bundle: str | Path,
    *,
    device: str | Sequence[str] = "cpu",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    batch_tokens: int | None = None,
    buckets: int | None = None,
    cache: int = 0,
) -> Pipeline:
    """Open a bundle for prediction.

    Args:
        bundle: the folder that `headway export` wrote, or owner/name@commit on the hub, as `headway push` prints it.
        device: where to run: "cpu", "cuda", or "cuda:1"; the device asked for is the device used. Several GPUs: each
            has a replica, and batches go to whichever is idle.
        backend: name of an engine, or "auto": see `precision`.
        precision: name of a variant, or "auto": the fastest variant and engine here. That is measured at the first
            call and remembered in the user's cache folder. With HEADWAY_CACHE=off in the environment, and for models
            that write, it is int8 where the bundle has it and 8-bit products are fast, else fp32, on the first engine.
            Where `headway tune` has left a plan for this machine beside the bundle, that is followed: here on all
            threads, and by a `Front` in as many workers as the plan has.
        threads: for tokenizer, engine and kernels together; None: all that affinity and cgroup leave.
        batch_tokens: padded tokens in a batch, at most (one text may be longer); None: the plan's, or 512, and 16,384 on
            GPUs.
        buckets: lengths from one power of two to the next that an engine pads to if it is slow to see new ones; None:
            the plan's, or the engine's own choice.
        cache: inputs whose answers are kept, those last used; a model that writes keeps what it has read of so many
            sources, and of prompts that begin alike, on the processor.
    Raises:
        BundleError: missing, damaged, tampered with, or of an unknown format.
        UsageError: an unknown precision, backend, or number.
        UnavailableError: no engine for the device, or the engine is not installed; the hub cannot be reached.
    """
    options: dict[str, Any] = {
        "device": device if isinstance(device, str) else list(device),
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "batch_tokens": batch_tokens,
        "buckets": buckets,
        "cache": cache,
    }
    folder = hub.located(bundle)
    if batch_tokens is not None and batch_tokens < 1:
        raise UsageError("--batch-tokens", f"must be at least 1, not {batch_tokens}")
    if buckets is not None and buckets < 1:
        raise UsageError("buckets", f"must be at least 1, not {buckets}")
    budget = thread_budget(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(budget))  # the tokenizer's pool, made at its first batch
    declared = manifest.Bundle.read(folder)
    declared.verify(folder, [TOKENIZER])
    devices, plan = places(device), None
    if (devices, backend, precision) == (["cpu"], "auto", "auto"):
        plan = tuned.read(folder, declared.seal, budget)
    if plan is not None:
        precision, backend = plan.precision, plan.backend
        batch_tokens = batch_tokens or plan.batch_tokens
        buckets = buckets or plan.buckets
    batch_tokens = batch_tokens or (BATCH_TOKENS if devices == ["cpu"] else TOKENS)

    def worker() -> Pipeline:
        assert plan is not None
        return load(
            folder, backend=backend, precision=precision, threads=plan.threads, batch_tokens=batch_tokens,
            buckets=buckets, cache=cache,
        )  # fmt: skip

    def opened_alike(pipe: Pipeline, engine: str) -> Pipeline:
        if plan is None:  # else the copy follows the plan, too
            options.update(precision=pipe.precision, backend=engine)
        place = os.path.abspath(bundle) if folder == Path(bundle) else str(bundle)
        pipe.opening = Opening(load, place, options, declared.seal)
        return pipe

    following = None if plan is None else Following(plan, worker)
    engines, precisions = _engines(backend, devices[0]), _precisions(declared, precision)
    task, tokenizer = tasks.load(declared.task), open_tokenizer(folder / TOKENIZER)
    among = choice.candidates(declared, precisions, engines, devices[0])
    if "decoder" in declared.graphs:
        if len(devices) > 1:
            raise UnavailableError(
                "a model that writes on several GPUs", "load it once for each, by --device cuda:N"
            )
        if not (able := [choice for choice in among if choice.engine in WRITERS]):
            named = ", ".join(name for name in WRITERS if name in engines_for(devices[0]))
            raise UsageError("--backend", f"'{backend}' does not run models that write; '{named}' does")
        chosen, engine = able[0]
        graphs = choice.Opener(folder, declared, (), devices[0], budget).verified(chosen)
        opened = open_writer(engine, folder, declared, graphs, devices[0], budget, cache)
        spec = _spec(folder, task, declared, chosen, tokenizer)
        pipe = GenerationPipeline(declared, chosen, task, spec, tokenizer, opened, batch_tokens, following)
        return opened_alike(pipe, engine)
    encoder = cast(EncoderTask, task)
    opener = choice.Opener(folder, declared, encoder.READ, devices[0], budget, buckets or 0)
    (chosen, engine), model = choice.choose(among, opener)
    if len(devices) > 1:
        others = [replace(opener, device=other).open(Choice(chosen, engine)) for other in devices[1:]]
        model = Replicas([model, *others])
    spec = _spec(folder, task, declared, chosen, tokenizer)
    kept = Cache(cache) if cache else None
    made = EncoderPipeline(
        declared, chosen, encoder, spec, tokenizer, model, batch_tokens, kept, engine, following
    )
    return opened_alike(made, engine)


def open_writer(
    engine: str,
    folder: Path,
    declared: manifest.Bundle,
    graphs: Mapping[str, Path],
    device: str,
    threads: int = 1,
    cache: int = 0,
) -> Writer:
    """A model that writes, by one of WRITERS. Raises BundleError or UnavailableError."""
    module = import_module(f"headway.runtime.generation.{WRITERS[engine]}")
    return cast(Writer, module.open_writer(folder, declared, graphs, device, threads, cache))


def _spec(folder: Path, task: Task, declared: manifest.Bundle, variant: str, tokenizer: Any) -> Spec:
    try:
        found = tasks.spec(task, declared, declared.variants[variant].settings)
    except msgspec.ValidationError as error:
        raise BundleError(folder, f"its settings are malformed: {error}") from error
    if (problem := tasks.unknown_token(task, found.settings, tokenizer)) is not None:
        raise BundleError(folder, problem)
    return found


def _precisions(declared: manifest.Bundle, wanted: str) -> list[str]:
    if wanted == "auto":
        return list(declared.variants)
    if wanted not in declared.variants:
        raise UsageError(
            "--precision", f"the bundle has no '{wanted}'; it has {', '.join(declared.variants)}"
        )
    return [wanted]


def _engines(wanted: str, device: str) -> list[str]:
    able = engines_for(device)
    if not able:
        raise UnavailableError(f"device '{device}'", "no engine of this version runs on it; use --device cpu")
    if wanted == "auto":
        return able
    load_engine(wanted)
    if wanted not in able:
        raise UsageError("--backend", f"'{wanted}' does not run on '{device}'; {', '.join(able)} would")
    return [wanted]
