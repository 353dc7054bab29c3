"""What the doctor says of made-up sets of packages: needs, versions, conflicts, and builds of ONNX Runtime."""

from pathlib import Path

import pytest

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.subjects import conflicts, onnxruntime, openvino, packages
from headway.cli.doctoring.versions import allows, number, requirement
from tests.environments import Machine, library
from tests.environments import onnxruntime as build

NEEDS = (
    "numpy>=2.0",
    'onnxruntime>=1.31; extra == "cpu"',
    'torch<2.14,>=2.11; extra == "train"',
    'transformers<6,>=5.23; extra == "train"',
    'headway[train,cpu]; extra == "export"',
    'onnx>=1.23; extra == "export"',
    'ruff; extra == "dev"',
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.package("headway", "0.1.0", requires=NEEDS)
    made.package("numpy", "2.4.6")
    return made


def told(subject: object, machine: Machine) -> list[Finding]:
    return list(subject.findings(machine.environment()))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("specifiers", "version", "expected"),
    [
        ("", "1", True),
        (">=2.11,<2.14", "2.13.0+cpu", True),
        ("<2.14,>=2.11", "2.14.0", False),
        ("<2.14,>=2.11", "2.9", False),
        ("<6", "6.0.0rc1", False),
        (">=2", "2.0.0", True),
        (">2", "2.0.0", False),
        ("<=2.0", "2", True),
        ("==1.2.*", "1.2.9", True),
        ("==1.2.*", "1.20", False),
        ("!=1.2.*", "1.2.1", False),
        ("!=1.2.1", "1.2.1", False),
        ("==0.1.0", "0.1", True),
        ("~=13.1", "13.9", True),
        ("~=13.1", "14.0", False),
        ("~=13.1", "13.0", False),
        ("~=2.2.3", "2.3", False),
        ("===odd", "1", True),
        (">=1", "unknown", True),
    ],
)
def test_versions(specifiers: str, version: str, expected: bool) -> None:
    assert allows(specifiers, version) == expected


def test_requirements() -> None:
    assert number("v1!2.13.0+cpu") == (2, 13, 0)
    found = requirement("Rouge_Score[a,b] (>=0.1.2) ; extra == 'train'")
    assert (found.name, found.specifiers, found.extra, found.conditional) == (
        "rouge-score",
        ">=0.1.2",
        "train",
        False,
    )
    assert requirement('a<2; python_version < "3.12"').conditional
    assert requirement('a; python_version < "3.12" and extra == "x"').conditional
    with pytest.raises(ValueError, match="no requirement"):
        requirement("@ nonsense")


def test_what_extras_need(machine: Machine) -> None:
    machine.package("onnxruntime", "1.31.1", build())
    machine.package("torch", "2.13.0+cpu")
    machine.package("transformers", "4.57.6")
    assert told(packages, machine) == [
        Finding("packages", "numpy 2.4.6"),
        Finding("[cpu]", "onnxruntime 1.31.1"),
        Finding(
            "[train]", "wrong versions: transformers 4.57.6 (not <6,>=5.23)", "pip install 'headway[train]'"
        ),
        Finding("[export]", "without onnx", "pip install 'headway[export]'"),
    ]


def test_no_engine(machine: Machine) -> None:
    found = told(packages, machine)[-1]
    assert (found.grade, found.remedy) == ("prevents", "pip install 'headway[cpu]'")
    assert found.error is not None
    assert found.error.exit_code == 5
    machine.package("openvino", "2026.4.1")
    assert "prevents" not in [f.grade for f in told(packages, machine)]


def test_another_build_fills_the_need(machine: Machine) -> None:
    machine.package("onnxruntime-gpu", "1.31.1", build("onnxruntime-gpu"))
    assert Finding("[cpu]", "onnxruntime-gpu 1.31.1") in told(packages, machine)


def test_packages_that_only_sound_like_builds(machine: Machine) -> None:
    machine.package("onnxruntime-genai", "0.9", {"onnxruntime_genai/__init__.py": b""})
    machine.package("onnxruntime", "1.31.1", build())
    assert told(onnxruntime, machine)[0] == Finding("onnxruntime", "onnxruntime 1.31.1")


@pytest.mark.parametrize(
    ("package", "version", "needs", "remedy"),
    [
        ("optimum-onnx", "0.1.0", "transformers<4.58.0,>=4.36", "pip uninstall -y optimum-onnx"),
        ("odd", "1", "transformers<5", "pip install --upgrade odd, or pip uninstall -y odd"),
        ("torch", "2.13.0", "numpy<2", "pip install 'numpy<2'"),
        ("odd", "1", "transformers>=5", None),
        ("odd", "1", 'transformers<5; extra == "x"', None),
        ("odd", "1", 'transformers<5; python_version < "3"', None),
        ("odd", "1", "another<1", None),
    ],
)
def test_conflicts(machine: Machine, package: str, version: str, needs: str, remedy: str | None) -> None:
    machine.package("transformers", "5.23.0")
    machine.package("another", "2")
    machine.package(package, version, requires=[needs])
    found = told(conflicts, machine)
    assert [f.remedy for f in found] == ([remedy] if remedy else [])
    assert all(f"{package} {version} wants {needs}" in f.state for f in found)


