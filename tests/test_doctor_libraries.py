"""Reading shared libraries, and finding what they need as the loader would."""

from pathlib import Path

import pytest

from headway.cli.doctoring import elf, libraries
from headway.cli.doctoring.distributions import Distribution
from headway.cli.doctoring.loader import Loader, Resolution, cached
from headway.cpp_ext import _native
from tests.environments import Machine, library, linker_cache


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_real_library() -> None:
    """The compiled extension, which a C++ compiler linked."""
    found = elf.read(Path(_native.__file__))
    assert {"libstdc++.so.6", "libc.so.6"} <= set(found.needed)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(library(["libb.so.1", "libc.so.6"], runpath="$ORIGIN:/opt/x"))
    found = elf.read(tmp_path / "a.so")
    assert (found.needed, found.rpath, found.runpath) == (
        ("libb.so.1", "libc.so.6"),
        (),
        ("$ORIGIN", "/opt/x"),
    )


def test_rpath_counts_only_without_runpath(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(library(rpath="/a"))
    (tmp_path / "b.so").write_bytes(library(rpath="/a", runpath="/b"))
    assert [elf.read(tmp_path / n).rpath for n in ("a.so", "b.so")] == [("/a",), ()]


@pytest.mark.parametrize("length", [0, 3, 40, 64, 130, -1, -17])
def test_a_library_that_is_cut_short(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.so").write_bytes(library(["libb.so.1"])[:length])
    with pytest.raises(ValueError, match="shared library"):
        elf.read(tmp_path / "a.so")


def test_what_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 9)
    for name in ("a.so", "none.so"):
        with pytest.raises(ValueError, match="shared library"):
            elf.read(tmp_path / name)


def test_the_cache_of_the_loader(machine: Machine) -> None:
    place = machine.library("opt/libx.so.1")
    content = linker_cache({"libx.so.1": str(place), "libgone.so.1": "/nonexistent/libgone.so.1"})
    assert dict(cached(content))["libx.so.1"] == place
    (machine.folder / "ld.so.cache").write_bytes(content)
    opened = Loader(machine.environment())
    assert opened.find("libx.so.1") == place
    assert opened.find("libgone.so.1") is None


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", linker_cache({"a": "/b"})[:-3], linker_cache({"a": "/b"})[:50]]
)
def test_a_damaged_cache_is_none(machine: Machine, content: bytes) -> None:
    (machine.folder / "ld.so.cache").write_bytes(content)
    assert Loader(machine.environment()).find("a") is None


def test_the_order_of_the_search(machine: Machine) -> None:
    """Each place hides those before it here."""
    root = machine.folder
    machine.variables["LD_LIBRARY_PATH"] = str(root / "given")
    python = machine.library("bin/python3", rpath="$ORIGIN/own")
    (root / "ld.so.cache").write_bytes(linker_cache({"libx.so": str(root / "cached" / "libx.so")}))
    order = ["site/nvidia/x/lib", "lib", "cached", "run", "given", "bin/own", "r", "loaded"]
    for folder in order:
        machine.library(f"{folder}/libx.so")
        paths = {"rpath": str(root / "r")} if folder == "r" else {"runpath": str(root / "run")}
        file = machine.library("main.so", ["libx.so"], **paths)
        if folder == "loaded":
            (machine.proc / "self" / "maps").write_text(
                f"00-10 r-xp 00 00:01 9    {root}/loaded/libx.so\n00-10 rw-p 00 00:00 0\n"
            )
        found = Loader(machine.environment(interpreter=python)).resolve(file)
        assert {**found.found, **found.preloaded} == {"libx.so": root / folder / "libx.so"}
        assert bool(found.preloaded) == (folder == order[0])


def test_what_libraries_need_is_needed_too(machine: Machine) -> None:
    file = machine.library("main/a.so", ["libb.so"], runpath="$ORIGIN")
    machine.library("main/libb.so", ["libc.so", "libd.so", "libb.so"], runpath="$ORIGIN/more")
    machine.library("main/more/libc.so", ["libe.so"])
    found = Loader(machine.environment()).resolve(file)
    assert set(found.found) == {"libb.so", "libc.so"}
    assert found.missing == ["libd.so", "libe.so"]


def test_runpath_is_for_own_needs_alone_and_rpath_for_all(machine: Machine) -> None:
    for name, paths, missing in (
        ("run", {"runpath": "$ORIGIN:${ORIGIN}/deep"}, ["libdeep.so"]),
        ("r", {"rpath": "$ORIGIN:${ORIGIN}/deep"}, []),
    ):
        file = machine.library(f"{name}/a.so", ["libb.so"], **paths)
        machine.library(f"{name}/libb.so", ["libdeep.so"])
        machine.library(f"{name}/deep/libdeep.so")
        assert Loader(machine.environment()).resolve(file).missing == missing


def test_a_damaged_library_is_told(machine: Machine) -> None:
    file = machine.library("a.so")
    file.write_bytes(file.read_bytes()[:70])
    found = Loader(machine.environment()).resolve(file)
    assert found.broken == [file]
    build = Distribution("some-build", "1.2", machine.site / "none")
    assert libraries.state(Loader(machine.environment()), found) == "damaged: a.so"
    assert libraries.remedy(build, found) == "pip install --force-reinstall --no-deps some-build==1.2"


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ([], ""),
        (["libcuda.so.1"], libraries.DRIVER_REMEDY),
        (["libcublas.so.12", "libcublasLt.so.12"], "pip install 'nvidia-cublas-cu12==12.*'"),
        (["libcudart.so.13", "libcufft.so.12"], "pip install 'nvidia-cuda-runtime==13.*' 'nvidia-cufft==12.*'"),
        (["libcudart.so.13", "libcudnn.so.9"], "pip install 'nvidia-cuda-runtime==13.*' 'nvidia-cudnn-cu13==9.*'"),
        (["libcudart.so.12", "libcudnn.so.9"], "pip install 'nvidia-cuda-runtime-cu12==12.*' 'nvidia-cudnn-cu12==9.*'"),
        (["libcudart.so.13", "libnvinfer.so.10"], "pip install 'nvidia-cuda-runtime==13.*'; in an environment of its own: pip install 'tensorrt-cu13==10.*'"),
        (["libodd.so.3"], "find / -name 'libodd.so.3*' and add its folder to LD_LIBRARY_PATH, or install what brings libodd.so.3"),
    ],
)  # fmt: skip
def test_remedies_for_missing_libraries(machine: Machine, missing: list[str], remedy: str) -> None:
    build = Distribution("a-build", "1", machine.package("a-build", "1"))
    assert libraries.remedy(build, Resolution(missing=missing)) == remedy


def test_a_build_with_extras_brings_its_libraries_itself(machine: Machine) -> None:
    build = Distribution(
        "onnxruntime-gpu", "1.31.1", machine.package("onnxruntime-gpu", "1.31.1", extras=["cuda", "cudnn"])
    )
    missing = ["libcublas.so.13", "libcudnn.so.9", "libcuda.so.1"]
    assert libraries.remedy(build, Resolution(missing=missing)) == (
        f"{libraries.DRIVER_REMEDY}; pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"
    )
