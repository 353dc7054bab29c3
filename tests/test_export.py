"""Export: parity with PyTorch, the same bytes twice, standard ops, independence of neighbours, gates."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization import quantize_dynamic

from headway.core import tasks
from headway.core.errors import (
    CheckpointError,
    DataError,
    GateError,
    OutputError,
    UsageError,
)
from headway.core.manifest import Bundle, Graph, Tensor
from headway.core.progress import silent
from headway.core.tolerance import PRECISION
from headway.export import contract, encoders, proof
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.export.precision import base, int8
from headway.export.precision.base import Feeds
from headway.export.proof import Parity
from headway.runtime import load
from headway.runtime.backends.base import Backend
from headway.runtime.backends.onnxruntime import open_graph
from headway.runtime.ragged import Ragged
from headway.train import checkpoint as pytorch
from tests.conftest import rows_of, write_jsonl
from tests.tolerance import MODEL, NEIGHBOURS

Plant = Callable[[ir.Model], None]


@pytest.fixture(scope="module")
def opened(checkpoint: Path) -> pytorch.Opened:
    return pytorch.open_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> Bundle:
    return Bundle.read(bundle)


def graph_of(bundle: Path, precision: str) -> onnx.ModelProto:
    return onnx.load(bundle / precision / "model.onnx")


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("size", [1, 7])
def test_logits_are_pytorchs(
    precision: str, size: int, opened: pytorch.Opened, bundle: Path, manifest: Bundle, texts: list[str]
) -> None:
    backend = opened_graph(bundle / precision / "model.onnx", manifest, ("logits", "probabilities"))
    rows = rows_of(opened, texts)
    parts = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    found = [backend.run([Ragged.of(part)])[0] for part in parts]
    expected = [pytorch.outputs(opened, part) for part in parts]
    for name in ("logits", "probabilities"):
        ours, theirs = (np.concatenate([batch[name] for batch in side]) for side in (found, expected))
        rtol, atol = MODEL[precision]
        np.testing.assert_allclose(ours, theirs, rtol, atol * np.abs(theirs).max())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_manifest_tells_what_was_measured(precision: str, manifest: Bundle) -> None:
    told = manifest.variants[precision].parity
    limits = PRECISION[precision]
    assert told["rows"] > 90
    assert (told["shortest"], told["longest"]) == (1, manifest.max_length)
    assert 0 < told["mean"] <= told["worst"] <= limits.worst
    assert told["mean"] <= limits.mean
    assert told["neighbours"] <= limits.neighbours
    assert told["agreement"] > 0.9
    assert manifest.variants[precision].quality.keys() == {"accuracy", "macro_f1"}


def test_the_card_names_every_variant(bundle: Path, manifest: Bundle) -> None:
    card = (bundle / "README.md").read_text("utf-8")
    for name, variant in manifest.variants.items():
        assert f"| {name} |" in card
        assert f"{variant.quality['accuracy']:.4f}" in card


def test_another_process_writes_the_same_bytes(
    bundle: Path, checkpoint: Path, dev_file: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from headway.export.bundle import export\n"
        "from headway.export.options import ExportOptions\n"
        "export(Path(sys.argv[1]), ExportOptions(output=Path(sys.argv[2]), eval=Path(sys.argv[3]), threads=1))"
    )
    command = [sys.executable, "-c", code, str(checkpoint), str(tmp_path / "other"), str(dev_file)]
    subprocess.run(command, check=True, capture_output=True)
    ours, others = Bundle.read(bundle), Bundle.read(tmp_path / "other")
    assert ours == others


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_graphs_are_standard_onnx(precision: str, bundle: Path) -> None:
    model = graph_of(bundle, precision)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [(o.domain, o.version >= 23) for o in model.opset_import if o.domain == ""] == [("", True)]
    assert not model.functions


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_single_ops(precision: str, bundle: Path, manifest: Bundle) -> None:
    found, layers = ops(graph_of(bundle, precision)), manifest.architecture["layers"]
    assert found["Attention"] == layers
    assert found["Gelu"] == layers
    assert found["LayerNormalization"] == 2 * layers + 1
    assert not {"Erf", "Pow", "Sqrt", "ReduceMean"} & found.keys()


def test_no_float_product_is_left_in_int8(bundle: Path) -> None:
    def constant_products(model: onnx.ModelProto) -> int:
        matrices = {
            t.name
            for t in model.graph.initializer
            if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT
        }
        return sum(n.op_type == "MatMul" and n.input[1] in matrices for n in model.graph.node)

    before, after = graph_of(bundle, "fp32"), graph_of(bundle, "int8")
    assert constant_products(before) > 0
    assert constant_products(after) == 0
    assert ops(after)["MatMulInteger"] == constant_products(before)
    assert "DynamicQuantizeLinear" not in ops(after)


def test_graphs_tell_nothing_of_the_machine(bundle: Path) -> None:
    for precision in ("fp32", "int8"):
        content = (bundle / precision / "model.onnx").read_bytes()
        assert str(Path(onnx.__file__).parents[1]).encode() not in content  # where packages lie
        assert str(Path.cwd()).encode() not in content
        assert b"site-packages" not in content


def opened_graph(graph: Path, manifest: Bundle, read: Sequence[str] = ("logits",)) -> Backend:
    return open_graph(graph, manifest.graphs["model"], read, manifest.pad_id, "cpu", 1)


def measured(graph: Path, bundle: Path, manifest: Bundle, opened: pytorch.Opened, texts: list[str]) -> Parity:
    task: Any = tasks.load("text-classification")
    rows = rows_of(opened, texts)
    expected = encoders.reference(opened, task, rows, silent)
    return encoders.measure(task, opened.spec, opened_graph(graph, manifest), rows, expected, silent, "")


def test_int8_is_independent_of_neighbours_and_the_usual_way_is_not(
    bundle: Path, manifest: Bundle, opened: pytorch.Opened, texts: list[str], tmp_path: Path
) -> None:
    ours = measured(bundle / "int8" / "model.onnx", bundle, manifest, opened, texts)
    assert ours.neighbours <= NEIGHBOURS["int8"][1]
    plain = graph_of(bundle, "fp32")
    del plain.graph.value_info[:]  # the tool transposes weights, but not the shapes that are noted of them
    quantize_dynamic(plain, tmp_path / "usual.onnx", op_types_to_quantize=["MatMul"])
    usual = measured(tmp_path / "usual.onnx", bundle, manifest, opened, texts)
    assert usual.neighbours > 100 * NEIGHBOURS["int8"][1]


def test_weights_are_rounded_to_the_nearest_step() -> None:
    weight = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    weight[:, 3] = 0
    for axis, largest in ((0, int8.LARGEST_WEIGHT), (1, int8.LARGEST)):
        rounded, scale = int8._rounded(weight, axis, largest)
        assert rounded.dtype == np.int8
        assert np.abs(rounded.astype(int)).max() == largest
        assert np.all(np.abs(rounded * scale - weight) <= scale * 0.5001)


def test_pairs_of_products_fit_sixteen_bits(bundle: Path) -> None:
    """A processor without VNNI adds pairs of uint8 times int8 with saturation at 32,767."""
    model = graph_of(bundle, "int8")
    names = {n.input[1] for n in model.graph.node if n.op_type == "MatMulInteger"}
    weights = [onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.name in names]
    assert len(weights) == len(names) > 5
    assert max(2 * 255 * int(np.abs(w.astype(int)).max()) for w in weights) < 2**15


def test_large_embedding_tables_are_int8(
    bundle: Path, manifest: Bundle, opened: pytorch.Opened, texts: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(base, "SMALLEST_TABLE", 1000)
    model = int8.convert(ir.load(bundle / "fp32" / "model.onnx"), (), ())
    ir.save(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    found = measured(tmp_path / "model.onnx", bundle, manifest, opened, texts)
    assert (tmp_path / "model.onnx").stat().st_size < (bundle / "int8" / "model.onnx").stat().st_size
    assert found.mean <= MODEL["int8"][1]
    assert found.neighbours <= NEIGHBOURS["int8"][0]


def test_all_breaches_of_the_contract_are_told_together(bundle: Path, manifest: Bundle) -> None:
    model = ir.load(bundle / "fp32" / "model.onnx")
    declared = manifest.graphs["model"]
    contract.check(model, declared, "checkpoint")
    inputs = [Tensor(name="input_ids", dtype="int32", shape=["batch", "length"]), *declared.inputs[2:]]
    outputs = [
        Tensor(name="logits", dtype="float32", shape=["batch", 99]),
        Tensor(name="embedding", dtype="float32", shape=["batch"]),
    ]
    with pytest.raises(CheckpointError) as caught:
        contract.check(model, Graph(inputs=inputs, outputs=outputs), "checkpoint")
    for problem in (
        "input 'attention_mask' is not declared",
        "input 'input_ids' is int64['batch', 'length'], not int32['batch', 'length']",
        "output 'probabilities' is not declared",
        "output 'logits' is float32['batch', 4], not float32['batch', 99]",
        "output 'embedding' is missing",
    ):
        assert problem in caught.value.problem


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Plant], None]:
    """Let the int8 variant come out wrong."""
    convert = int8.convert

    def with_fault(fault: Plant) -> None:
        def wrong(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
            converted = convert(model, kept, feeds)
            fault(converted)
            return converted

        monkeypatch.setattr(int8, "convert", wrong)

    return with_fault


def scale(model: ir.Model, part: str, by: float) -> None:
    """Multiply all float constants with `part` in their name."""
    found = [v for name, v in model.graph.initializers.items() if part in name]
    assert found
    for value in found:
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(by), name=value.name)


def one_weight_too_large(model: ir.Model) -> None:
    names = [name for name in model.graph.initializers if name.endswith(".scale")]
    if names:  # none are left where all layers are kept in fp32
        scale(model, names[-1], 1000)


def turned_around(model: ir.Model) -> None:
    scale(model, "classifier", -1)


def test_a_wrong_variant_is_no_bundle(plant: Any, checkpoint: Path, tmp_path: Path) -> None:
    plant(one_weight_too_large)
    with pytest.raises(GateError, match="^parity gate: variant int8: ") as caught:
        export(checkpoint, ExportOptions(output=tmp_path / "bundle", threads=1))
    assert caught.value.exit_code == 4
    assert caught.value.measured > caught.value.limit
    assert list(tmp_path.iterdir()) == []


def test_a_variant_that_lost_quality_is_no_bundle(
    plant: Any,
    checkpoint: Path,
    bundle: Path,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(turned_around)
    monkeypatch.setattr(proof, "problem", lambda precision, measured: None)
    answers: Any = load(bundle, precision="fp32")(texts)
    rows = [{"text": t, "label": a.label} for t, a in zip(texts, answers, strict=True)]
    data = write_jsonl(tmp_path / "eval.jsonl", rows)  # on which the checkpoint is always right
    options = ExportOptions(output=tmp_path / "bundle", eval=data, max_drop=0.05, threads=1)
    with pytest.raises(GateError, match="^quality gate: variant int8: drop in accuracy is ") as caught:
        export(checkpoint, options)
    assert caught.value.measured > 0.5 > caught.value.limit == 0.05
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("figure", ["worst", "mean", "neighbours"])
@pytest.mark.parametrize("value", [10.0, float("nan")])
def test_every_figure_is_gated(figure: str, value: float) -> None:
    good = {"worst": 0.0, "mean": 0.0, "neighbours": 0.0}
    places = {"rows": 1, "shortest": 3, "longest": 3, "agreement": 1.0}
    assert proof.problem("fp32", Parity(**good, **places)) is None  # type: ignore[arg-type]
    found = proof.problem("fp32", Parity(**good | {figure: value}, **places))  # type: ignore[arg-type]
    assert found is not None
    assert (found.figure, found.variant) == (figure, "fp32")


def test_inputs_to_compare_on_are_of_every_length(opened: pytorch.Opened) -> None:
    task: Any = tasks.load("text-classification")
    own = [tasks.read_input(task, f"own text {i}", i) for i in range(1000)]
    raw = opened.tokenizer.backend_tokenizer
    chosen = encoders.own_rows(task, raw, opened.spec, own)
    ours = [row.ids for row in task.rows(own, raw, opened.spec)]
    assert len(chosen) == encoders.OWN
    assert [row.ids for row in chosen] == ours[:: len(own) // encoders.OWN][: encoders.OWN]
    assert encoders.own_rows(task, raw, opened.spec, []) == []
    rows = encoders.rows(raw, opened.spec)
    lengths = {len(row.ids) for row in rows}
    assert {n for n in encoders.LENGTHS if n <= opened.spec.max_length} <= lengths
    assert max(lengths) == opened.spec.max_length
    assert any(1 in row.types for row in rows)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "token-classification",
            "--task: is token-classification, but .* was trained for text-classification",
        ),
        ("nonsense", "--task: unknown 'nonsense'"),
    ],
)
def test_wrong_task(task: str, message: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        export(checkpoint, ExportOptions(output=tmp_path / "bundle", task=task))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp32,fp7"}, "--precision: unknown 'fp7'; known: bf16, fp16, fp32, fp8, int4-weights"),
        ({"precision": ""}, "--precision: unknown ''"),
        ({"precision": "int8,int8"}, "--precision: names a variant twice"),
        ({"max_drop": 0.1}, "--max-drop: needs --eval"),
        ({"max_drop": -0.1, "eval": Path("x")}, "--max-drop: must be between 0 and 1"),
        ({"max_drop": 1.1, "eval": Path("x")}, "--max-drop: must be between 0 and 1"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        ExportOptions(output=Path("bundle"), **options)


def test_static_ranges_need_texts(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^--calibration: "):
        export(checkpoint, ExportOptions(output=tmp_path / "bundle", precision="int8-static"))
    assert list(tmp_path.iterdir()) == []


def test_every_precision_is_proven(
    checkpoint: Path, dev_file: Path, texts: list[str], tmp_path: Path
) -> None:
    names = ["fp32", "fp16", "int8", "int8-static", "int8-weights", "int4-weights"]
    options = ExportOptions(output=tmp_path / "bundle", precision=",".join(names), eval=dev_file, threads=1)
    report = export(checkpoint, options)
    assert list(report.variants) == names
    plain: Any = load(tmp_path / "bundle", precision="fp32", threads=1)(texts)
    for name in names:
        found: Any = load(tmp_path / "bundle", precision=name, threads=1)(texts)
        assert np.mean([f.label == p.label for f, p in zip(found, plain, strict=True)]) > (
            0.5 if name == "int4-weights" else 0.8
        )
        assert report.variants[name].quality.keys() == report.reference.keys()
    ratio = {n: (tmp_path / "bundle" / n / "model.onnx").stat().st_size for n in names}
    assert all(ratio[n] < ratio["fp32"] for n in names[1:])


def test_what_is_wrong_is_told_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(
        '{"text": "fine", "label": "bug"}\n{"text": "fine", "label": "new"}\n'
    )
    options = ExportOptions(output=tmp_path / "bundle", eval=tmp_path / "eval.jsonl")
    with pytest.raises(DataError, match=r"eval.jsonl:2: field 'label': unknown label 'new'; known: bug, "):
        export(checkpoint, options)
    with pytest.raises(OutputError):
        export(checkpoint, ExportOptions(output=tmp_path / "eval.jsonl"))
    with pytest.raises(CheckpointError):
        export(tmp_path, ExportOptions(output=tmp_path / "bundle"))
    assert [p.name for p in tmp_path.iterdir()] == ["eval.jsonl"]


class NaNInPadding:
    """A backend whose padded rows are no numbers."""

    pads = True

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def run(self, batches: Sequence[Ragged]) -> Any:
        answers = self._backend.run(batches)
        for batch, found in zip(batches, answers, strict=True):
            padded = batch.lengths < batch.lengths.max()
            for values in found.values():
                values[padded] = np.nan
        return answers


def test_nan_among_neighbours_is_seen(
    bundle: Path, manifest: Bundle, opened: pytorch.Opened, texts: list[str]
) -> None:
    task: Any = tasks.load("text-classification")
    rows = rows_of(opened, texts)
    backend = NaNInPadding(opened_graph(bundle / "fp32" / "model.onnx", manifest))
    expected = encoders.reference(opened, task, rows, silent)
    found = encoders.measure(task, opened.spec, backend, rows, expected, silent, "")
    assert found.worst <= PRECISION["fp32"].worst  # each alone is right
    assert np.isnan(found.neighbours)
    problem = proof.problem("fp32", found)
    assert problem is not None
    assert (problem.figure, problem.exit_code) == ("neighbours", 4)
    good = Parity(rows=1, shortest=3, longest=3, worst=0.0, mean=0.0, neighbours=0.0, agreement=1.0)
    for pair in ((good, found), (found, good)):
        assert np.isnan(pair[0].worst_of(pair[1]).neighbours)


def test_agreement_of_what_is_no_number() -> None:
    places: dict[str, Any] = {
        "rows": 1,
        "shortest": 3,
        "longest": 3,
        "worst": 0.0,
        "mean": 0.0,
        "neighbours": 0.0,
    }
    problem = proof.problem("fp32", Parity(**places, agreement=float("nan")))
    assert problem is not None
    assert problem.figure == "agreement"
    good = Parity(**places, agreement=1.0)
    for pair in (
        (good, Parity(**places, agreement=float("nan"))),
        (Parity(**places, agreement=float("nan")), good),
    ):
        assert np.isnan(pair[0].worst_of(pair[1]).agreement)
    task: Any = tasks.load("text-classification")
    for number in (np.nan, np.inf):
        answers = [np.array([0.1], np.float32), np.array([number], np.float32)]
        right = [np.array([0.1], np.float32), np.array([0.2], np.float32)]
        assert np.isnan(encoders.agreement(task, tasks.Spec([], 8, None), answers, right))
