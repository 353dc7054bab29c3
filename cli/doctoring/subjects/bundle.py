"""A bundle: whether it is whole, which variants open here on which engine, and what speed to expect of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from headway.cli.doctoring import builds
from headway.cli.doctoring.base import Finding, prevents
from headway.cli.doctoring.environment import Environment
from headway.cli.doctoring.subjects import memory
from headway.cli.doctoring.subjects.processor import HALF
from headway.core import hardware
from headway.core.errors import BundleError, HeadwayError, UnavailableError, UsageError

if TYPE_CHECKING:
    from headway.core.manifest import Bundle, Variant

ROOM = 2
"""times a variant's bytes that opening it may take"""
BASE = "fp32"


def findings(environment: Environment) -> Iterator[Finding]:
    folder = environment.bundle
    if folder is None:
        return
    from headway.core.manifest import Bundle

    try:
        declared = Bundle.read(folder)
        declared.verify(folder)
    except BundleError as error:
        yield Finding(
            "bundle",
            error.problem,
            f"headway export CHECKPOINT --output {quote(str(folder))} --overwrite",
            error,
        )
        return
    yield Finding("bundle", f"{declared.task}, {len(declared.files)} files, all as declared")
    if environment.kernels.problem:
        return  # told already
    runs = 0
    for name, variant in declared.variants.items():
        for finding, can in _variant(environment, folder, declared, name, variant):
            runs += can
            yield finding
        yield from _speed(environment, declared, name, variant)
    if not runs:
        yield prevents(
            "bundle",
            "no variant runs here",
            "pip install 'headway[cpu]'; or headway export CHECKPOINT --output BUNDLE --target cpu",
            "an engine for this bundle",
        )


def _variant(
    environment: Environment, folder: Path, declared: Bundle, name: str, variant: Variant
) -> Iterator[tuple[Finding, bool]]:
    """Open it on every engine; beside each finding whether it runs."""
    size = sum(file.bytes for path, file in declared.files.items() if path.startswith(f"{name}/"))
    if variant.target != "cpu":
        yield (
            Finding(f"bundle {name}", f"is made for {variant.target}: --device cuda runs it"),
            False,
        )
        return
    free = memory.free(environment)
    if free is not None and ROOM * size > free:
        state = f"{size / 1e9:.1f} GB, which may not fit in {free / 1e9:.1f} GB of free memory"
        yield (
            Finding(f"bundle {name}", state, "give it more memory, or headway export … --precision int8"),
            False,
        )
        return
    able, unable = [], dict[str, HeadwayError]()
    for engine in _engines(environment):
        error = _opened(environment, folder, name, engine)
        if error is None:
            able.append(engine)
        elif not isinstance(error, UsageError):  # that engine is not for such models
            unable[engine] = error
    for engine, error in unable.items():
        remedy = (
            error.remedy if isinstance(error, UnavailableError) else f"use another --backend than {engine}"
        )
        what = error.what.rstrip(",") if isinstance(error, UnavailableError) else str(error)
        yield Finding(f"bundle {name}", f"does not run on {engine}: {what}", "" if able else remedy), False
    if able:
        yield Finding(f"bundle {name}", f"runs on {' and '.join(able)}"), True


def _engines(environment: Environment) -> list[str]:
    there = {"onnxruntime": bool(builds.of(environment)), "openvino": "openvino" in environment.installed}
    return [name for name, installed in there.items() if installed]


def _opened(environment: Environment, folder: Path, precision: str, engine: str) -> HeadwayError | None:
    """What opening it came to; None: it opens."""
    from headway.runtime import load

    try:
        load(folder, precision=precision, backend=engine, threads=environment.budget)
    except HeadwayError as error:
        return error
    return None


def _speed(environment: Environment, declared: Bundle, name: str, variant: Variant) -> Iterator[Finding]:
    """Why a variant would be no faster than fp32 here."""
    flags = hardware.cpu_flags(environment.proc / "cpuinfo")
    reasons = list(_reasons(declared, variant, flags))
    if reasons and variant.target == "cpu":
        at = quote(str(environment.bundle))
        by_layer = f"headway inspect {at} --layers --precision {name}"
        whole = f"headway bench {at} --output figures"
        yield Finding(
            f"bundle {name}",
            f"may be no faster than fp32 here, or slower: {'; '.join(reasons)}",
            by_layer if "model" in declared.graphs else whole,
        )


def _reasons(declared: Bundle, variant: Variant, flags: frozenset[str]) -> Iterator[str]:
    kind = variant.precision
    if kind in ("int8", "int8-static") and flags and not hardware.has_fast_int8(flags):
        yield "without VNNI or AMX 8-bit products take several instructions, and rounding activations comes on top"
    if kind in ("int8-weights", "int4-weights") and "decoder" not in declared.graphs:
        yield "its weights are unpacked for each product, which pays where reading them takes the time: in decoders"
    if kind == "fp16" and flags and not flags & HALF:
        yield "this processor has no 16-bit products, so that it is computed in fp32 between casts"
    base = declared.variants.get(BASE)
    if base is not None and base.tokens_per_second and variant.tokens_per_second:
        ratio = variant.tokens_per_second / base.tokens_per_second
        if ratio < 1:
            yield f"it ran at {ratio:.2f} times fp32's speed where it was exported"
    if kind != BASE and variant.kept:
        yield f"{len(variant.kept)} layers were left in fp32 for quality"
