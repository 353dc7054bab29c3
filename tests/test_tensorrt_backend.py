"""The TensorRT backend on a library and a driver that are played: padding, shapes, graphs, lanes, memory, errors."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle, Graph
from headway.core.tolerance import PRECISION
from headway.export.precision import base
from headway.runtime import cuda, layouts, load
from headway.runtime.backends import onnxruntime, tensorrt
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.build import build, parse
from headway.runtime.tensorrt.key import Options, Target
from headway.runtime.tensorrt.library import open_library
from headway.runtime.tensorrt.manager import Managed
from headway.runtime.tensorrt.order import Order
from headway.runtime.tensorrt.store import PLAN, Engine
from tests import cuda_driver, fake_tensorrt, precisions
from tests.cuda_driver import Driver
from tests.fake_tensorrt import Module
from tests.small import small_bundle, texts
from tests.test_backend_openvino import alone, declared, ragged, written

LENGTHS = (1, 2, 15, 16, 17, 20, 31, 40)
SHAPES = Shapes(40, tokens=96)
"""so few tokens that a batch has to be split"""
TYPED = """<ir_version: 10, opset_import: ["" : 20]>
    typed (int64[batch, length] input_ids, int64[batch, length] attention_mask, int64[batch, length] token_type_ids)
        => (float[batch, length] logits) {
        ten = Constant<value_int = 10>()
        thousand = Constant<value_int = 1000>()
        types = Mul(token_type_ids, ten)
        masks = Mul(attention_mask, thousand)
        both = Add(types, masks)
        all = Add(both, input_ids)
        logits = Cast<to = 1>(all)
    }"""
"""a graph that says what it was given"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return cuda_driver.installed(monkeypatch)


@pytest.fixture
def trt(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Module:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake_tensorrt.installed(monkeypatch, driver)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = base.load("fp32").convert(precisions.fp32(), (), [])
    kept = [value for value in model.graph.outputs if value.name == precisions.LOGITS]
    model.graph.outputs[:] = kept
    return written(tmp_path_factory.mktemp("bundle"), "fp32", precisions.content(model))


TOKENS = declared("batch", "length", 5)


def opened(graph: Path, said: Graph = TOKENS, pad_id: int = 0, **options: Any) -> tensorrt.TensorRt:
    device, library = cuda.Device(), open_library()
    device.use()
    how = Options(shapes=SHAPES, **options)
    engine = Engine(build(parse(library, graph), how, device.capability).plan, how)
    return tensorrt.TensorRt(library, device, engine, graph, said, ["logits"], pad_id)


def reference(graph: Path) -> Any:
    return onnxruntime.open_graph(graph, TOKENS, ["logits"], 0, "cpu", 1)


def near(found: Any, expected: Any) -> None:
    limit = PRECISION["fp32"].neighbours * float(np.std(expected))
    assert np.abs(found - expected).max() <= limit


def test_the_answers_of_onnx_runtime_alone_and_in_batches(trt: Module, graph: Path) -> None:
    batch, backend = ragged(*LENGTHS), opened(graph)
    expected = alone(reference(graph), batch)
    for _ in range(3):  # the first run of a shape, its capture, and its launch
        for found, logits in zip(alone(backend, batch), expected, strict=True):
            near(found, logits)
        parts = [np.arange(len(batch)), np.array([7, 0]), np.array([3, 1, 4]), np.array([2])]
        for part, outputs in zip(parts, backend.run([batch.take(p) for p in parts]), strict=True):
            assert outputs["logits"].dtype == np.float32
            assert outputs["logits"].shape == (len(part), max(LENGTHS[i] for i in part), 5)
            for i, logits in zip(part, outputs["logits"], strict=True):
                near(logits[: LENGTHS[i]], expected[i])


def test_a_large_batch_goes_in_parts(trt: Module, graph: Path) -> None:
    backend, batch = opened(graph), ragged(*[40] * 7)
    backend.run([batch])
    shapes = [context.shapes["input_ids"] for context in trt.contexts]
    assert shapes == [(2, 40), (2, 40), (1, 40)]  # the lanes in turns; 96 tokens are two rows of 40
    assert sum(context.runs for context in trt.contexts) == 4


def test_what_the_engine_is_given(trt: Module, tmp_path: Path) -> None:
    import onnx

    path = written(tmp_path, "fp32", onnx.parser.parse_model(TYPED).SerializeToString())
    said = declared("batch", "length")
    said.inputs.append(type(said.inputs[0])(name="token_type_ids", dtype="int64", shape=["batch", "length"]))
    backend = opened(path, said, pad_id=7)
    batch = ragged(3, 17, 2, 1, 4)
    types = np.arange(len(batch.ids), dtype=np.int32) % 2
    batch = Ragged(batch.ids, types, batch.offsets)
    for _ in range(3):
        (found,) = backend.run([batch])
        for row, (begin, end) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
            length = end - begin
            expected = batch.ids[begin:end] + 10 * types[begin:end] + 1000
            np.testing.assert_array_equal(found["logits"][row, :length], expected)
            assert (found["logits"][row, length:] == 7).all()
    assert all(shape in [(3, 32), (2, 32)] for c in trt.contexts for shape in c.shapes.values())


def test_each_shape_is_captured_once_and_launched_then(driver: Driver, trt: Module, graph: Path) -> None:
    backend, batch = opened(graph), ragged(5, 9)
    for _ in range(10):
        backend.run([batch])
    (first, second) = (c for c in trt.contexts)
    assert first.shapes == second.shapes  # one for each lane
    assert (first.runs, first.captured) == (2, 1)
    assert driver.launches == 8
    assert driver.instantiated == 2


def test_where_nothing_can_be_captured(driver: Driver, trt: Module, graph: Path) -> None:
    trt.captures = False
    backend, batch = opened(graph), ragged(5, 9)
    expected = alone(reference(graph), batch)
    for _ in range(5):
        for found, logits in zip(alone(backend, batch), expected, strict=True):
            near(found, logits)
    assert driver.launches == 0
    assert not driver.capturing


def test_answers_stay_when_others_come(trt: Module, graph: Path) -> None:
    backend = opened(graph)
    (first,) = backend.run([ragged(5, seed=1)])
    kept = first["logits"].copy()
    for seed in range(4):
        backend.run([ragged(5, seed=seed)])
    np.testing.assert_array_equal(first["logits"], kept)


def test_many_threads_may_share_it(trt: Module, graph: Path) -> None:
    backend, batch = opened(graph), ragged(*LENGTHS)
    expected = alone(reference(graph), batch)
    calls = [[np.array([i])] * (1 + i % 4) for i in range(len(batch))] * 6
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda parts: backend.run([batch.take(p) for p in parts]), calls)
        for parts, found in zip(calls, answers, strict=True):
            for outputs in found:
                near(outputs["logits"][0], expected[int(parts[0][0])])
    assert len({context.stream for context in trt.contexts}) <= tensorrt.LANES


