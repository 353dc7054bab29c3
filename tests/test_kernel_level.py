"""Levels: which there are, how one is chosen, what is refused."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headway.cpp_ext import cpu_features, level, levels, set_level


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = level()
    yield
    set_level(before)


def imported_with(name: str) -> subprocess.CompletedProcess[str]:
    code = "from headway.cpp_ext import level; print(level())"
    env = os.environ | {"HEADWAY_SIMD": name}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_levels_follow_the_cpu() -> None:
    cpu = cpu_features()
    avx2 = cpu["avx2"] and cpu["fma"]
    avx512 = avx2 and all(cpu[f"avx512{part}"] for part in ("f", "bw", "dq", "vl"))
    assert levels() == ["scalar"] + ["avx2"] * avx2 + ["avx512"] * avx512


def test_every_level_can_be_set() -> None:
    for name in levels():
        set_level(name)
        assert level() == name


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match='set_level names "mmx", but this build on this CPU has: scalar'):
        set_level("mmx")


def test_environment_chooses() -> None:
    for name in levels():
        assert imported_with(name).stdout.strip() == name
    assert imported_with("").stdout.strip() == levels()[-1]


def test_wrong_environment_fails_the_import() -> None:
    result = imported_with("mmx")
    assert result.returncode != 0
    assert 'ImportError: HEADWAY_SIMD names "mmx", but this build on this CPU has: scalar' in result.stderr
