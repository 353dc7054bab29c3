"""Bundles for other engines than a processor's, smaller vocabularies, and speeds on the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers

from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle
from headway.core.tolerance import PRECISION
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from tests.conftest import Run
from tests.test_architectures import model_of


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("cpu", "fp8", "fp8 for --target cpu is not available"),
        ("cuda", "int8", "int8 for --target cuda is not available"),
        ("tensorrt", "int8", "int8 for --target tensorrt is not available"),
    ],
)
def test_precisions_that_an_engine_has_not(target: Any, precision: str, message: str) -> None:
    with pytest.raises(UnavailableError, match=f"^{message}"):
        ExportOptions(output=Path("bundle"), target=target, precision=f"fp32,{precision}")


def test_graphs_for_tensorrt(checkpoint: Path, dev_file: Path, texts: list[str], tmp_path: Path) -> None:
    names = ["fp32", "fp16", "bf16", "fp8", "int8-static", "int8-weights", "int4-weights"]
    options = ExportOptions(
        output=tmp_path / "bundle", target="tensorrt", precision=",".join(names), eval=dev_file, threads=1
    )
    report = export(checkpoint, options)
    assert list(report.variants) == [f"{name}-tensorrt" for name in names]
    simulated = {v.precision for v in report.variants.values() if v.parity["by"] == "simulation"}
    assert simulated == {"fp16", "bf16", "fp8"}
    for name, variant in report.variants.items():
        model = onnx.load(tmp_path / "bundle" / name / "model.onnx")
        ops = {node.op_type for node in model.graph.node}
        assert "Attention" not in ops  # of heads as small as these; larger ones: test_engine_tensorrt
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert variant.target == "tensorrt"
        assert variant.quality.keys() == report.reference.keys()
    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert "Those of fp16-tensorrt, bf16-tensorrt, fp8-tensorrt were measured on a processor" in card
    found: Any = load(tmp_path / "bundle", precision="fp32-tensorrt", threads=1)(texts)
    assert all(0 <= answer.score <= 1 for answer in found)


def test_a_precision_that_no_engine_here_runs(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, ExportOptions(output=tmp_path / "bundle", target="cuda", precision="bf16", threads=1))
    with pytest.raises(UnavailableError, match="^bf16/model.onnx on onnxruntime's CPU provider"):
        load(tmp_path / "bundle", precision="bf16", backend="onnxruntime")


def test_bf16_for_a_processor(checkpoint: Path, dev_file: Path, texts: list[str], tmp_path: Path) -> None:
    options = ExportOptions(
        output=tmp_path / "bundle", precision="fp32,bf16", eval=dev_file, speed=True, threads=1
    )
    variant = export(checkpoint, options).variants["bf16"]
    assert variant.parity["by"] == "simulation"
    assert variant.tokens_per_second is not None
    sizes = {n: (tmp_path / "bundle" / n / "model.onnx").stat().st_size for n in ("fp32", "bf16")}
    assert sizes["bf16"] < 0.7 * sizes["fp32"]
    wide: Any = load(tmp_path / "bundle", precision="fp32", threads=1)
    pipe: Any = load(tmp_path / "bundle", precision="bf16", threads=1)
    assert (pipe.precision, pipe.engine) == ("bf16", "openvino")
    logits, exact = ([np.log(list(a.scores.values())) for a in p(texts)] for p in (pipe, wide))
    assert np.abs(np.subtract(logits, exact)).max() < 2 * PRECISION["bf16"].worst * np.std(exact)
    alone = [np.log(list(pipe(text).scores.values())) for text in texts[:20]]
    assert np.abs(np.subtract(alone, logits[:20])).max() < 2 * PRECISION["bf16"].neighbours * np.std(exact)


def test_bf16_of_a_model_that_writes(tmp_path: Path) -> None:
    model_of("gpt2", transformers.AutoModelForCausalLM, tmp_path / "model")
    options = ExportOptions(
        output=tmp_path / "bundle", task="text-generation", precision="fp32,bf16", threads=1
    )
    with pytest.raises(UnavailableError, match="^bf16 of a model that writes, for --target cpu, is not"):
        export(tmp_path / "model", options)
    assert not (tmp_path / "bundle").exists()


def test_speeds_on_the_card(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", checkpoint, "--output", tmp_path / "bundle", "--speed").code == 0
    variants = Bundle.read(tmp_path / "bundle").variants.values()
    assert all(v.tokens_per_second is not None and v.tokens_per_second > 0 for v in variants)
    assert "not measured" not in (tmp_path / "bundle" / "README.md").read_text("utf-8").split("tokens/s")[0]


def test_a_smaller_vocabulary(
    run: Run, checkpoint: Path, bundle: Path, texts: list[str], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts[:20]), encoding="utf-8")
    arguments = ("--output", tmp_path / "bundle", "--precision", "fp32", "--trim-vocabulary", corpus)
    assert run("export", checkpoint, *arguments).code == 0
    before, after = Bundle.read(bundle), Bundle.read(tmp_path / "bundle")
    assert after.architecture["vocab_size"] < before.architecture["vocab_size"]
    assert "Vocabulary trimmed" in (tmp_path / "bundle" / "README.md").read_text("utf-8")
    whole: Any = load(bundle, precision="fp32", threads=1)(texts[:20])
    smaller: Any = load(tmp_path / "bundle", precision="fp32", threads=1)(texts[:20])
    for ours, theirs in zip(smaller, whole, strict=True):
        assert ours.label == theirs.label
        np.testing.assert_allclose(list(ours.scores.values()), list(theirs.scores.values()), atol=1e-6)
    assert run("export", checkpoint, *arguments[:-1], tmp_path / "none.txt", "--overwrite").code == 2