def test_memory_is_taken_once(
    driver: Driver, trt: Module, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts.Padded, "kept", 3)
    backend = opened(graph)
    held, pinned = driver.held(), len(driver.pinned)
    rows, width = 96, 5  # tokens of the largest shape at most, and their classes
    assert held == tensorrt.LANES * (fake_tensorrt.SCRATCH + 8 * rows * 2 + 4 * rows * width)
    for length in range(1, 41):
        for count in (1, 2, 6):
            for _ in range(3):
                backend.run([ragged(*[length] * count)])
    assert (driver.held(), len(driver.pinned)) == (held, pinned)
    assert len(driver.graphs) <= tensorrt.LANES * 3


def test_too_little_memory(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.installed(monkeypatch, cuda_driver.installed(monkeypatch, memory=6000))
    with pytest.raises(UnavailableError, match="^memory for cuMemAlloc is not available"):
        opened(graph)


def test_a_lane_that_failed_serves_again(trt: Module, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, batch = opened(graph), ragged(5, 9)
    expected = alone(reference(graph), batch)
    works, calls = fake_tensorrt.Context.execute_async_v3, []

    def fails(self: Any, stream: int) -> bool:
        calls.append(stream)
        return len(calls) % 3 != 2 and works(self, stream)

    monkeypatch.setattr(fake_tensorrt.Context, "execute_async_v3", fails)
    failures = list[str]()
    for _ in range(12):
        try:
            backend.run([batch] * 3)
        except UnavailableError as error:
            failures.append(str(error))
    assert failures
    assert all("a TensorRT engine's answer is not available" in failure for failure in failures)
    monkeypatch.undo()
    for found, logits in zip(alone(backend, batch), expected, strict=True):
        near(found, logits)
    assert backend._idle.qsize() == tensorrt.LANES


def test_stripped_plans_get_their_weights_from_the_graph(trt: Module, graph: Path) -> None:
    backend, batch = opened(graph, strip=True, version_compatible=True), ragged(*LENGTHS)
    assert backend._runtime.engine_host_code_allowed
    assert not opened(graph)._runtime.engine_host_code_allowed
    for found, logits in zip(alone(backend, batch), alone(reference(graph), batch), strict=True):
        near(found, logits)


def test_a_graph_that_is_not_as_declared(trt: Module, graph: Path) -> None:
    said = declared("batch", "length", 5)
    said.outputs.append(type(said.outputs[0])(name="probabilities", dtype="float32", shape=["batch", 5]))
    with pytest.raises(
        BundleError, match=r"model\.onnx has attention_mask, input_ids, logits, not .*probabilities"
    ):
        opened(graph, said)


# from a bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


def ordered(folder: Path) -> Order:
    device = cuda.Device()
    device.use()
    return orders.order(folder, Bundle.read(folder), "fp32/model.onnx", open_library(), Target.of(device))


class Here:
    """A build in this process."""

    def __init__(self, wanted: Order) -> None:
        self.wanted = wanted

    def wait(self) -> bool:
        cuda.Device().use()
        orders.make(self.wanted, open_library())
        return True

    def end(self) -> None:
        pass


def scores(pipe: Any, given: list[str]) -> list[list[float]]:
    return [list(result.scores.values()) for result in pipe(given)]


def test_an_engine_that_was_built_ahead_serves(trt: Module, folder: Path) -> None:
    orders.make(ordered(folder), open_library())
    pipe: Any = load(folder, device="cuda", backend="tensorrt", precision="fp32")
    given = texts(60)
    np.testing.assert_allclose(scores(pipe, given), scores(load(folder), given), atol=1e-6)
    assert sum(context.runs for context in trt.contexts) > 0
    assert len(trt.builds) == 1


def test_without_another_engine_it_says_how_to_build(trt: Module, folder: Path) -> None:
    with pytest.raises(UnavailableError, match=f"build it with `headway engines {folder}`"):
        load(folder, device="cuda", backend="tensorrt")
    assert not trt.builds


def test_onnx_runtime_serves_until_it_is_built(
    trt: Module, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(tensorrt, "Apart", Here)
    given, expected = texts(40), scores(load(folder), texts(40))
    pipe: Any = load(folder, device="cuda", backend="tensorrt", precision="fp32")
    managed = pipe._backend
    assert isinstance(managed, Managed)
    np.testing.assert_allclose(scores(pipe, given), expected, atol=1e-6)
    assert managed.wait(60)
    assert len(trt.builds) == 1
    np.testing.assert_allclose(scores(pipe, given), expected, atol=1e-6)
    assert sum(context.runs for context in trt.contexts) > 0
    again: Any = load(folder, device="cuda", backend="tensorrt", precision="fp32")
    assert isinstance(again._backend, tensorrt.TensorRt)
    assert len(trt.builds) == 1


def test_no_request_builds(trt: Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Here):
        def wait(self) -> bool:
            return False

    monkeypatch.setattr(onnxruntime, "DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(tensorrt, "Apart", Never)
    pipe: Any = load(folder, device="cuda", backend="tensorrt", precision="fp32")
    assert len(scores(pipe, texts(40))) == 40
    assert not trt.builds
    assert not trt.contexts


def test_a_damaged_engine_is_never_opened(trt: Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ordered(folder)
    orders.make(wanted, open_library())
    plan = Path(wanted.places[0]) / wanted.key(open_library()).name / PLAN
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    seen: list[bytes] = []
    opens = fake_tensorrt.Runtime.deserialize_cuda_engine
    monkeypatch.setattr(
        fake_tensorrt.Runtime,
        "deserialize_cuda_engine",
        lambda self, plan: (seen.append(plan), opens(self, plan))[1],
    )
    monkeypatch.setattr(onnxruntime, "DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(tensorrt, "Apart", Here)
    pipe: Any = load(folder, device="cuda", backend="tensorrt", precision="fp32")
    assert pipe._backend.wait(60)
    assert len(trt.builds) == 2
    assert len(seen) == 1
    assert not seen[0].endswith(b"?")


def test_a_whole_engine_that_the_library_does_not_open(trt: Module, folder: Path) -> None:
    orders.make(ordered(folder), open_library())
    trt.opens = False
    with pytest.raises(
        UnavailableError, match=r"the plan is of another version.*headway engines .* --again`"
    ):
        load(folder, device="cuda", backend="tensorrt")


def test_not_installed(driver: Driver, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UnavailableError, match=r"pip install 'headway\[tensorrt\]'"):
        load(folder, device="cuda", backend="tensorrt")


def test_no_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, cuda.BINDINGS, None)
    with pytest.raises(UnavailableError, match="^device 'cuda' is not available: .*--device cpu$"):
        load(folder, device="cuda", backend="tensorrt")
