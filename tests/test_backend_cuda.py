"""ONNX Runtime's CUDA backend on a driver that is played, and several devices: what is bound, captured, refused."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headway.core.errors import BundleError, UnavailableError, UsageError
from headway.core.tolerance import PRECISION
from headway.runtime import choice, cuda, devices, lanes, load
from headway.runtime.backends import onnxruntime_cuda
from headway.runtime.backends.base import engines_for
from headway.runtime.ragged import Ragged
from headway.runtime.replicas import TOGETHER, Replicas
from tests import cuda_driver
from tests.cuda_driver import Driver
from tests.small import small_bundle, texts

LENGTHS = (1, 2, 15, 16, 17, 20, 31, 40)


class Session:
    """ONNX Runtime on the processor, whose runs are work of a stream."""

    runs = captured = 0
    fails = False

    def __init__(self, real: Any, driver: Driver, stream: Any) -> None:
        self._real, self._driver, self._stream = real, driver, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if Session.fails:
            raise RuntimeError("an illegal memory access")
        assert self._driver.current()
        Session.runs += 1
        Session.captured += self._stream.pointer in self._driver.capturing
        self._driver.give(self._stream.pointer, lambda: self._real.run_with_iobinding(binding))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = cuda_driver.installed(monkeypatch)
    opens = onnxruntime_cuda._session
    for name, value in {"runs": 0, "captured": 0, "fails": False}.items():
        monkeypatch.setattr(Session, name, value)
    monkeypatch.setattr(onnxruntime_cuda, "KIND", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "_providers", lambda *told: ["CPUExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime_cuda,
        "_session",
        lambda library, graph, gpu, stream: Session(opens(library, graph, gpu, stream), found, stream),
    )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def scores(pipe: Any, given: list[str]) -> Any:
    return np.array([list(result.scores.values()) for result in pipe(given)])


def on_gpu(folder: Path, **options: Any) -> Any:
    return load(folder, device="cuda", backend="onnxruntime-cuda", precision="fp32", **options)


def test_the_answers_of_the_processor_alone_and_together(driver: Driver, folder: Path) -> None:
    given, pipe = texts(60), on_gpu(folder, batch_tokens=128)
    expected = scores(load(folder, precision="fp32", backend="onnxruntime"), given)
    limit = PRECISION["fp32"].worst
    for _ in range(3):  # a shape's first run, its capture, and its launch
        np.testing.assert_allclose(scores(pipe, given), expected, rtol=0, atol=limit)
    alone = np.concatenate([scores(pipe, [text]) for text in given])
    np.testing.assert_allclose(alone, expected, rtol=0, atol=limit)
    assert driver.launches > 0


def test_each_shape_is_captured_once_and_launched_then(driver: Driver, folder: Path) -> None:
    pipe = on_gpu(folder)
    for _ in range(10):
        pipe("a text of some words")
    assert (Session.runs, Session.captured, driver.launches) == (4, 2, 8)  # two lanes


def test_a_session_that_fails_and_serves_again(driver: Driver, folder: Path) -> None:
    pipe = on_gpu(folder)
    expected = scores(pipe, texts(5))
    Session.fails = True
    with pytest.raises(UnavailableError, match="an illegal memory access"):
        pipe(["so many more words than in any text before, that this is another shape"] * 9)
    Session.fails = False
    np.testing.assert_array_equal(scores(pipe, texts(5)), expected)
    assert pipe._backend._idle.qsize() == lanes.LANES


def test_many_threads_share_it(driver: Driver, folder: Path) -> None:
    pipe, given = on_gpu(folder), texts(40)
    expected = scores(pipe, given)
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda turn: scores(pipe, given[turn : turn + 9]), range(24)):
            place = next(i for i in range(len(given)) if np.allclose(found[0], expected[i], atol=1e-6))
            np.testing.assert_allclose(found, expected[place : place + 9], atol=1e-6)


def test_memory_is_taken_once(driver: Driver, folder: Path) -> None:
    pipe = on_gpu(folder)
    held = driver.held()
    for count in (1, 3, 40):
        for _ in range(3):
            pipe(texts(count))
    assert driver.held() == held


def test_what_the_processor_would_compute_is_refused(
    driver: Driver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "another")
    with pytest.raises(
        UnavailableError, match=r"ReduceSum as fp32/model.onnx has it, on onnxruntime.s CUDA provider"
    ):
        on_gpu(folder)


class Library:
    """What `_providers` uses of onnxruntime."""

    def __init__(self, providers: list[str], device_names: list[str]) -> None:
        self._providers, self.registered, self.preloaded = providers, list[Any](), 0
        self._found = [SimpleNamespace(ep_name=name) for name in device_names]

    def get_available_providers(self) -> list[str]:
        return self._providers

    def get_ep_devices(self) -> list[Any]:
        return self._found

    def register_execution_provider_library(self, *told: Any) -> None:
        self.registered.append(told)
        self._found.append(SimpleNamespace(ep_name=told[0]))

    def preload_dlls(self) -> None:
        self.preloaded += 1


class Told:
    """Options of a session."""

    def __init__(self) -> None:
        self.devices: list[Any] = []

    def add_provider_for_devices(self, found: list[Any], options: dict[str, str]) -> None:
        self.devices.append((found, options))


def test_where_the_provider_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    name, wanted = onnxruntime_cuda.PROVIDER, {"device_id": "0"}
    whole = Library([name, "CPUExecutionProvider"], [])
    assert onnxruntime_cuda._providers(whole, Told(), wanted, 0) == [(name, wanted)]
    assert whole.preloaded == 1
    told, plugin = Told(), Library([name], [name, "CPUExecutionProvider", name])
    assert onnxruntime_cuda._providers(plugin, told, wanted, 1) is None
    assert told.devices == [([plugin._found[2]], wanted)]
    with pytest.raises(UnavailableError, match="pip uninstall onnxruntime; pip install 'headway\\[gpu\\]'"):
        onnxruntime_cuda._providers(Library(["CPUExecutionProvider"], []), Told(), wanted, 0)
    monkeypatch.setenv(onnxruntime_cuda.LIBRARY, "/a/library.so")
    apart, told = Library(["CPUExecutionProvider"], ["CPUExecutionProvider"]), Told()
    assert onnxruntime_cuda._providers(apart, told, wanted, 0) is None
    assert apart.registered == [(name, "/a/library.so")]
    assert onnxruntime_cuda._providers(apart, told, wanted, 0) is None
    assert len(apart.registered) == 1


def test_the_processors_onnxruntime_does_not_serve_a_gpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_driver.installed(monkeypatch)
    with pytest.raises(UnavailableError, match="onnxruntime's CUDA provider"):
        on_gpu(folder)
    with pytest.raises(UsageError, match="'openvino' does not run on 'cuda'"):
        load(folder, device="cuda", backend="openvino")


def test_without_a_gpu_nothing_runs_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, cuda.BINDINGS, None)
    with pytest.raises(UnavailableError, match="device 'cuda'"):
        load(folder, device="cuda")


def test_names_of_devices() -> None:
    assert devices.place("cuda:3") == ("cuda", 3)
    assert devices.place("cuda") == ("cuda", 0)
    for wrong in ("", "gpu", "cuda:", "cuda:x", "cpu:0", "cuda:-1", "CUDA"):
        with pytest.raises(UsageError, match="--device"):
            devices.place(wrong)
    assert devices.places(["cuda:0", "cuda:1"]) == ["cuda:0", "cuda:1"]
    for several in ([], ["cuda", "cuda:0"], ["cpu", "cuda"], ["cpu", "cpu"]):
        with pytest.raises(UsageError, match="--device: wants one device, or several GPUs"):
            devices.places(several)
    assert engines_for("cuda:1") == engines_for("cuda") == ["onnxruntime-cuda", "tensorrt"]


def test_which_engine_and_variant_a_gpu_gets(folder: Path) -> None:
    import msgspec

    from headway.core.manifest import Bundle

    made = Bundle.read(folder)
    full = made.variants["fp32"]

    def chosen(engines: list[str], **targets: str) -> Any:
        variants = {n: msgspec.structs.replace(full, precision=n, target=t) for n, t in targets.items()}
        declared = msgspec.structs.replace(made, variants=variants)
        return choice.candidates(declared, list(targets), engines, "cuda")[0]

    both = engines_for("cuda")
    installed = [name for name in both if choice._stamp(name) is not None]
    assert "onnxruntime-cuda" in installed
    assert chosen(both, fp32="cuda", fp16="cuda") == ("fp16", "onnxruntime-cuda")
    assert chosen(["tensorrt"], fp32="tensorrt", fp16="tensorrt", int8="cpu") == ("fp16", "tensorrt")
    assert chosen(["onnxruntime-cuda"], fp32="cpu", fp16="cuda") == ("fp16", "onnxruntime-cuda")
    assert chosen(["onnxruntime-cuda"], int8="cpu", fp32="cpu") == ("fp32", "onnxruntime-cuda")


# several devices


class Counted:
    """A backend that waits until every device works."""

    pads = True

    def __init__(self, meet: Barrier) -> None:
        self.meet, self.calls = meet, list[int]()

    def run(self, batches: Any) -> Any:
        if not self.calls:
            self.meet.wait(60)
        self.calls.append(len(batches))
        return [{"ids": batch.ids} for batch in batches]


def test_batches_go_to_whichever_device_is_idle() -> None:
    meet = Barrier(2)
    first, second = Counted(meet), Counted(meet)
    replicas = Replicas([first, second])
    batches = [Ragged.of([_row(i)]) for i in range(5 * TOGETHER + 1)]
    found = replicas.run(batches)
    assert [int(outputs["ids"][0]) for outputs in found] == list(range(len(batches)))
    assert sorted(first.calls + second.calls) == [1, *[TOGETHER] * 5]
    assert min(len(first.calls), len(second.calls)) >= 1
    assert [int(o["ids"][0]) for o in replicas.run(batches[3:4])] == [3]


def _row(number: int) -> Any:
    from headway.core.tasks import Row

    return Row(0, [number], [0])


def test_a_bundle_on_two_gpus(driver: Driver, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "cuDeviceGetCount", lambda self: (cuda_driver.OK, 2))
    monkeypatch.setattr(Driver, "cuDeviceGet", lambda self, index: (cuda_driver.OK, index))
    given = texts(80)
    pipe = load(
        folder, device=["cuda:0", "cuda:1"], backend="onnxruntime-cuda", precision="fp32", batch_tokens=64
    )
    expected = scores(load(folder, precision="fp32", backend="onnxruntime"), given)
    np.testing.assert_allclose(scores(pipe, given), expected, rtol=0, atol=PRECISION["fp32"].worst)
    with pytest.raises(UnavailableError, match="number 2"):
        load(folder, device=["cuda:0", "cuda:2"], backend="onnxruntime-cuda", precision="fp32")


def test_a_graph_that_is_not_as_declared(driver: Driver, folder: Path) -> None:
    from headway.core.manifest import Bundle, Tensor

    declared = Bundle.read(folder).graphs["model"]
    declared.outputs.append(Tensor(name="more", dtype="float32", shape=["batch"]))
    with pytest.raises(BundleError, match="as declared"):
        onnxruntime_cuda.open_graph(folder / "fp32" / "model.onnx", declared, ["more"], 0, "cuda", 1)
