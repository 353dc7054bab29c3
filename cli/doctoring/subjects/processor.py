"""The processor's instruction sets, and what they mean for precisions."""

from __future__ import annotations

from collections.abc import Iterator

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment, describe_python
from headway.core import hardware

FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "AMX": ("amx_tile",),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16"),
}
"""what people call it, and Linux's names of it: any of them"""
HALF = frozenset(FEATURES["fp16"])
MEASURE = "headway bench BUNDLE --output figures"


def findings(environment: Environment) -> Iterator[Finding]:
    cpuinfo = environment.proc / "cpuinfo"
    flags = hardware.cpu_flags(cpuinfo)
    have = [name for name, any_of in FEATURES.items() if flags & set(any_of)]
    lack = [name for name in FEATURES if name not in have]
    yield Finding("python", describe_python())
    if not flags:
        yield Finding("processor", f"{hardware.cpu_name(cpuinfo)}; what it can do is not told here", MEASURE)
        return
    lacking = f", without {', '.join(lack)}" if lack else ""
    yield Finding(
        "processor", f"{hardware.cpu_name(cpuinfo)}: {', '.join(have) or 'nothing special'}{lacking}"
    )
    yield from _precisions(flags)


def _precisions(flags: frozenset[str]) -> Iterator[Finding]:
    if "avx2" not in flags:
        yield Finding(
            "fp32", "slow: there is no AVX2, by which every engine computes", "run on a processor with AVX2"
        )
    if hardware.has_fast_int8(flags):
        by = "AMX" if "amx_int8" in flags else "VNNI"
        yield Finding("int8", f"fast: 8-bit products are one instruction ({by})")
    else:
        yield Finding(
            "int8",
            "little or no faster than fp32: neither VNNI nor AMX, so 8-bit products take several instructions, "
            "and rounding activations comes on top",
            MEASURE,
        )
    if hardware.has_fast_bf16(flags):
        yield Finding(
            "bf16",
            "fast: training computes in bf16 products, and OpenVINO does in variants of --precision bf16",
        )
    else:
        yield Finding("bf16", "no instruction for it: training computes in fp32")
    if not flags & HALF:
        yield Finding("fp16", "saves room, not time: without 16-bit products it is computed in fp32")
