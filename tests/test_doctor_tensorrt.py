"""What the doctor says of the TensorRT that is chosen, and of a bundle's engines."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.subjects import tensorrt
from headway.core.manifest import Bundle
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt.key import Key, Options, sha256_of_graph
from headway.runtime.tensorrt.library import LIBRARIES, SWITCH
from headway.runtime.tensorrt.store import Engine, Store
from tests.environments import Machine
from tests.small import small_bundle

OPTIONS = Options(shapes=Shapes(16))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With a GPU, TensorRT 11.4, and a cache of its own."""
    made = Machine(tmp_path / "machine")
    made.driver("580.65.06")
    made.package("tensorrt-cu13", "11.4.0.post1")
    made.variables["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = small_bundle(tmp_path / "bundle")
    declared = Bundle.read(folder)
    variants = {n: msgspec.structs.replace(v, target="tensorrt") for n, v in declared.variants.items()}
    msgspec.structs.replace(declared, variants=variants).write(folder)
    return folder


def key(bundle: Path, **changes: Any) -> Key:
    graph = sha256_of_graph(Bundle.read(bundle), bundle, "fp32/model.onnx")
    fitting = {"library": "tensorrt", "version": "11.4.0", "gpu": "NVIDIA Made Up", "driver": "580.65.06"}
    return Key(**({"graph": graph, "capability": (9, 0)} | fitting | changes))


def told(machine: Machine, bundle: Path | None = None) -> list[Finding]:
    return list(tensorrt.findings(machine.environment(bundle=bundle)))


def test_the_doctor_knows_the_same_libraries() -> None:
    assert tensorrt.SWITCH == SWITCH
    assert tensorrt.INSTALL == LIBRARIES
    assert tensorrt.LIBRARIES.keys() == LIBRARIES.keys()


def test_nothing_is_said_where_nothing_is_chosen(machine: Machine) -> None:
    assert told(machine) == []


def test_a_library_that_is_chosen(machine: Machine) -> None:
    machine.variables[SWITCH] = "tensorrt"
    assert told(machine) == [Finding("TensorRT", f"{SWITCH} chooses tensorrt 11.4.0")]
    machine.variables[SWITCH] = "tensorrt-rtx"
    (found,) = told(machine)
    assert found == Finding(
        "TensorRT", f"{SWITCH} chooses tensorrt-rtx, which is not installed", "pip install tensorrt-rtx"
    )
    machine.package("tensorrt-rtx", "1.7.1")
    assert told(machine) == [Finding("TensorRT", f"{SWITCH} chooses tensorrt-rtx 1.7.1")]


def test_a_library_that_there_is_not(machine: Machine) -> None:
    machine.variables[SWITCH] = "tensor"
    (found,) = told(machine)
    assert found.state == f"{SWITCH} is tensor, which is none: tensorrt or tensorrt-rtx is"
    assert found.remedy == f"unset {SWITCH}"


def test_no_engine_is_built(machine: Machine, bundle: Path) -> None:
    (found,) = told(machine, bundle)
    assert found.state == "none of fp32 is built: another engine serves until one is"
    assert found.remedy == f"headway engines {bundle} --precision fp32"


@pytest.mark.parametrize("place", ["bundle", "cache"])
def test_an_engine_that_serves(machine: Machine, bundle: Path, tmp_path: Path, place: str) -> None:
    at = bundle / "engines" if place == "bundle" else tmp_path / "cache" / "headway" / "engines"
    kept = Store([at]).keep(key(bundle), Engine(b"plan", OPTIONS))
    assert told(machine, bundle) == [Finding("engine", f"{kept.name[:12]} of fp32 serves here")]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "11.3.0"}, "was built by tensorrt 11.3.0, here is 11.4.0"),
        ({"version": "10."}, "was built by tensorrt 10., here is 11.4.0"),
        ({"driver": "570.10"}, "was built with driver 570.10, here is 580.65.06"),
        ({"format": 0}, "was built by another version of headway"),
    ],
)
def test_an_engine_that_is_stale(machine: Machine, bundle: Path, changes: dict[str, Any], why: str) -> None:
    kept = Store([bundle / "engines"]).keep(key(bundle, **changes), Engine(b"plan", OPTIONS))
    stale, missing = told(machine, bundle)
    assert stale.state == f"{kept.name[:12]} of fp32 {why}"
    assert stale.remedy == f"headway engines {bundle} && headway engines {bundle} --prune"
    assert "none of fp32 is built" in missing.state


def test_an_engine_of_another_graph(machine: Machine, bundle: Path, tmp_path: Path) -> None:
    """In the cache it may be another bundle's."""
    other = key(bundle, graph="0" * 64)
    Store([tmp_path / "cache" / "headway" / "engines"]).keep(other, Engine(b"plan", OPTIONS))
    assert len(told(machine, bundle)) == 1
    Store([bundle / "engines"]).keep(other, Engine(b"plan", OPTIONS))
    stale, _ = told(machine, bundle)
    assert stale.state.endswith("of no variant was built of a graph that the bundle has no more")
    assert stale.remedy == f"headway engines {bundle} --prune"


def test_engines_for_other_machines_are_no_trouble(machine: Machine, bundle: Path) -> None:
    for changes in (
        {"gpu": "NVIDIA Other"},
        {"library": "tensorrt-rtx", "version": "1.7.1", "gpu": "", "driver": ""},
    ):
        Store([bundle / "engines"]).keep(key(bundle, **changes), Engine(b"plan", OPTIONS))
    found = told(machine, bundle)
    assert {f.state.partition("fp32 ")[2]: f.remedy for f in found[:2]} == {
        "is for NVIDIA Other": "",
        "is of tensorrt-rtx, here is tensorrt": "",
    }


def test_a_later_version_of_the_same_major_one_serves(machine: Machine, bundle: Path) -> None:
    Store([bundle / "engines"]).keep(key(bundle, version="11."), Engine(b"plan", OPTIONS))
    assert [f.state.endswith("serves here") for f in told(machine, bundle)] == [True]


def test_a_damaged_bundle_is_told_elsewhere(machine: Machine, bundle: Path) -> None:
    (bundle / "headway.json").write_text("{}")
    assert told(machine, bundle) == []
