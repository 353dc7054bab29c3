"""What the doctor says of made-up drivers, CUDA libraries, and packages made for other ones."""

from pathlib import Path

import pytest

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.libraries import DRIVER_REMEDY
from headway.cli.doctoring.subjects import cuda, onnxruntime
from tests.environments import Machine
from tests.environments import onnxruntime as build

NEEDED = ("libcublasLt.so.13", "libcudart.so.13", "libcuda.so.1")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def told(subject: object, machine: Machine) -> list[Finding]:
    return list(subject.findings(machine.environment()))  # type: ignore[attr-defined]


def advice(machine: Machine) -> list[Finding]:
    return [f for f in told(cuda, machine) if f.remedy]


def gpu_build(machine: Machine, major: int = 13) -> None:
    """onnxruntime-gpu for a CUDA."""
    needed = [name.replace(".13", f".{major}") for name in NEEDED]
    files = build("onnxruntime-gpu", {"cuda": needed, "tensorrt": ["libnvinfer.so.10"]}, f"{major}.0")
    machine.package("onnxruntime-gpu", "1.31.1", files, extras=["cuda", "cudnn"])


def provider(machine: Machine, name: str) -> Finding:
    (found,) = [f for f in told(onnxruntime, machine) if f.subject == f"{name} provider"]
    return found


def torch(machine: Machine, made_for: str | None) -> None:
    said = f"__version__ = '2.13.0'\ncuda: str | None = {made_for!r}\n"
    machine.package("torch", "2.13.0", {"torch/version.py": said.encode()})


def test_a_machine_without_a_gpu(machine: Machine) -> None:
    assert told(cuda, machine) == [Finding("GPU", "no NVIDIA driver")]
    gpu_build(machine)
    assert [f.remedy for f in advice(machine)] == [DRIVER_REMEDY]


def test_a_machine_where_all_fits(machine: Machine) -> None:
    machine.driver("580.65.06", gpus=2)
    gpu_build(machine)
    torch(machine, "13.0")
    machine.package("nvidia-cudnn-cu13", "9.14.0")
    machine.package("tensorrt-cu13", "11.4.0")
    machine.package("tensorrt-cu13-libs", "11.4.0")
    for name in (*NEEDED[:2], "libcudnn.so.9"):
        machine.library(f"lib/{name}")
    assert told(cuda, machine) == [
        Finding("GPU", "2 × NVIDIA Made Up, driver 580.65.06"),
        Finding(
            "CUDA",
            "libcudart.so.13, nvidia-cudnn-cu13 9.14.0, tensorrt-cu13 11.4.0, tensorrt-cu13-libs 11.4.0",
        ),
    ]
    assert provider(machine, "CUDA") == Finding("CUDA provider", "all libraries found")


def test_an_open_kernel_module(machine: Machine) -> None:
    machine.driver("580.65.06")
    (machine.proc / "driver" / "nvidia" / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n"
    )
    assert told(cuda, machine) == [Finding("GPU", "1 × NVIDIA Made Up, driver 580.65.06")]


def test_a_container_without_the_driver_s_library(machine: Machine) -> None:
    machine.driver("580.65.06")
    (machine.folder / "lib" / "libcuda.so.1").unlink()
    assert [f.remedy for f in advice(machine)] == ["docker run --gpus all …"]


def test_a_driver_that_was_updated_since_the_start(machine: Machine) -> None:
    machine.driver("580.65.06")
    machine.driver_library("590.10")
    (found,) = advice(machine)
    assert found.remedy == "sudo reboot"
    assert "580.65.06" in found.state
    assert "590.10" in found.state


def test_a_compatibility_package_makes_an_old_driver_do(machine: Machine) -> None:
    machine.driver("570.10.01")
    torch(machine, "13.0")
    assert [f.state.split()[0] for f in advice(machine)] == ["torch"]
    place = machine.library("compat/libcuda.so.580.65.06").parent
    (place / "libcuda.so.1").symlink_to("libcuda.so.580.65.06")
    machine.variables["LD_LIBRARY_PATH"] = str(place)
    assert told(cuda, machine) == [
        Finding("GPU", "1 × NVIDIA Made Up, driver 570.10.01, by a compatibility package as 580.65.06")
    ]


def test_a_library_that_does_not_tell_its_version(machine: Machine) -> None:
    machine.driver("580.65.06")
    (machine.folder / "lib" / "libcuda.so.1").unlink()
    machine.library("lib/libcuda.so.1")
    torch(machine, "13.0")
    assert advice(machine) == []


