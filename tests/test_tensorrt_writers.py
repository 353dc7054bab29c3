"""Models that write, for GPUs: proven in 16 bits by simulation, and taken by the parser and builder of TensorRT-RTX.

As in test_tensorrt_builder, that is not TensorRT 11's own acceptance, and no kernel has run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from headway.core.errors import UnavailableError, UsageError
from headway.core.manifest import Bundle
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt import ahead
from headway.runtime.tensorrt.build import parse
from headway.runtime.tensorrt.key import Options, Target
from headway.runtime.tensorrt.library import open_library
from headway.runtime.tensorrt.ranges import profiles
from headway.train import fit
from headway.train.options import TrainOptions
from tests import corpora
from tests.cuda_driver import Driver
from tests.test_architectures import model_of
from tests.test_generation_gpu import driver

__all__ = ["driver"]

KINDS: dict[str, tuple[str, Any, Any]] = {
    "t5": ("text2text-generation", transformers.AutoModelForSeq2SeqLM, corpora.rewrites),
    "bart": ("text2text-generation", transformers.AutoModelForSeq2SeqLM, corpora.rewrites),
    "gpt2": ("text-generation", transformers.AutoModelForCausalLM, corpora.texts),
    "llama": ("text-generation", transformers.AutoModelForCausalLM, corpora.texts),
}
PRECISIONS = {"fp32": (8, 0), "fp16": (8, 9), "bf16": (12, 0)}
"""each with the compute capability that it is built for here"""


@pytest.fixture(
    scope="module",
    params=[k if k in ("t5", "llama") else pytest.param(k, marks=pytest.mark.grid) for k in KINDS],
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    task, auto, make = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    options = TrainOptions(
        model=str(model_of(request.param, auto, folder / "model")), train=corpora.write(make, "train", folder, 20),
        output=folder / "checkpoint", epochs=1, batch_size=8, max_length=32, precision="fp32", threads=1,
    )  # fmt: skip
    fit.train(task, options)
    return folder / "checkpoint"


def test_graphs_for_onnx_runtime_on_gpus(checkpoint: Path, tmp_path: Path, driver: Driver) -> None:
    options = ExportOptions(output=tmp_path / "bundle", target="cuda", precision="fp32,fp16", threads=1)
    found = export(checkpoint, options).variants
    assert [(v.target, v.parity["by"]) for v in found.values()] == [
        ("cuda", "onnxruntime"),
        ("cuda", "simulation"),
    ]
    texts = ["please send me the parcel", "late", "where is my refund, and why is it so late?"]
    there, here = (
        load(tmp_path / "bundle", device=device, precision="fp32", threads=1) for device in ("cuda", "cpu")
    )
    asked: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6}
    for settings in (asked, {"do_sample": True, "max_new_tokens": 5}):
        ours, theirs = (pipe(texts, **settings) for pipe in (there, here))  # type: ignore[operator]
        assert [[h.tokens for h in r.hypotheses] for r in ours] == [
            [h.tokens for h in r.hypotheses] for r in theirs
        ]
    pairs = [(text, "late parcel") for text in texts]
    scores = ([scored.score for scored in pipe.score(pairs)] for pipe in (there, here))  # type: ignore[attr-defined]
    np.testing.assert_allclose(*scores, rtol=1e-4)
    assert driver.launches > 0
    half = load(tmp_path / "bundle", device="cuda", precision="fp16", threads=1)
    kinds = half._engine._model.decoder.kinds  # type: ignore[attr-defined]
    assert {kind for name, kind in kinds.items() if name.startswith(("past.", "present.", "cross.", "logits"))} == {
        "float16", "int64"  # the second: logits_at
    }  # fmt: skip
    answers = half(texts, **asked)  # type: ignore[operator]
    assert all(answer.hypotheses for answer in answers)


def test_what_cannot_be(checkpoint: Path, tmp_path: Path, driver: Driver) -> None:
    export(checkpoint, ExportOptions(output=tmp_path / "bundle", target="cuda", precision="fp32", threads=1))
    with pytest.raises(UnavailableError, match="a model that writes on several GPUs"):
        load(tmp_path / "bundle", device=["cuda:0", "cuda:1"])
    with pytest.raises(UsageError, match="--backend: 'openvino' does not run models that write"):
        load(tmp_path / "bundle", backend="openvino")


def test_tensorrt_rtx_builds_them(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")
    library = open_library("tensorrt-rtx")
    precision = ",".join(PRECISIONS)
    export(
        checkpoint,
        ExportOptions(output=tmp_path / "bundle", target="tensorrt", precision=precision, threads=1),
    )
    declared = Bundle.read(tmp_path / "bundle")
    for name, variant in declared.variants.items():
        for role, path in variant.graphs.items():
            parsed = parse(library, tmp_path / "bundle" / path, profiles(declared, role))
            for given in (parsed.network.get_input(i) for i in range(parsed.network.num_inputs)):
                assert not given.is_shape_tensor, given.name  # nothing must be known to the processor
        target, options = (
            Target("", PRECISIONS[variant.precision], ""),
            Options(shapes=Shapes(declared.max_length)),
        )
        assert [
            m.built for m in ahead.build_engines(tmp_path / "bundle", library, [target], options, [name])
        ] == [True]