def test_what_a_broken_off_pip_left(machine: Machine) -> None:
    (machine.site / "~ransformers-5.23.0.dist-info").mkdir()
    (found,) = told(conflicts, machine)
    assert found.remedy == f"rm -r '{machine.site}/~ransformers-5.23.0.dist-info'"
    assert set(machine.environment().installed) == {"headway", "numpy"}


def test_two_builds_of_which_one_is_whole(machine: Machine) -> None:
    machine.package("onnxruntime", "1.30.0", build(padding=1))
    machine.package("onnxruntime-gpu", "1.31.1", build("onnxruntime-gpu"))
    found = told(onnxruntime, machine)[0]
    assert "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are installed" in found.state
    assert found.state.endswith("imported is onnxruntime-gpu")
    assert found.grade == "advice"
    assert found.remedy == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'headway[cpu]'"


def test_two_builds_of_which_none_is_whole(machine: Machine) -> None:
    machine.package("onnxruntime", "1.30.0", build(padding=1))
    machine.package("onnxruntime-openvino", "1.31.1", build("onnxruntime-openvino"))
    machine.write("onnxruntime/__init__.py", b"")
    found = told(onnxruntime, machine)[0]
    assert found.grade == "prevents"
    assert "none of them is whole" in found.state


def test_files_that_went_with_another_build(machine: Machine) -> None:
    """onnxruntime-gpu was installed beside it and uninstalled: that took the files which both have."""
    machine.package("onnxruntime", "1.31.1", build())
    (machine.site / "onnxruntime" / "__init__.py").unlink()
    found = told(onnxruntime, machine)[0]
    assert found.grade == "prevents"
    assert found.state.endswith("gone or changed: onnxruntime/__init__.py")
    assert found.remedy == "pip install --force-reinstall --no-deps onnxruntime==1.31.1"


def test_files_that_another_build_left_among_them(machine: Machine) -> None:
    machine.package("onnxruntime", "1.31.1", build() | {"onnxruntime/LICENSE": b"long"})
    machine.write("onnxruntime/__pycache__/a.pyc", b"")
    machine.write("onnxruntime/LICENSE", b"edited")
    assert told(onnxruntime, machine)[0] == Finding("onnxruntime", "onnxruntime 1.31.1")
    machine.write("onnxruntime/capi/libonnxruntime_providers_cuda.so", library())
    found = told(onnxruntime, machine)[0]
    assert found.state.endswith("among its own: onnxruntime/capi/libonnxruntime_providers_cuda.so")
    place = machine.site / "onnxruntime"
    assert found.remedy == f"pip uninstall -y onnxruntime && rm -r {place} && pip install onnxruntime==1.31.1"


def test_files_that_an_uninstalled_build_left(machine: Machine) -> None:
    machine.write("onnxruntime/capi/libonnxruntime_providers_cuda.so", library())
    (found,) = told(onnxruntime, machine)
    assert found.grade == "prevents"
    assert found.remedy == f"rm -r {machine.site}/onnxruntime && pip install 'headway[cpu]'"


def test_nothing_to_tell_of_what_is_not_there(machine: Machine) -> None:
    assert told(onnxruntime, machine) == told(openvino, machine) == []


def test_an_engine_without_a_library_of_the_system(machine: Machine) -> None:
    files = build()
    name = "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so"
    machine.package("onnxruntime", "1.31.1", files | {name: library(["libstdc++.so.6"])})
    found = told(onnxruntime, machine)[1]
    assert (found.subject, found.grade) == ("CPU provider", "prevents")
    assert found.state == "cannot load: libstdc++.so.6 not found"
    machine.library("lib/libstdc++.so.6")
    assert told(onnxruntime, machine)[1].state == "all libraries found"


def test_openvino(machine: Machine) -> None:
    plugin = library(["libopenvino.so.1"], rpath="$ORIGIN")
    machine.package(
        "openvino", "2026.4.1", {openvino.PLUGIN: plugin, "openvino/libs/libopenvino.so.1": library()}
    )
    assert told(openvino, machine) == [Finding("openvino", "2026.4.1, all libraries found")]
    (machine.site / "openvino" / "libs" / "libopenvino.so.1").unlink()
    machine.package("openvino-dev", "2024.6.0")
    found, older = told(openvino, machine)
    assert "libopenvino.so.1 not found" in found.state
    assert found.remedy == "pip install --force-reinstall openvino==2026.4.1"
    assert older.remedy.startswith("pip uninstall -y openvino-dev")
