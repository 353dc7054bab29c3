"""Graphs without padding: which models have one, that ONNX Runtime takes it, and that it answers as the padded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core import tasks
from headway.core.manifest import RAGGED, Bundle, Graph
from headway.core.tasks import Row
from headway.core.tolerance import PRECISION
from headway.export import encoders, graph, ragged, store, unpacked
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.export.precision import base
from headway.runtime.backends.onnxruntime import OnnxRuntime
from headway.runtime.ragged import Ragged
from headway.train import checkpoint as opener
from tests.test_architectures import ENCODERS, model_of
from tests.test_export_tasks import DATA, untrained
from tests.tolerance import TOLERANCE

PADDED = ("mpnet", "deberta-v2", "modernbert")
"""architectures that mix tokens otherwise"""
POOLED = ("pooled", "pairs")
"""kinds of data whose head weighs tokens, or takes their maxima"""
SHOWN = (*POOLED, "vectors", "questions")
"""kinds of data in the suite"""


def traced(architecture: str, kind: str, folder: Path) -> tuple[ir.Model, Graph]:
    """A checkpoint's padded graph in fp32."""
    model = model_of(architecture, transformers.AutoModel, folder / "model")
    opened = opener.open_checkpoint(untrained(kind, model, folder)[0])
    task: Any = tasks.load(opened.manifest.task)
    declared = encoders.declare(opened, task, opened.model.config.hidden_size)[encoders.ROLE]
    return graph.build(opened, declared), declared


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    return traced("bert", "vectors", tmp_path_factory.mktemp("bert"))[0]


def feeds(model: ir.Model) -> Any:
    ids = np.random.default_rng(0).integers(1, 90, (1, 20))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return base.Remembered([{str(v.name): given[str(v.name)] for v in model.graph.inputs}])


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(kind, marks=() if kind == "roberta" else pytest.mark.grid)
        for kind in ENCODERS
        if kind not in PADDED
    ]
    + [pytest.param("albert", marks=pytest.mark.grid), pytest.param("xlm-roberta", marks=pytest.mark.grid)],
)
def test_architectures_with_such_a_graph(architecture: str, tmp_path: Path) -> None:
    """Export proves it beside the padded one, by its variant's limits."""
    model = model_of(architecture, transformers.AutoModel, tmp_path / "model")
    checkpoint, _ = untrained("questions", model, tmp_path)
    names = "fp32,fp16,bf16,int8-weights,int4-weights"
    export(checkpoint, ExportOptions(output=tmp_path / "bundle", target="cuda", precision=names, threads=1))
    declared = Bundle.read(tmp_path / "bundle")
    for name, variant in declared.variants.items():
        assert (RAGGED in variant.graphs) == (name != "bf16"), name
        assert variant.parity["worst"] <= PRECISION[name].worst
        assert variant.parity["neighbours"] <= PRECISION[name].neighbours
        if name != "bf16":
            beside, whole = (declared.files[f"{name}/{role}.onnx"].bytes for role in (RAGGED, "model"))
            assert beside < whole < declared.files[f"{name}/model.onnx.data"].bytes
            assert variant.graphs[RAGGED] == f"{name}/{RAGGED}.onnx"


@pytest.mark.parametrize(
    "architecture", ["mpnet", "modernbert", pytest.param("deberta-v2", marks=pytest.mark.grid)]
)
def test_architectures_that_stay_padded(architecture: str, tmp_path: Path) -> None:
    assert ragged.rewrite(traced(architecture, "tags", tmp_path)[0]) is None


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in SHOWN else pytest.mark.grid) for k in DATA]
)
def test_heads(kind: str, tmp_path: Path) -> None:
    model, declared = traced("bert", kind, tmp_path)
    made = ragged.rewrite(model)
    assert (made is None) == (kind in POOLED)
    if made is None:
        return
    ops = {node.op_type for node in made.graph}
    assert ragged.OP in ops
    assert not ops & {"Attention", "ReduceSum", "CumSum"}
    outputs = {t.name: t.shape for t in ragged.declare(made).outputs}
    flat = {"batch": "batch", "length": "tokens"}
    for tensor in declared.outputs:
        of_tokens = "length" in tensor.shape
        assert outputs[tensor.name] == [flat.get(str(d), d) for d in tensor.shape[of_tokens:]]


@pytest.mark.parametrize("way", ["mean", "first"])
def test_an_output_that_is_pooled_tokens(bert: ir.Model, way: str) -> None:
    """The mean itself, or the first token."""
    model = store.twin(bert)
    pooled = next(node.inputs[0] for node in model.graph if node.op_type == "ReduceL2")
    assert pooled is not None
    if way == "first":
        tokens = next(node.inputs[0] for node in model.graph if node.op_type == "Mul")
        first = base.Writer(model).constant("zero", np.array(0))
        gather = ir.node("Gather", [tokens, first], {"axis": 1})
        pooled.producer().graph.append(gather)  # type: ignore[union-attr]
        gather.outputs[0].shape, gather.outputs[0].type = pooled.shape, pooled.type
        pooled = gather.outputs[0]
    model.graph.outputs[0].name, pooled.name = "normal", "sentence_embedding"
    model.graph.outputs[0] = pooled
    made = ragged.rewrite(model)
    assert made is not None
    (told,) = ragged.declare(made).outputs
    assert (told.name, told.shape) == ("sentence_embedding", ["batch", 32])


