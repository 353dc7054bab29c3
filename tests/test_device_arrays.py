"""Arrays on a GPU by DLPack, on a driver that is played: taken and given, streams that wait, memory that stays."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway import cpp_ext
from headway.core.errors import InputError, UnavailableError, UsageError
from headway.core.tolerance import PRECISION
from headway.runtime import device_arrays, load
from headway.runtime.cuda import Device
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.library import open_library
from headway.runtime.tensorrt.manager import Managed
from tests import fake_tensorrt
from tests.cuda_driver import LEGACY, Driver
from tests.small import small_bundle, texts
from tests.test_backend_ragged import Made, driver, made, opened, padded, rows_of  # noqa: F401
from tests.test_tensorrt_backend import ordered

LENGTHS = (3, 1, 17, 40, 16)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's memory stands for the GPU's."""
    monkeypatch.setattr(device_arrays, "KIND", 1)


class Tensor:
    """Numbers in the GPU's memory, which its own stream writes as late as it may."""

    def __init__(self, device: Device, values: Any) -> None:
        self._device, self._stream = device, device.stream()
        self._buffer = device.empty(values.nbytes)
        memory = (ctypes.c_byte * values.nbytes).from_address(self._buffer.pointer)
        self._array = np.frombuffer(memory, values.dtype).reshape(values.shape)
        self._source = device.pinned(values.shape, values.dtype)
        self._source[...] = values
        self._stream.upload(self._source, self._buffer.pointer)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, *, stream: int) -> Any:
        written = self._stream.record()
        self._device.call("cuStreamWaitEvent", stream, written.handle, 0)
        return self._array.__dlpack__()


def arrays(rows: Any) -> dict[str, Any]:
    longest = max(len(row.ids) for row in rows)
    ids, mask = np.zeros((2, len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)], mask[i, : len(row.ids)] = row.ids, 1
    return {"input_ids": ids, "attention_mask": mask}


def on_device(given: dict[str, Any]) -> dict[str, Any]:
    device = Device()
    return {name: Tensor(device, array) for name, array in given.items()}


@pytest.mark.parametrize("kind", ["vectors", "tags"])
@pytest.mark.parametrize("pads", [False, True])
def test_the_answers_that_the_host_gets(
    driver: Driver, made: Made, kind: str, pads: bool, tmp_path: Path
) -> None:
    pipe = opened(padded(made(kind), tmp_path / "bundle") if pads else made(kind))
    rows = rows_of(LENGTHS)
    assert pipe._backend.pads == pads
    for _ in range(3):
        found = pipe.run_device(on_device(arrays(rows)))
        (array,) = found.values()
        expected = pipe.answers(rows)
        assert array.shape[0] == len(rows)
        for ours, theirs in zip(array.numpy(), expected, strict=True):
            real = ours[: len(theirs)] if theirs.ndim == 2 else ours
            np.testing.assert_allclose(real, theirs, rtol=0, atol=PRECISION["fp32"].worst)
            assert theirs.ndim == 1 or not ours[len(theirs) :].any()


