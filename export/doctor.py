"""What each layer of a variant loses, holds and gains on this processor, and sentences for the usual traps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from headway.core import hardware
from headway.core.errors import UsageError
from headway.core.manifest import Bundle
from headway.export import store
from headway.export.precision import base
from headway.export.precision.base import Feeds

TOKENS = 128
"""rows of the products that are timed"""
TIMES = 30
OUTLIER = 20.0
"""a channel this many times larger than the median one is told of"""
LOW = 15.0
"""dB; a layer below is told of"""


@dataclass(frozen=True)
class LayerReport:
    """One linear layer of a variant, beside the same layer in fp32."""

    name: str
    inputs: int
    outputs: int
    kept: bool
    """left in fp32"""
    signal_to_noise: float | None
    """dB, of its output and of all that was lost before it; None if the variant has not this value"""
    outlier: float
    """largest magnitude of an input channel, over the median channel's"""
    bytes_fp32: int
    bytes: int
    gain: float
    """time in fp32 over time in the variant's precision, for 128 tokens on this processor, one thread"""


def layers(folder: Path, manifest: Bundle, variant: str, feeds: Feeds) -> list[LayerReport]:
    """Compare each linear layer of a variant with fp32 on real inputs. Raises UsageError without an fp32 variant."""
    if "fp32" not in manifest.variants or "model" not in manifest.graphs:
        raise UsageError("--layers", "wants an encoder's bundle with an fp32 variant to compare with")
    paths = [folder / manifest.variants[name].graphs["model"] for name in ("fp32", variant)]
    reference, converted = (ir.load(path) for path in paths)
    found = base.layers(reference)
    asked = {str(layer.node.outputs[0].name) for layer in found}
    asked |= {str(layer.node.inputs[0].name) for layer in found if layer.node.inputs[0] is not None}
    exact, rough = (_values(model, asked, feeds) for model in (reference, converted))
    kept = set(manifest.variants[variant].kept)
    precision = manifest.variants[variant].precision
    gains = {shape: _gain(precision, *shape) for shape in {layer.weight.shape for layer in found}}
    held = {
        name: value.const_value.nbytes
        for name, value in converted.graph.initializers.items()
        if value.const_value
    }
    reports = []
    for layer in found:
        x, y = str(layer.node.inputs[0].name), str(layer.node.outputs[0].name)  # type: ignore[union-attr]
        weight = str(layer.node.inputs[1].name)  # type: ignore[union-attr]
        own = sum(size for name, size in held.items() if name == weight or name.startswith(f"{weight}."))
        reports.append(
            LayerReport(
                name=layer.name,
                inputs=layer.weight.shape[0],
                outputs=layer.weight.shape[1],
                kept=layer.name in kept,
                signal_to_noise=_decibels(exact[y], rough[y]) if y in rough else None,
                outlier=_outlier(exact[x]),
                bytes_fp32=layer.weight.nbytes,
                bytes=own,
                gain=1.0 if layer.name in kept else gains[layer.weight.shape],
            )
        )
    return reports


def _values(model: ir.Model, names: set[str], feeds: Feeds) -> dict[str, list[NDArray[Any]]]:
    """The values of these names in a graph, for each feed."""
    outputs = {value.name for value in model.graph.outputs}
    for node in list(model.graph):
        for value in node.outputs:
            if value.name in names and value.name not in outputs:
                outputs.add(value.name)
                model.graph.outputs.append(value)
    read = [name for name in sorted(names) if name in outputs]
    session = store.session(model, threads=1)
    runs = [session.run(read, dict(feed)) for feed in feeds]
    return {name: [np.asarray(run[i], np.float32) for run in runs] for i, name in enumerate(read)}


def _decibels(exact: Sequence[NDArray[Any]], rough: Sequence[NDArray[Any]]) -> float:
    signal = sum(float((e.astype(np.float64) ** 2).sum()) for e in exact)
    noise = sum(float(((e - r).astype(np.float64) ** 2).sum()) for e, r in zip(exact, rough, strict=True))
    return float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _outlier(values: Sequence[NDArray[Any]]) -> float:
    most = np.max([np.abs(v).reshape(-1, v.shape[-1]).max(0) for v in values], axis=0)  # (channels)
    return float(most.max() / max(float(np.median(most)), 1e-12))


def _gain(precision: str, inputs: int, outputs: int) -> float:
    """How much faster one product of this shape is than in fp32."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((inputs, outputs)).astype(np.float32) * 0.05
    feed = {"x": random.standard_normal((1, TOKENS, inputs)).astype(np.float32)}
    models = (_product(weight), base.load(precision).convert(_product(weight), (), [feed]))
    plain, other = (store.session(model, threads=1) for model in models)
    times: dict[Any, list[float]] = {plain: [], other: []}
    for _ in range(TIMES):
        for session, taken in times.items():  # in turn, so that a busy moment meets both
            begin = time.perf_counter()
            session.run(None, feed)
            taken.append(time.perf_counter() - begin)
    return min(times[plain]) / min(times[other])


def _product(weight: NDArray[np.float32]) -> ir.Model:
    x = ir.Value(
        name="x", shape=ir.Shape(["batch", "length", weight.shape[0]]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    constant = ir.Value(
        name="layer.weight",
        shape=ir.Shape(weight.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(weight, name="layer.weight"),
    )
    node = ir.node("MatMul", [x, constant], name="product")
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(["batch", "length", weight.shape[1]])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[constant], opset_imports={"": 24})
    return ir.Model(graph, ir_version=11)


def advice(folder: Path, manifest: Bundle, variant: str, found: Sequence[LayerReport]) -> list[str]:
    """What an engineer should know of these figures."""
    said = []
    precision = manifest.variants[variant].precision
    flags = hardware.cpu_flags()
    if precision.startswith("int8") and not hardware.has_fast_int8(flags):
        said.append(
            "This processor has no 8-bit dot products (VNNI or AMX): int8 saves memory here, and little or no time."
        )
    slow = sorted({(r.inputs, r.outputs) for r in found if not r.kept and r.gain < 1})
    if slow:
        shapes = ", ".join(f"{i}×{o}" for i, o in slow)
        said.append(
            f"Products of {shapes} are slower in {precision} than in fp32: such small ones do not pay."
        )
    loud = [r.name for r in found if r.outlier > OUTLIER]
    if loud and precision != "fp32":
        said.append(
            f"Outlier channels (over {OUTLIER:.0f}× the median one) go into {', '.join(loud[:5])}"
            f"{' and more' if len(loud) > 5 else ''}: with one scale for all channels the others lose; "
            "int8-static moves them into the weights."
        )
    low = [r.name for r in found if r.signal_to_noise is not None and r.signal_to_noise < LOW]
    if low:
        said.append(f"Below {LOW:.0f} dB: {', '.join(low[:5])}{' and more' if len(low) > 5 else ''}.")
    left = _unfused(folder / manifest.variants[variant].graphs["model"])
    if left:
        said.append(
            f"{left} products still run in fp32 between Q and DQ nodes: ONNX Runtime did not fuse them, which costs time."
        )
    return said


def _unfused(path: Path) -> int:
    """Products whose inputs are dequantized at run time, after ONNX Runtime's own optimization."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "optimized.data"
        )
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = ir.load(options.optimized_model_filepath)
        return sum(
            node.op_type in ("MatMul", "FusedMatMul", "Gemm")
            and any(_is_dequantized(value) for value in node.inputs)
            for node in model.graph
        )


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"
