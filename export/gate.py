"""Make one variant that holds its gates: parity with PyTorch, and quality on the user's own data.

Where a variant does not hold, layers go back to fp32 one at a time, the most sensitive first, until it does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from headway.core.errors import GateError
from headway.core.manifest import Bundle, Graph, Variant
from headway.core.progress import Progress, silent
from headway.core.tasks import FIGURES_FALLING, EncoderTask, Example, Output, Row, Spec
from headway.export import contract, parity, sensitivity
from headway.export.parity import Answers, Parity
from headway.export.precision import base
from headway.runtime.backends.base import Backend, load_engine
from headway.runtime.pipeline import Pipeline

ENGINE = "onnxruntime"
"""what the proof runs on"""
ROLE = "model"
"""of an encoder's one graph"""
FILE = "model.onnx"
SAMPLES = 32
"""rows on which layers are measured and ranges are calibrated, of many lengths"""


@dataclass(frozen=True)
class Proof:
    """What every variant of an encoder is held to."""

    task: EncoderTask
    spec: Spec
    draft: Bundle
    """the manifest, still without variants"""
    tokenizer: Any
    """the bundle's own"""
    compared: list[Row]
    expected: Answers
    """PyTorch's, of the compared rows"""
    examples: list[Example]
    """labelled; empty without --eval"""
    reference: dict[str, float]
    """the checkpoint's own figures on the examples"""
    max_drop: float | None
    threads: int
    checkpoint: str

    @property
    def declared(self) -> Graph:
        return self.draft.graphs[ROLE]

    @property
    def metric(self) -> str:
        return self.task.metric(self.spec.settings)

    @property
    def sample(self) -> list[Row]:
        """Some of the compared rows, of every length."""
        ordered = sorted(self.compared, key=lambda row: len(row.ids))
        return ordered[:: max(1, len(ordered) // SAMPLES)]

    def open(self, graph: Path) -> Backend:
        engine = load_engine(ENGINE)
        return engine.open_graph(graph, self.declared, self.task.READ, self.draft.pad_id, "cpu", self.threads)


def make(precision: str, fp32: ModelProto, proof: Proof, folder: Path, progress: Progress) -> Variant:
    """Write `folder/model.onnx` in a precision, with as few layers left in fp32 as the gates allow.

    Raises GateError if they do not hold with all layers but one left in fp32 either.
    """
    kept: list[str] = []
    ranked: Sequence[str] | None = [] if precision == "fp32" else None
    path = folder / FILE
    while True:
        _convert(precision, fp32, kept, proof, path)
        label = f"{precision}, {len(kept)} layers in fp32" if kept else precision
        backend = proof.open(path)
        measured = parity.measure(
            proof.task, proof.spec, backend, proof.compared, proof.expected, progress, f"parity {label}"
        )
        problem = parity.problem(precision, measured)
        settings, quality = proof.spec.settings, dict[str, float]()
        if problem is None and proof.examples:
            settings, quality = _judge(precision, backend, proof)
            problem = _lost(precision, quality, proof)
        if problem is None:
            _write_temperature(path, settings)
            return _variant(precision, kept, settings, measured, quality, proof)
        if ranked is None:
            ranked = _ranked(precision, fp32, proof, path, progress)
        if len(kept) >= len(ranked) - 1:
            raise problem
        kept.append(ranked[len(kept)])


def _convert(precision: str, fp32: ModelProto, kept: Collection[str], proof: Proof, path: Path) -> None:
    feeds = [_feed(row, proof.declared) for row in proof.sample]
    model = base.load(precision).convert(ir.from_proto(fp32), kept, feeds)
    contract.check(model, proof.declared, proof.checkpoint)
    ir.save(model, path)


def _feed(row: Row, declared: Graph) -> dict[str, Any]:
    values = {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "token_type_ids": row.types}
    return {tensor.name: np.array([values[tensor.name]], np.int64) for tensor in declared.inputs}


def _ranked(precision: str, fp32: ModelProto, proof: Proof, path: Path, progress: Progress) -> Sequence[str]:
    model = ir.from_proto(fp32)
    parts = [layer.name for layer in base.layers(model)] + [table.name for table in base.tables(model)]
    names = list(dict.fromkeys(parts))

    def run(kept: Collection[str]) -> Answers:
        _convert(precision, fp32, kept, proof, path)
        return parity.alone(proof.task, proof.open(path), proof.sample, silent, "")

    return sensitivity.order(names, run, progress, f"layers of {precision}")


def _judge(precision: str, backend: Backend, proof: Proof) -> tuple[Any, dict[str, float]]:
    """Settings fitted for the variant, and its figures with them, through the runtime's pipeline.

    fp32 keeps the checkpoint's settings.
    """
    task, spec = proof.task, proof.spec
    pipe = Pipeline(proof.draft, precision, task, spec, proof.tokenizer, backend)
    rows = task.rows(proof.examples, proof.tokenizer, spec)
    outputs = [Output(row, answer) for row, answer in zip(rows, pipe.answers(rows), strict=True)]
    if precision != "fp32":
        spec = Spec(spec.labels, spec.max_length, task.calibrate(proof.examples, outputs, spec))
    return spec.settings, task.metrics(proof.examples, task.decode(proof.examples, outputs, spec))


def _lost(precision: str, quality: dict[str, float], proof: Proof) -> GateError | None:
    name = proof.metric
    drop = proof.reference[name] - quality[name]
    if name in FIGURES_FALLING:
        drop = -drop / proof.reference[name]  # how much larger, as a share
    if proof.max_drop is None or drop <= proof.max_drop:
        return None
    return GateError("quality", precision, f"drop in {name}", drop, proof.max_drop)


def _write_temperature(path: Path, settings: Any) -> None:
    """Put the settings' temperature into the graph, for other tools than headway's runtime."""
    model = ir.load(path)
    constant = model.graph.initializers.get("temperature")
    if constant is None or constant.const_value is None:
        return
    dtype = constant.const_value.dtype
    constant.const_value = ir.tensor(np.array(settings.temperature, dtype.numpy()), name="temperature")
    ir.save(model, path)


def _variant(
    precision: str, kept: list[str], settings: Any, measured: Parity, quality: dict[str, float], proof: Proof
) -> Variant:
    own = msgspec.to_builtins(settings)
    return Variant(
        precision=precision,
        graphs={ROLE: f"{precision}/{FILE}"},
        kept=kept,
        settings={} if own == proof.draft.settings else own,
        parity=measured.as_manifest(precision),
        quality=quality,
    )