def test_an_engine_of_tensorrt(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_tensorrt.installed(monkeypatch, driver)
    folder = small_bundle(tmp_path / "bundle")
    orders.make(ordered(folder), open_library())
    pipe: Any = load(folder, device="cuda", backend="tensorrt", precision="fp32")
    (array,) = pipe.run_device(texts(30)).values()
    found = array.numpy()
    expected = load(folder, threads=1)(texts(30))
    for ours, theirs in zip(np.exp(found) / np.exp(found).sum(1, keepdims=True), expected, strict=True):
        np.testing.assert_allclose(ours, list(theirs.scores.values()), rtol=0, atol=1e-5)


def test_texts_whose_vectors_stay(driver: Driver, made: Made) -> None:
    pipe = opened(made("vectors"))
    given = ["a text", "my parcel is late, and nobody answers when I ask where it is", "?", "late"]
    (array,) = pipe.run_device(given).values()
    expected = np.array([result.embedding for result in pipe(given)])
    np.testing.assert_allclose(array.numpy(), expected, rtol=0, atol=PRECISION["fp32"].worst)
    assert [len(a.numpy()) for a in pipe.run_device("a text").values()] == [1]
    with pytest.raises(InputError, match="^input 1: "):
        pipe.run_device(["a text", 3])
    with pytest.raises(UsageError, match="^inputs: are none"):
        pipe.run_device([])


def test_a_batch_of_several_pieces(driver: Driver, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, rows = opened(made("vectors")), rows_of([1 + i % 50 for i in range(120)])
    pipe._backend.layout._tokens = 500
    (array,) = pipe.run_device(on_device(arrays(rows))).values()
    expected = np.stack(pipe.answers(rows))
    np.testing.assert_allclose(array.numpy(), expected, rtol=0, atol=PRECISION["fp32"].worst)


def test_the_consumers_stream_waits_and_the_memory_stays(driver: Driver, made: Made) -> None:
    pipe, rows = opened(made("vectors")), rows_of(LENGTHS)
    expected = np.stack(pipe.answers(rows))
    (array,) = pipe.run_device(on_device(arrays(rows))).values()
    taken = np.from_dlpack(array)
    assert not np.allclose(taken, expected)  # nobody has waited yet
    del array, pipe
    gc.collect()
    driver.cuStreamSynchronize(LEGACY)
    np.testing.assert_allclose(taken, expected, rtol=0, atol=PRECISION["fp32"].worst)
    address = taken.ctypes.data
    assert driver.inside(address, taken.nbytes)
    del taken
    gc.collect()
    assert not driver.inside(address, expected.nbytes)


def test_a_consumer_that_takes_care_itself(driver: Driver, made: Made) -> None:
    (array,) = opened(made("vectors")).run_device(on_device(arrays(rows_of(LENGTHS)))).values()
    waiting = len(driver.streams.get(LEGACY, []))
    array.__dlpack__(stream=device_arrays.NO_WAIT)
    assert len(driver.streams.get(LEGACY, [])) == waiting
    array.__dlpack__()
    assert len(driver.streams.get(LEGACY, [])) == waiting + 1


Change = Callable[[dict[str, Any]], Any]


def put(name: str, change: Callable[[Any], Any]) -> Change:
    return lambda given: given.update({name: change(given[name])})


class Elsewhere(np.ndarray):
    """On another GPU."""

    def __dlpack_device__(self) -> tuple[Any, int]:
        return 1, 1


def first_zero(mask: Any) -> Any:
    mask[0, 0] = 0
    return mask


WRONG: dict[str, Change] = {
    "input_ids: is missing": lambda given: given.pop("input_ids"),
    "attention_mask: is missing": lambda given: given.pop("attention_mask"),
    "positions: is not taken; input_ids, attention_mask, token_type_ids are": lambda given: given.update(
        positions=1
    ),
    "input_ids: is list, which has no __dlpack__": put("input_ids", lambda ids: ids.tolist()),
    r"attention_mask: lies on DLPack's device \(1, 1\), not on \(1, 0\), cuda:0": put(
        "attention_mask", lambda mask: mask.view(Elsewhere)
    ),
    r"input_ids: must be int64 \(B, L\) without gaps, not int32 \(5, 40\)$": put(
        "input_ids", lambda x: x.astype(np.int32)
    ),
    r"input_ids: must be int64 \(B, L\) without gaps, not int64 \(200,\)$": put(
        "input_ids", lambda x: x.reshape(-1)
    ),
    r"input_ids: must be int64 .* not int64 \(5, 20\) with gaps": put("input_ids", lambda x: x[:, ::2]),
    r"attention_mask: is \(4, 40\), and input_ids \(5, 40\)": put("attention_mask", lambda x: x[:4].copy()),
    "attention_mask: must be ones, at least one in a row, and then zeros": put("attention_mask", first_zero),
    "input_ids: has 80 tokens in a row; the model takes 60": lambda given: given.update(
        {name: np.ones((5, 80), np.int64) for name in given}
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_refused(driver: Driver, made: Made, message: str) -> None:
    pipe, given = opened(made("vectors")), arrays(rows_of(LENGTHS))
    WRONG[message](given)
    device = Device()
    plain = {
        n: Tensor(device, a) if type(a) is np.ndarray and a.flags.c_contiguous else a
        for n, a in given.items()
    }
    with pytest.raises(UsageError, match=f"^{message}"):
        pipe.run_device({n: Gaps(a) if type(a) is np.ndarray else a for n, a in plain.items()})


class Gaps:
    """An array whose rows are not end to end."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, *, stream: int) -> Any:
        return self._array.__dlpack__()


def test_a_model_on_the_processor_has_none(made: Made) -> None:
    with pytest.raises(UnavailableError, match="^a model on one GPU is not available"):
        load(made("vectors"), precision="fp32", threads=1).run_device(["a text"])  # type: ignore[attr-defined]


def test_an_engine_that_is_built_meanwhile(driver: Driver, made: Made) -> None:
    """Whichever backend serves."""

    class Building:
        def wait(self) -> bool:
            return False

        def end(self) -> None: ...

    backend = opened(made("vectors"))._backend
    managed = Managed(backend, Building, lambda: None)
    (array,) = managed.run_device(on_device(arrays(rows_of(LENGTHS)))).values()
    assert array.shape == (len(LENGTHS), 32)


# The bindings


def test_what_an_array_is_told_to_be() -> None:
    array = np.arange(24, dtype=np.int64).reshape(4, 6)
    address, *told = cpp_ext.describe(array)
    assert address == array.ctypes.data
    assert told == ["int64", (4, 6), True, 1, 0]
    assert cpp_ext.describe(array.__dlpack__())[1:4] == ("int64", (4, 6), True)
    assert cpp_ext.describe(array[:, ::2])[2:4] == ((4, 3), False)
    assert cpp_ext.describe(array[:1, :])[3] is True
    assert [cpp_ext.describe(np.zeros(3, t))[1] for t in ("float32", "bool", "uint8", "float16")] == [
        "float32", "bool8", "uint8", "float16",
    ]  # fmt: skip
    with pytest.raises(TypeError):
        cpp_ext.describe("text")


def test_memory_is_lent_as_long_as_it_is_held() -> None:
    torch: Any = pytest.importorskip("torch")

    class Owner:
        gone = False

        def __init__(self) -> None:
            self.array = np.arange(6, dtype=np.float32)

        def __del__(self) -> None:
            Owner.gone = True

    owner = Owner()
    lent = cpp_ext.lend(owner.array.ctypes.data, (2, 3), 1, 0, owner)
    taken = torch.from_dlpack(lent)
    del owner, lent
    gc.collect()
    assert taken.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not Owner.gone
    del taken
    gc.collect()
    assert Owner.gone