@pytest.mark.parametrize(
    ("driver", "for_", "instead"),
    [
        ("570.10.01", 13, "CUDA 12"),
        ("470.82.01", 12, "CUDA 11"),
        ("525.60.13", 12, None),
        ("580.65.06", 13, None),
    ],
)
def test_a_driver_that_is_too_old(machine: Machine, driver: str, for_: int, instead: str | None) -> None:
    machine.driver(driver)
    torch(machine, f"{for_}.0")
    machine.package(f"tensorrt-cu{for_}", "10.16.1")
    found = advice(machine)
    assert [f.state.split()[0] for f in found] == (["torch", "tensorrt"] if instead else [])
    assert all(f.remedy.endswith(str(instead)) for f in found)


def test_libraries_that_are_missing(machine: Machine) -> None:
    machine.driver("580.65.06")
    gpu_build(machine)
    found = provider(machine, "CUDA")
    assert found.state == "cannot load: libcublasLt.so.13, libcudart.so.13, libcudnn.so.9 not found"
    assert found.remedy == "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"


@pytest.mark.parametrize(("made_for", "here"), [(12, 13), (13, 12)])
def test_libraries_of_another_cuda(machine: Machine, made_for: int, here: int) -> None:
    machine.driver("580.65.06")
    gpu_build(machine, made_for)
    for name in ("libcublasLt", "libcudart"):
        machine.library(f"site/nvidia/cu{here}/lib/{name}.so.{here}")
    state = provider(machine, "CUDA").state
    assert f"libcublasLt.so.{made_for} (here is libcublasLt.so.{here})" in state
    assert f"libcudart.so.{made_for} (here is libcudart.so.{here})" in state


def test_libraries_in_packages_must_be_loaded_first(machine: Machine) -> None:
    machine.driver("580.65.06")
    gpu_build(machine)
    folder = machine.library("site/nvidia/cu13/lib/libcublasLt.so.13").parent
    machine.library("site/nvidia/cu13/lib/libcudart.so.13")
    cudnn = machine.library("site/nvidia/cudnn/lib/libcudnn.so.9").parent
    found = provider(machine, "CUDA")
    assert "preload_dlls() must come first" in found.state
    assert found.remedy == f"export LD_LIBRARY_PATH={folder}:{cudnn}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
    machine.variables["LD_LIBRARY_PATH"] = f"{folder}:{cudnn}"
    assert provider(machine, "CUDA").state == "all libraries found"


def test_a_tensorrt_that_onnxruntime_is_not_made_for(machine: Machine) -> None:
    machine.driver("580.65.06")
    gpu_build(machine)
    machine.library("site/tensorrt_libs/libnvinfer.so.11")
    found = provider(machine, "Tensorrt")
    assert found.state == "cannot load: libnvinfer.so.10 (here is libnvinfer.so.11) not found"
    assert "'tensorrt-cu13==10.*'" in found.remedy
    assert "an environment of its own" in found.remedy


def test_torch_and_onnxruntime_for_different_cudas(machine: Machine) -> None:
    machine.driver("580.65.06")
    gpu_build(machine)
    torch(machine, "12.8")
    (found,) = advice(machine)
    assert "torch is made for CUDA 12 and onnxruntime for CUDA 13" in found.state
    assert found.remedy == "pip install 'onnxruntime-gpu[cuda,cudnn]'"


def test_torch_for_processors_beside_a_gpu(machine: Machine) -> None:
    torch(machine, None)
    assert advice(machine) == []
    machine.driver("580.65.06")
    (found,) = advice(machine)
    assert "leaves the GPU idle" in found.state


@pytest.mark.parametrize(
    ("installed", "remedy"),
    [
        ({"tensorrt": "11.4.0", "tensorrt-cu13-libs": "11.3.0"}, "tensorrt-cu13==11.4.0"),
        ({"tensorrt-cu12": "10.16.1", "tensorrt-cu13": "10.16.1"}, "tensorrt-cu13==10.16.1"),
        ({"tensorrt-cu13": "11.4.0", "tensorrt-rtx": "1.7.1"}, None),
    ],
)
def test_parts_of_several_tensorrts(machine: Machine, installed: dict[str, str], remedy: str | None) -> None:
    for name, version in installed.items():
        machine.package(name, version)
    found = advice(machine)
    assert len(found) == (remedy is not None)
    assert all(f.remedy.startswith("pip uninstall -y tensorrt") for f in found)
    assert all(f.remedy.endswith(str(remedy)) for f in found)
