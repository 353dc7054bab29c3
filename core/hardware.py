"""What this machine's processor and memory are, as the operating system tells it."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Instruction sets by Linux's names ("avx2", "avx512_vnni", "amx_bf16"); empty where Linux does not tell."""
    return frozenset(_first(cpuinfo, "flags").split())


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    return _first(cpuinfo, "model name") or platform.processor() or platform.machine()


def has_fast_int8(flags: frozenset[str]) -> bool:
    """True where 8-bit dot products are one instruction (VNNI or AMX)."""
    return bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"})


def has_fast_bf16(flags: frozenset[str]) -> bool:
    """True where bfloat16 products are one instruction."""
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def _first(cpuinfo: Path, key: str) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
