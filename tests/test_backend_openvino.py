"""OpenVINO: the same answers as ONNX Runtime, padding to buckets, types, threads, and what it cannot run."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Graph, Tensor
from headway.core.tasks import Row
from headway.core.tolerance import PRECISION
from headway.export.precision import base
from headway.runtime.backends import onnxruntime, openvino
from headway.runtime.ragged import Ragged
from tests import precisions

INSTALLED = find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="openvino is not installed")

NAMES = ("fp32", "int8-static", "int8-weights", "int4-weights")
LENGTHS = (1, 2, 15, 16, 17, 20, 31, 40)
POSITIONS = 20


def declared(*shape: int | str) -> Graph:
    names = ("input_ids", "attention_mask")
    inputs = [Tensor(name=name, dtype="int64", shape=["batch", "length"]) for name in names]
    return Graph(inputs=inputs, outputs=[Tensor(name="logits", dtype="float32", shape=list(shape))])


def opened(engine: Any, graph: Path, threads: int = 2) -> Any:
    return engine.open_graph(graph, declared("batch", "length", 5), ["logits"], 0, "cpu", threads)


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).mkdir()
    path = folder / name / "model.onnx"
    path.write_bytes(content)
    return path


def ragged(*lengths: int, seed: int = 0) -> Ragged:
    generator = np.random.default_rng(seed)
    ids = [generator.integers(1, precisions.VOCABULARY, length).tolist() for length in lengths]
    return Ragged.of([Row(i, row, [0] * len(row)) for i, row in enumerate(ids)])


def alone(backend: Any, texts: Ragged) -> list[NDArray[np.float32]]:
    """Logits (T, C) of each text."""
    return [backend.run([texts.take(np.array([i]))])[0]["logits"][0] for i in range(len(texts))]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    feeds = precisions.feeds(6)
    made = {n: base.load(n).convert(precisions.fp32(), (), feeds) for n in (*NAMES, "int8", "bf16")}
    return {name: written(folder, name, precisions.content(model)) for name, model in made.items()}


@needs_openvino
@pytest.mark.parametrize("name", NAMES)
def test_the_answers_of_onnx_runtime(name: str, graphs: dict[str, Path]) -> None:
    texts = ragged(*LENGTHS)
    found = np.concatenate(alone(opened(openvino, graphs[name]), texts))
    expected = np.concatenate(alone(opened(onnxruntime, graphs[name]), texts))
    apart = np.abs(found - expected) / expected.std()
    assert apart.max() <= PRECISION[name].worst
    assert apart.mean() <= PRECISION[name].mean


@needs_openvino
@pytest.mark.parametrize("name", NAMES)
def test_alone_equals_in_a_batch(name: str, graphs: dict[str, Path]) -> None:
    texts, backend = ragged(*LENGTHS), opened(openvino, graphs[name])
    expected = alone(backend, texts)
    parts = [np.arange(len(texts)), np.array([7, 0]), np.array([3, 1, 4])]
    limit = PRECISION[name].neighbours * float(np.concatenate(expected).std())
    for part, outputs in zip(parts, backend.run([texts.take(p) for p in parts]), strict=True):
        assert outputs["logits"].shape == (len(part), max(LENGTHS[i] for i in part), 5)
        for i, logits in zip(part, outputs["logits"], strict=True):
            assert np.abs(logits[: LENGTHS[i]] - expected[i]).max() <= limit


@needs_openvino
def test_answers_stay_when_others_come(graphs: dict[str, Path]) -> None:
    backend = opened(openvino, graphs["fp32"])
    (first,) = backend.run([ragged(5, seed=1)])
    kept = first["logits"].copy()
    backend.run([ragged(5, seed=2)])
    np.testing.assert_array_equal(first["logits"], kept)


@needs_openvino
def test_many_threads_may_share_it(graphs: dict[str, Path]) -> None:
    backend, texts = opened(openvino, graphs["fp32"]), ragged(*LENGTHS)
    expected = alone(opened(openvino, graphs["fp32"], threads=1), texts)
    limit = PRECISION["fp32"].neighbours * float(np.concatenate(expected).std())
    calls = [[np.array([i]), np.array([i])] if i % 2 else [np.array([i])] for i in range(len(texts))] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda parts: backend.run([texts.take(p) for p in parts]), calls)
        for parts, found in zip(calls, answers, strict=True):
            for outputs in found:
                assert np.abs(outputs["logits"][0] - expected[int(parts[0][0])]).max() <= limit


def positioned() -> bytes:
    """A model with a vector for each of so many positions, and no more."""
    rows = "logits = Add(words, places)"
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    positioned (int64[batch, length] input_ids, int64[batch, length] attention_mask)
        => (float[batch, length, 5] logits) {{
        words = Gather(table, input_ids)
        shape = Shape<start = 1, end = 2>(input_ids)
        places = Slice(positions, zero, shape)
        {rows}
    }}"""
    proto = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "table": generator.normal(size=(precisions.VOCABULARY, 5)).astype(np.float32),
        "positions": generator.normal(size=(POSITIONS, 5)).astype(np.float32),
        "zero": np.array([0]),
    }
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in constants.items())
    return bytes(proto.SerializeToString())


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
def test_a_bucket_beyond_the_models_positions(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "_longest", lambda folder: POSITIONS)
    graph = written(tmp_path, "fp32", positioned())
    texts = ragged(POSITIONS, POSITIONS - 1, 3, POSITIONS)
    assert openvino.bucket(POSITIONS, 8) > POSITIONS
    expected = alone(opened(onnxruntime, graph), texts)
    for found, logits in zip(alone(opened(openvino, graph, threads), texts), expected, strict=True):
        np.testing.assert_array_equal(found, logits)
    with pytest.raises(RuntimeError, match=f"^{POSITIONS + 1} tokens are more than the model's {POSITIONS}"):
        opened(openvino, graph, threads).run([ragged(POSITIONS + 1)])


