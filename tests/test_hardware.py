"""What /proc/cpuinfo tells, on made-up processors."""

from pathlib import Path

import pytest

from headway.core import hardware
from headway.cpp_ext import cpu_features

CPUINFO = """processor\t: 0
model name\t: Made Up 9000 @ 3.0GHz: fast
flags\t\t: fpu avx2 avx512_vnni
bugs\t\t: none

processor\t: 1
model name\t: Another
flags\t\t: fpu amx_bf16
"""


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    return tmp_path / "cpuinfo"


def test_flags_and_name_of_the_first_processor(cpuinfo: Path) -> None:
    assert hardware.cpu_flags(cpuinfo) == {"fpu", "avx2", "avx512_vnni"}
    assert hardware.cpu_name(cpuinfo) == "Made Up 9000 @ 3.0GHz: fast"


def test_where_linux_does_not_tell(tmp_path: Path) -> None:
    assert hardware.cpu_flags(tmp_path / "none") == frozenset()
    assert hardware.cpu_name(tmp_path / "none") != ""


def test_without_flags(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor: 0\nFeatures: fp asimd\n")
    assert hardware.cpu_flags(tmp_path / "cpuinfo") == frozenset()


@pytest.mark.parametrize(
    ("flags", "int8", "bf16"),
    [
        ({"avx2"}, False, False),
        ({"avx_vnni"}, True, False),
        ({"avx512_vnni"}, True, False),
        ({"amx_int8"}, True, False),
        ({"avx512_bf16"}, False, True),
        ({"amx_bf16", "avx512_vnni"}, True, True),
    ],
)
def test_fast_products(flags: set[str], int8: bool, bf16: bool) -> None:
    assert hardware.has_fast_int8(frozenset(flags)) == int8
    assert hardware.has_fast_bf16(frozenset(flags)) == bf16


def test_this_machine_agrees_with_the_kernels() -> None:
    flags = hardware.cpu_flags()
    if flags:
        assert {name for name, there in cpu_features().items() if there} <= flags
