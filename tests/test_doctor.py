"""headway doctor: the report, its JSON and its exit codes, and what it says of a bundle."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from headway.cli import doctor
from headway.cli.doctoring import base, environment
from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Disk, Kernels
from headway.cli.doctoring.subjects import bundle
from headway.core import siblings
from headway.core.errors import BundleError, UsageError
from headway.core.manifest import Bundle, Variant
from tests.conftest import Run
from tests.environments import Machine
from tests.environments import onnxruntime as build
from tests.small import small_bundle


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which nothing prevents work; `headway doctor` is told that it runs there."""
    made = Machine(tmp_path / "machine")
    made.processor("avx2 avx512f avx512_vnni")
    made.package("headway", "0.1.0", requires=['onnxruntime>=1; extra == "cpu"', 'torch; extra == "train"'])
    made.package("onnxruntime", "1.31.1", build())
    monkeypatch.setattr(environment, "here", lambda bundle: made.environment(bundle=bundle))
    return made


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "small")


def with_variants(folder: Path, variants: dict[str, Variant]) -> Path:
    declared = Bundle.read(folder)
    msgspec.structs.replace(declared, variants=declared.variants | variants).write(folder)
    return folder


def of_bundle(machine: Machine, folder: Path) -> list[Finding]:
    return list(bundle.findings(machine.environment(bundle=folder, site=(machine.site,))))


def about(found: Sequence[Finding], name: str) -> list[str]:
    return [f.state for f in found if f.subject == f"bundle {name}"]


def test_every_subject_is_told() -> None:
    assert sorted(base.ORDER) == siblings.names(base.FAMILY)


def test_nothing_prevents_work(run: Run, machine: Machine, tmp_path: Path) -> None:
    ran = run("doctor", "--json", tmp_path / "found.json")
    assert (ran.code, ran.err) == (0, "")
    assert "! [train]:" in ran.out
    assert "→ pip install 'headway[train]'\n" in ran.out
    assert ran.out.endswith("\nnothing prevents work; 1 could be better\n")
    said = json.loads((tmp_path / "found.json").read_text())
    assert said["exit_code"] == 0
    assert {"subject": "[cpu]", "grade": "fine", "state": "onnxruntime 1.31.1", "remedy": ""} in said[
        "findings"
    ]


def test_something_needed_is_missing(run: Run, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.site / "onnxruntime" / "__init__.py").unlink()
    ran = run("doctor", "--json", "-")
    assert ran.code == 5
    assert ran.err.startswith("headway: a whole onnxruntime is not available: pip install ")
    said = json.loads(ran.out)
    assert said["exit_code"] == 5
    assert [f["subject"] for f in said["findings"] if f["grade"] == "prevents"] == ["onnxruntime"]


def test_a_damaged_bundle_is_bad_data_and_a_missing_engine_weighs_more(
    run: Run, machine: Machine, small: Path
) -> None:
    (small / "tokenizer.json").write_text("{}")
    ran = run("doctor", small)
    assert ran.code == 3
    assert "tokenizer.json has 2 bytes" in ran.err
    assert "✗ bundle:" in ran.out
    (machine.site / "onnxruntime" / "__init__.py").unlink()
    assert run("doctor", small).code == 5


def test_a_bundle_that_is_not_there(run: Run, machine: Machine, tmp_path: Path) -> None:
    ran = run("doctor", tmp_path / "none")
    assert ran.code == 3
    assert "there is no headway.json" in ran.err


def test_every_finding_that_prevents_work_has_a_remedy(machine: Machine, small: Path) -> None:
    (small / "tokenizer.json").unlink()
    broken = replace(
        machine.environment(
            bundle=small, kernels=Kernels(problem="no"), disks=(Disk("temporary", small, 0),)
        ),
        site=(machine.folder / "empty",),
    )
    found = [f for f in base.findings(broken) if f.error is not None]
    assert [f.subject for f in found] == ["disk", "kernels", "engine", "bundle"]
    assert all(f.remedy for f in found)
    assert isinstance(found[-1].error, BundleError)


def test_this_machine(run: Run) -> None:
    """All tests run here, so nothing may be told to prevent work; the engine's own libraries are found."""
    ran = run("doctor", "--json", "-")
    assert ran.code == 0, ran.out
    found = {f["subject"]: f for f in json.loads(ran.out)["findings"]}
    assert found["CPU provider"]["state"] == "all libraries found"
    assert found["[cpu]"]["state"].startswith("onnxruntime ")
    assert found["openvino"]["state"].endswith("all libraries found")


def test_nothing_heavy_is_imported() -> None:
    code = "from headway.cli.main import run; run(['doctor', '--json', '-']); import sys\n"
    code += "print([m for m in ('torch', 'onnxruntime', 'openvino', 'transformers', 'numpy') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("}\n[]\n")


