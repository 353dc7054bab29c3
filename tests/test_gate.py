"""A layer that loses too much is found and left in fp32; what cannot hold is no bundle; what the doctor says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from headway.core import hardware, tolerance
from headway.core.errors import GateError, UsageError
from headway.core.manifest import Bundle
from headway.core.progress import silent
from headway.core.tolerance import Tolerance
from headway.export import doctor, encoders, sensitivity
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from tests.conftest import Run, write_jsonl

BAD = "model.bert.encoder.layer.1.attention.output.dense"
CHANNEL = 5


@pytest.fixture(scope="module")
def planted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function in fp32, but one channel that goes into one layer is 3,000 times larger."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("planted") / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    layer = "bert.encoder.layer.1.attention"
    for name in (f"{layer}.self.value.weight", f"{layer}.self.value.bias"):
        weights[name][CHANNEL] *= 3000
    weights[f"{layer}.output.dense.weight"][:, CHANNEL] /= 3000
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that the tiny model's int8 holds, and that one bad layer breaks."""
    limits = Tolerance(worst=0.6, mean=0.06, neighbours=1e-3)
    monkeypatch.setitem(tolerance.PRECISION, "int8", limits)


def labelled(bundle: Path, texts: Sequence[str], folder: Path) -> Path:
    """Data on which a bundle's fp32 variant is always right."""
    answers: Any = load(bundle, precision="fp32")(texts)
    rows = [{"text": t, "label": a.label} for t, a in zip(texts, answers, strict=True)]
    return write_jsonl(folder / "eval.jsonl", rows)


def test_parity_leaves_the_bad_layer_in_fp32(
    planted: Path, bundle: Path, strict: None, tmp_path: Path
) -> None:
    assert Bundle.read(bundle).variants["int8"].kept == []
    export(planted, ExportOptions(output=tmp_path / "bundle", threads=1))
    variant = Bundle.read(tmp_path / "bundle").variants["int8"]
    assert variant.kept[0] == BAD
    assert len(variant.kept) <= 2
    assert variant.parity["worst"] <= 0.6
    assert BAD in (tmp_path / "bundle" / "README.md").read_text("utf-8")


def test_quality_leaves_the_bad_layer_in_fp32(
    planted: Path, bundle: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tolerance.PRECISION, "int8", Tolerance(worst=1e9, mean=1e9, neighbours=1e-3))
    data = labelled(bundle, texts, tmp_path)
    options = ExportOptions(output=tmp_path / "bundle", eval=data, max_drop=0.03, threads=1)
    report = export(planted, options)
    assert report.variants["int8"].kept[0] == BAD
    assert report.variants["int8"].quality["accuracy"] >= report.reference["accuracy"] - 0.03


def test_without_a_limit_nothing_is_left(
    planted: Path, bundle: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tolerance.PRECISION, "int8", Tolerance(worst=1e9, mean=1e9, neighbours=1e-3))
    data = labelled(bundle, texts, tmp_path)
    report = export(planted, ExportOptions(output=tmp_path / "bundle", eval=data, threads=1))
    assert report.variants["int8"].kept == []
    assert report.variants["int8"].quality["accuracy"] < report.reference["accuracy"] - 0.03


def test_what_cannot_hold_is_no_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tolerance.PRECISION, "int8", Tolerance(worst=1e-9, mean=1e-9, neighbours=1e-9))
    with pytest.raises(GateError, match="parity gate: variant int8"):
        export(checkpoint, ExportOptions(output=tmp_path / "bundle", threads=1))
    assert list(tmp_path.iterdir()) == []


def test_settings_are_fitted_for_a_variant(bundle: Path) -> None:
    manifest = Bundle.read(bundle)
    assert manifest.variants["fp32"].settings == {}
    own = manifest.variants["int8"].settings
    assert own.keys() == manifest.settings.keys()
    assert own["temperature"] != manifest.settings["temperature"]
    assert load(bundle, precision="int8").spec.settings.temperature == own["temperature"]
    import onnx

    graph = onnx.load(bundle / "int8" / "model.onnx").graph
    (held,) = (t for t in graph.initializer if t.name == "temperature")
    assert onnx.numpy_helper.to_array(held) == np.float32(own["temperature"])


def test_the_most_sensitive_layer_comes_first() -> None:
    moved = {"a": 0.1, "b": 3.0, "c": float("nan"), "d": 0.0}

    def run(kept: Any) -> list[np.ndarray[Any, Any]]:
        return [np.full(3, sum(v for k, v in moved.items() if k not in kept), np.float32)]

    assert sensitivity.order(list(moved), run, silent, "") == ["c", "b", "a", "d"]


@pytest.fixture(scope="module")
def diagnosed(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("diagnosed") / "bundle"
    export(planted, ExportOptions(output=folder, threads=1))
    return folder, Bundle.read(folder)


def reports(folder: Path, manifest: Bundle) -> list[doctor.LayerReport]:
    random = np.random.default_rng(0)
    feeds = [
        {t.name: np.ones((1, n), np.int64) if t.name != "input_ids" else random.integers(5, 90, (1, n))
         for t in manifest.graphs[encoders.ROLE].inputs}
        for n in (3, 9, 20)
    ]  # fmt: skip
    return doctor.layers(folder, manifest, "int8", feeds)


def test_the_doctor_finds_the_outlier(
    diagnosed: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reports(*diagnosed)
    loudest = max(found, key=lambda r: r.outlier)
    assert loudest.name == BAD
    assert loudest.outlier > 100
    others = [r for r in found if r.name != BAD]
    assert max(r.outlier for r in others) < doctor.OUTLIER
    for report in found:
        assert report.bytes_fp32 == 4 * report.inputs * report.outputs
        assert report.bytes == (
            report.bytes_fp32 if report.kept else report.bytes_fp32 // 4 + 4 * report.outputs
        )
        assert report.gain > 0
    assert any(r.signal_to_noise is not None and r.signal_to_noise > 20 for r in found)
    said = doctor.advice(*diagnosed, "int8", found)
    assert any("Outlier channels" in s and BAD in s for s in said)


@pytest.mark.parametrize(("flags", "told"), [({"avx2"}, True), ({"avx512_vnni"}, False)])
def test_the_doctor_knows_the_processor(
    flags: set[str], told: bool, diagnosed: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    said = " ".join(doctor.advice(*diagnosed, "int8", []))
    assert ("no 8-bit dot products" in said) is told


def test_inspect_shows_layers(diagnosed: tuple[Path, Bundle], run: Run) -> None:
    ran = run("inspect", str(diagnosed[0]), "--layers")
    assert ran.code == 0
    assert re.search(rf"\| {re.escape(BAD)} +\| +32×32 \|", ran.out)
    assert "Outlier channels" in ran.out
    assert run("inspect", str(diagnosed[0]), "--layers", "--precision", "fp8").code == 2


def test_layers_want_something_to_compare_with(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, ExportOptions(output=tmp_path / "bundle", precision="int8", threads=1))
    with pytest.raises(UsageError, match="wants an encoder's bundle with an fp32 variant"):
        doctor.layers(tmp_path / "bundle", Bundle.read(tmp_path / "bundle"), "int8", [])
