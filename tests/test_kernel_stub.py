"""The golden stub: what type checkers read is what the extension offers."""

import subprocess
import sys
from pathlib import Path

import headway.cpp_ext
from headway.cpp_ext import _native


def test_stub_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "_native.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", _native.__name__, "-o", str(fresh)]
    subprocess.run(command, check=True, capture_output=True)
    golden = Path(headway.cpp_ext.__file__).with_name("_native.pyi")
    assert fresh.read_text() == golden.read_text(), f"run: {' '.join(command[:-1])} cpp_ext/_native.pyi"


def test_every_function_is_exported() -> None:
    assert set(headway.cpp_ext.__all__) == {name for name in dir(_native) if not name.startswith("_")}