def test_16_bits_that_the_op_has_not(bert: ir.Model) -> None:
    model = base.load("bf16").convert(store.twin(bert), (), feeds(bert))
    assert ragged.rewrite(model) is None


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_takes_it_up_to_the_kernel(bert: ir.Model, precision: str, tmp_path: Path) -> None:
    """Types and shapes are checked before kernels are looked for, of which a processor has none."""
    made = ragged.rewrite(base.load(precision).convert(store.twin(bert), (), feeds(bert)))
    assert made is not None
    wanted = {
        "right": "NOT_IMPLEMENTED.*PackedMultiHeadAttention",
        "wrong": "Type Error: Type .tensor\\(int64\\). of input parameter",
    }
    for name, message in wanted.items():
        store.write(made, tmp_path / name)
        with pytest.raises(Exception, match=message):
            ort.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
        next(value for value in made.graph.inputs if value.name == "bounds").dtype = ir.DataType.INT64


def test_the_padding_token_within_a_text(tmp_path: Path) -> None:
    """RoBERTa counts positions of all tokens but that one."""
    model, declared = traced("roberta", "tags", tmp_path)
    made = ragged.rewrite(store.twin(model))
    assert made is not None
    told = ragged.declare(made)
    store.write(model, tmp_path / "model.onnx")
    store.write(unpacked.unpack(made), tmp_path / "ragged.onnx")
    random = np.random.default_rng(0)
    rows = [Row(i, random.integers(0, 3, n).tolist(), [0] * n) for i, n in enumerate((5, 1, 30, 12))]
    padded = OnnxRuntime(ort, tmp_path / "model.onnx", declared, ["logits"], 0, 1)
    flat = unpacked.OnProcessor(tmp_path / "ragged.onnx", told, ["logits"], 1)
    (found,), (expected,) = (backend.run([Ragged.of(rows)]) for backend in (flat, padded))
    for row, ours, theirs in zip(rows, found["logits"], expected["logits"], strict=True):
        np.testing.assert_allclose(ours[: len(row.ids)], theirs[: len(row.ids)], 1e-4, 1e-4)


# The op by others


def packed(heads: int, width: int, scale: float) -> ir.Model:
    """q, k, v (T, D), places and bounds to the op's answer."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    tokens = [ir.Value(name=name, type=kind, shape=ir.Shape(["tokens", width])) for name in "qkv"]
    told = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(shape))
        for name, shape in (("places", ["batch", "longest"]), ("bounds", ["bounds"]))
    ]
    inputs = [*tokens, None, *told]
    node = ir.node(ragged.OP, inputs, {"num_heads": heads, "scale": scale}, domain=ragged.DOMAIN)
    node.outputs[0].name, node.outputs[0].type = "y", kind
    node.outputs[0].shape = ir.Shape(["tokens", width])
    made = ir.Graph([*tokens, *told], node.outputs, nodes=[node], opset_imports={"": 24}, name="packed")
    return ir.Model(made, ir_version=11)


def plain(qkv: Any, lengths: list[int], heads: int, scale: float) -> Any:
    """Each text by itself, in numpy."""
    answers, at = [], 0
    for length in filter(None, lengths):
        q, k, v = (part[at : at + length].reshape(length, heads, -1).swapaxes(0, 1) for part in qkv)
        scores = np.exp(scale * q @ k.swapaxes(1, 2))
        answers.append(((scores / scores.sum(-1, keepdims=True)) @ v).swapaxes(0, 1).reshape(length, -1))
        at += length
    return np.concatenate(answers)


SESSIONS = {scale: store.session(unpacked.unpack(packed(2, 16, scale)), 1) for scale in (0.3, ragged.ALIKE)}


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    st.sampled_from([0.3, ragged.ALIKE]),
    st.integers(0, 5),
)
def test_attention_among_the_tokens_of_a_text(lengths: list[int], scale: float, more: int) -> None:
    random, count, longest = np.random.default_rng(sum(lengths)), sum(lengths), max(lengths) + more
    qkv = random.normal(size=(3, count, 16)).astype(np.float32)
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    there = np.arange(longest) < np.array(lengths)[:, None]
    places = np.concatenate([np.flatnonzero(there), np.flatnonzero(~there)]).reshape(-1, longest)
    given = {"q": qkv[0], "k": qkv[1], "v": qkv[2], "places": places.astype(np.int32), "bounds": bounds}
    (found,) = SESSIONS[scale].run(None, given)
    np.testing.assert_allclose(found, plain(qkv, lengths, 2, scale), *TOLERANCE["float32"])
    if scale == ragged.ALIKE:
        means = [qkv[2][at : at + n].mean(0) for at, n in zip(bounds, lengths, strict=False) if n]
        np.testing.assert_allclose(found[bounds[:-1][np.diff(bounds) > 0]], means, *TOLERANCE["float32"])
