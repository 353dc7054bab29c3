"""CPU features: what Linux itself reports about this CPU."""

from pathlib import Path

import pytest

from headway.cpp_ext import cpu_features

CPUINFO = Path("/proc/cpuinfo")


def test_names() -> None:
    assert set(cpu_features()) == {
        "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
        "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
    }  # fmt: skip


@pytest.mark.skipif(not CPUINFO.exists(), reason="only Linux has /proc/cpuinfo")
def test_linux_reports_the_same() -> None:
    flags = set(CPUINFO.read_text().split())
    assert cpu_features() == {name: name in flags for name in cpu_features()}