def test_a_broken_extension_is_told(tmp_path: Path) -> None:
    code = "from headway.cli.main import main; import sys; sys.argv = ['headway', 'doctor']; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"HEADWAY_SIMD": "mmx"}
    )
    assert ran.returncode == 5
    assert ran.stderr == "headway: the compiled extension is not available: unset HEADWAY_SIMD\n"


def test_a_bundle_that_runs(machine: Machine, small: Path) -> None:
    assert of_bundle(machine, small) == [
        Finding("bundle", "text-classification, 2 files, all as declared"),
        Finding("bundle fp32", "runs on onnxruntime"),
    ]
    machine.package("openvino", "2026.4.1")
    assert about(of_bundle(machine, small), "fp32") == ["runs on onnxruntime and openvino"]


def test_a_bundle_and_no_engine(machine: Machine, small: Path) -> None:
    found = list(bundle.findings(machine.environment(bundle=small, site=())))
    assert (found[-1].grade, found[-1].state) == ("prevents", "no variant runs here")
    assert found[-1].remedy.startswith("pip install 'headway[cpu]'")


def test_a_bundle_for_other_devices(machine: Machine, small: Path) -> None:
    cuda = msgspec.structs.replace(Bundle.read(small).variants["fp32"], target="cuda")
    found = of_bundle(machine, with_variants(small, {"fp32": cuda}))
    assert about(found, "fp32") == ["is made for cuda: --device cuda runs it"]
    assert found[-1].state == "no variant runs here"


def test_a_graph_that_an_engine_does_not_take(machine: Machine, small: Path) -> None:
    """The second variant's graph is no graph, though its hash is right."""
    from headway.core import files
    from headway.core.manifest import File

    (small / "odd").mkdir()
    (small / "odd" / "model.onnx").write_bytes(b"no graph")
    declared = Bundle.read(small)
    odd = msgspec.structs.replace(declared.variants["fp32"], graphs={"model": "odd/model.onnx"})
    entry = File(bytes=8, sha256=files.sha256(small / "odd" / "model.onnx"))
    msgspec.structs.replace(
        declared,
        variants=declared.variants | {"odd": odd},
        files=declared.files | {"odd/model.onnx": entry},
    ).write(small)
    (found,) = [f for f in of_bundle(machine, small) if f.subject == "bundle odd"]
    assert "does not run on onnxruntime" in found.state
    assert found.remedy == "use another --backend than onnxruntime"


def test_an_engine_that_is_not_for_such_models_is_left_out(
    machine: Machine, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(folder: Path, *, precision: str, backend: str, threads: int) -> None:
        if backend == "openvino":
            raise UsageError("--backend", "'openvino' does not run models that write")

    monkeypatch.setattr("headway.runtime.load", load)
    machine.package("openvino", "2026.4.1")
    assert about(of_bundle(machine, small), "fp32") == ["runs on onnxruntime"]


def test_too_little_memory_for_a_variant(machine: Machine, small: Path) -> None:
    (machine.proc / "meminfo").write_text("MemAvailable: 1 kB\n")
    found = of_bundle(machine, small)
    assert "may not fit" in about(found, "fp32")[0]
    assert "more memory" in next(f.remedy for f in found if f.subject == "bundle fp32")


@pytest.mark.parametrize(
    ("flags", "precision", "reason"),
    [
        ("avx2", "int8", "without VNNI or AMX"),
        ("avx2", "int8-static", "without VNNI or AMX"),
        ("avx2 avx512_vnni", "int8", None),
        ("avx2 avx512_vnni", "int8-weights", "unpacked for each product"),
        ("avx2 avx512_vnni", "fp16", "no 16-bit products"),
        ("avx2 avx512_fp16", "fp16", None),
    ],
)
def test_why_a_precision_is_no_faster(
    machine: Machine, small: Path, flags: str, precision: str, reason: str | None
) -> None:
    machine.processor(flags)
    other = msgspec.structs.replace(Bundle.read(small).variants["fp32"], precision=precision)
    found = of_bundle(machine, with_variants(small, {"other": other}))
    told = [f for f in found if f.subject == "bundle other" and f.remedy]
    assert [reason in f.state for f in told] == ([True] if reason else [])  # type: ignore[operator]
    assert all(f.remedy == f"headway inspect {small} --layers --precision other" for f in told)


def test_what_the_export_measured_is_told(machine: Machine, small: Path) -> None:
    base_variant = msgspec.structs.replace(Bundle.read(small).variants["fp32"], tokens_per_second=1000.0)
    other = msgspec.structs.replace(
        base_variant, precision="int8", tokens_per_second=800.0, kept=["layer.0", "layer.1"]
    )
    state = about(of_bundle(machine, with_variants(small, {"fp32": base_variant, "int8": other})), "int8")[-1]
    assert "it ran at 0.80 times fp32's speed where it was exported" in state
    assert "2 layers were left in fp32 for quality" in state


def test_a_report_in_words() -> None:
    assert doctor.text([Finding("a", "well"), Finding("long", "so so", "do it")]) == (
        "  a:    well\n! long: so so\n        → do it\n\nnothing prevents work; 1 could be better"
    )
