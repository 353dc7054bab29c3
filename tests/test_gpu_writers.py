"""The part of the GPU's check that is about models that write, run on the processor; and such models on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.bench import gpu_writers, shapes
from headway.core.manifest import Bundle
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import cuda, load
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.generation.base import Writer
from headway.runtime.load import WRITERS
from tests.conftest import Run
from tests.cuda_driver import Driver
from tests.test_generation_gpu import BEAMS, MANY, driver, on_gpu, search
from tests.test_gpu import installed
from tests.test_tensorrt_writers import checkpoint

__all__ = ["checkpoint", "driver"]

TINY: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 200,
}
GRAPHS: dict[int, Any] = {}
"""of the tiny model, which is the same each time; to trace it takes seconds"""
SPECIAL = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(shapes.SHAPES, "tiny", ("T5ForConditionalGeneration", TINY | SPECIAL))
    real = gpu_writers.traced

    def traced(checkpoint: Path) -> Any:
        if not GRAPHS:
            GRAPHS[0] = real(checkpoint)
        return GRAPHS[0]

    monkeypatch.setattr(gpu_writers, "traced", traced)
    return "tiny"


def once(call: Any, repeats: int) -> float:
    call()
    return 0.5


def test_the_table(tiny: str, tmp_path: Path) -> None:
    table, wrong = gpu_writers.measure(tiny, tmp_path, "cpu", ["fp32"], 1, once, batches=(1, 3), new=5)
    assert wrong == []
    assert [row[:4] for row in table.rows] == [
        ["generate() fp32", 1, "", "100%"],
        ["headway onnxruntime fp32", 1, "100%", "100%"],
        ["generate() fp32", 3, "", "100%"],
        ["headway onnxruntime fp32", 3, "100%", "100%"],
    ]
    assert table.rows[-1][4:] == ["500.0", "30", "1.00", ""]


def test_other_texts_are_told(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*told: Any) -> Any:
        return [
            gpu_writers.Subject("planted", lambda sources: [[3]] * len(sources)),
            "headway absent: not run: it is not there",
        ]

    monkeypatch.setattr(gpu_writers, "subjects", other)
    table, wrong = gpu_writers.measure(tiny, tmp_path, "cpu", ["fp32"], 1, once, batches=(1,), new=5)
    assert wrong == ["tiny planted (0% the same)"]
    assert table.rows[-1][0] == "headway absent: not run: it is not there"


def test_what_is_between_the_decoders_runs(driver: Driver) -> None:
    ours, settings = on_gpu("t5"), BEAMS.changed(min_new_tokens=9)
    search(ours, MANY, settings, str)
    (held,) = (h for every in ours._idle.values() for h in every)
    took = iter([1.0, 9.0])  # to begin, and by the decoder alone
    told = gpu_writers.between(
        ours, settings, 11.0, held.batch, lambda call, repeats: [call(), next(took)][1]
    )
    assert told == "10.0%"
    assert gpu_writers.between(ours, settings, 11.0, 1, once) == ""


def test_the_writers_are_as_declared(tiny: str, tmp_path: Path) -> None:
    shapes.write(tiny, tmp_path / "checkpoint")
    for target in ("cuda", "tensorrt"):
        folder = gpu_writers.bundle_of(tmp_path / "checkpoint", tmp_path / target, target, "fp16")
        assert Bundle.read(folder).longest is None
    opened = gpu_writers.writer(
        gpu_writers.bundle_of(tmp_path / "checkpoint", tmp_path / "cpu", "cpu", "fp32"), "onnxruntime", "cpu"
    )
    engine: Writer = opened  # mypy holds it to the protocol
    assert engine.with_encoder


@pytest.mark.gpu
@pytest.mark.skipif(not cuda.available(), reason="there is no GPU")
@pytest.mark.parametrize("engine", [name for name in engines_for("cuda") if name in WRITERS])
def test_on_a_gpu(engine: str, checkpoint: Path, run: Run, tmp_path: Path) -> None:
    """Texts and scores of the processor in fp32; in fp16 alone as in a batch; and settings that the processor chooses by."""
    if not installed(engine):
        pytest.skip(f"{engine} is not installed")
    target = load_engine(engine).TARGET
    export(
        checkpoint, ExportOptions(output=tmp_path / "bundle", target=target, precision="fp32,fp16", threads=4)
    )
    export(checkpoint, ExportOptions(output=tmp_path / "plain", precision="fp32", threads=4))
    if engine == "tensorrt":
        assert run("engines", tmp_path / "bundle").code == 0
    here: Any = load(tmp_path / "plain", precision="fp32")
    texts = ["please send me the parcel", "late", "where is my refund, and why is it so late?", "thanks"] * 3
    beams = {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 12}
    asked: list[dict[str, Any]] = [
        beams,
        {"max_new_tokens": 20},
        {"do_sample": True, "seed": 3, "max_new_tokens": 8},
    ]
    pairs = [(text, "late parcel") for text in texts]
    for name, variant in Bundle.read(tmp_path / "bundle").variants.items():
        there: Any = load(tmp_path / "bundle", device="cuda", backend=engine, precision=name)
        for settings in asked:
            for _ in range(3):  # given, captured, launched
                found = there(texts, **settings)
            if variant.precision == "fp32":
                for ours, theirs in zip(found, here(texts, **settings), strict=True):
                    assert [h.tokens for h in ours.hypotheses] == [h.tokens for h in theirs.hypotheses]
                    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-3, atol=1e-3)
        scores = [[one.score for one in pipe.score(pairs)] for pipe in (there, here)]
        np.testing.assert_allclose(*scores, rtol=1e-3 if variant.precision == "fp32" else 5e-2, atol=1e-2)
        alone = [one.score for pair in pairs[:4] for one in there.score([pair])]
        np.testing.assert_allclose(alone, scores[0][:4], rtol=5e-3, atol=1e-2)