@given(st.integers(1, 100_000), st.sampled_from(openvino.BUCKETS))
def test_buckets(length: int, buckets: int) -> None:
    least = openvino.bucket(length, buckets)
    assert length <= least < max(length + openvino.SHORTEST, (1 + 1 / buckets) * length + 1)
    assert openvino.bucket(least, buckets) == least


@pytest.mark.parametrize(("buckets", "count"), [(4, 20), (8, 32), (16, 48)])
def test_buckets_are_few(buckets: int, count: int) -> None:
    assert len({openvino.bucket(length, buckets) for length in range(1, 513)}) == count


@needs_openvino
def test_16_bits_only_where_the_graph_and_the_processor_have_them(graphs: dict[str, Path]) -> None:
    core = openvino._import().Core()
    able, unable = ["FP32", "BF16", "FP16", "INT8"], ["FP32", "INT8"]
    for name in NAMES:
        assert openvino._hint(core.read_model(graphs[name]), able) == "f32"
    assert openvino._hint(core.read_model(graphs["bf16"]), able) == "bf16"
    assert openvino._hint(core.read_model(graphs["bf16"]), unable) == "f32"


@needs_openvino
def test_an_op_that_it_does_not_know(graphs: dict[str, Path]) -> None:
    with pytest.raises(
        UnavailableError, match=r"^QuantizeLinear as int8/model\.onnx .* --backend onnxruntime"
    ):
        opened(openvino, graphs["int8"])


@needs_openvino
def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx cannot be opened"):
        opened(openvino, written(tmp_path, "fp32", b"damaged"))


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnavailableError, match=r"pip install 'headway\[openvino\]'"):
        opened(openvino, tmp_path / "model.onnx")


@needs_openvino
def test_it_tells_nobody(graphs: dict[str, Path]) -> None:
    code = (
        "import sys\n"
        "from headway.runtime.backends import openvino\n"
        "openvino._import().Core()\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, openvino.TELEMETRY in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = found.stdout.split()
    assert "openvino" in modules
    assert "False" in modules
    assert not {"openvino_telemetry", "torch", "onnx"} & set(modules)
