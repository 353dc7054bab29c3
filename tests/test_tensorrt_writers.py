"""Models that write, for GPUs: proven in 16 bits by simulation, and taken by the parser and builder of TensorRT-RTX.

As in test_tensorrt_builder, that is not TensorRT 11's own acceptance, and no kernel has run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import transformers

from headway.core.manifest import Bundle
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime.tensorrt.build import set_capability
from headway.runtime.tensorrt.library import Library, open_library
from headway.train import fit
from headway.train.options import TrainOptions
from tests import corpora
from tests.test_architectures import model_of

KINDS: dict[str, tuple[str, Any, Any]] = {
    "t5": ("text2text-generation", transformers.AutoModelForSeq2SeqLM, corpora.rewrites),
    "bart": ("text2text-generation", transformers.AutoModelForSeq2SeqLM, corpora.rewrites),
    "gpt2": ("text-generation", transformers.AutoModelForCausalLM, corpora.texts),
    "llama": ("text-generation", transformers.AutoModelForCausalLM, corpora.texts),
}
PRECISIONS = {"fp32": (8, 0), "fp16": (8, 9), "bf16": (12, 0)}
"""each with the compute capability that it is built for here"""
SIZES = {"rows": (1, 4, 8), "batch": (1, 2, 4), "step": (1, 1, 8), "past": (0, 16, 32), "total": (1, 17, 40),
         "length": (1, 16, 32), "kept": (1, 1, 1)}  # fmt: skip
"""least, usual and most of every dimension"""


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


def test_graphs_for_onnx_runtime_on_gpus(checkpoint: Path, tmp_path: Path) -> None:
    options = ExportOptions(output=tmp_path / "bundle", target="cuda", precision="fp32,fp16", threads=1)
    found = export(checkpoint, options).variants
    assert [(v.target, v.parity["by"]) for v in found.values()] == [
        ("cuda", "onnxruntime"),
        ("cuda", "simulation"),
    ]


def test_tensorrt_rtx_builds_them(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")
    library = open_library("tensorrt-rtx")
    precision = ",".join(PRECISIONS)
    export(
        checkpoint,
        ExportOptions(output=tmp_path / "bundle", target="tensorrt", precision=precision, threads=1),
    )
    for variant in Bundle.read(tmp_path / "bundle").variants.values():
        for path in variant.graphs.values():
            plan, errors = built(library, tmp_path / "bundle" / path, PRECISIONS[variant.precision])
            assert plan, (path, errors)


def built(library: Library, graph: Path, capability: tuple[int, int]) -> tuple[bytes, list[str]]:
    """An engine for a range of every dimension, or why there is none."""
    trt, log = library.module, library.logger()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        return b"", [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for given in onnx.load(graph, load_external_data=False).graph.input:
        named = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
        profile.set_shape(
            given.name, *([SIZES[d][i] if isinstance(d, str) else d for d in named] for i in range(3))
        )
    config.add_optimization_profile(profile)
    set_capability(library, config, capability)
    plan = builder.build_serialized_network(network, config)
    return b"" if plan is None else bytes(plan), log.errors
