"""One GPU through the driver's calls, on a driver that does its work as late as it may."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headway.core.errors import UnavailableError
from headway.runtime import cuda
from tests import cuda_driver
from tests.cuda_driver import Driver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return cuda_driver.installed(monkeypatch)


def test_what_a_device_is(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = cuda.Device()
    assert (device.name, device.capability, device.release) == ("Made Up GPU", (9, 0), "for CUDA 13000")
    assert cuda.available()
    (tmp_path / "version").write_text("580.82.07\n")
    monkeypatch.setattr(cuda, "RELEASE", tmp_path / "version")
    assert cuda.Device().release == "580.82.07"
    with pytest.raises(UnavailableError, match="^device 'cuda' number 1 is not available"):
        cuda.Device(1)


def test_a_round_trip_is_done_when_it_is_waited_for(driver: Driver) -> None:
    device = cuda.Device()
    stream, memory = device.stream(), device.empty(24)
    given, found = device.pinned((2, 3), np.int32), device.pinned(6, np.int32)
    given[:] = np.arange(6).reshape(2, 3)
    found[:] = -1
    stream.upload(given, memory.pointer)
    stream.download(memory.pointer, found)
    assert found.tolist() == [-1] * 6
    stream.synchronize()
    assert found.tolist() == list(range(6))


def test_a_graph_does_its_work_at_each_launch(driver: Driver) -> None:
    device = cuda.Device()
    stream, memory = device.stream(), device.empty(4)
    given, found = device.pinned(1, np.int32), device.pinned(1, np.int32)

    def give() -> None:
        stream.upload(given, memory.pointer)
        stream.download(memory.pointer, found)

    given[:], found[:] = 1, 0
    graph = stream.capture(give)
    stream.synchronize()
    assert found[0] == 0
    for number in (7, 8):
        given[:] = number
        stream.launch(graph)
        stream.synchronize()
        assert found[0] == number


def test_a_capture_that_fails_is_over(driver: Driver) -> None:
    stream = cuda.Device().stream()

    def give() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        stream.capture(give)
    assert not driver.capturing
    stream.synchronize()


def test_events_put_streams_in_order(driver: Driver) -> None:
    device = cuda.Device()
    first, second, memory = device.stream(), device.stream(), device.empty(4)
    given, found = device.pinned(1, np.int32), device.pinned(1, np.int32)
    given[:] = 5
    first.upload(given, memory.pointer)
    event = first.record()
    second.wait(event)
    second.download(memory.pointer, found)
    second.synchronize()
    assert found[0] == 5
    event.synchronize()


def test_all_is_given_back(driver: Driver) -> None:
    device = cuda.Device()
    free = device.free()
    stream, memory, array = device.stream(), device.empty(1000), device.pinned(10, np.int64)
    graph, event = stream.capture(lambda: None), stream.record()
    stream.synchronize()
    assert device.free() == free - 1000
    part = array[2:4]
    del array, memory, stream, graph, event
    gc.collect()
    assert (device.free(), driver.streams, driver.graphs, driver.events) == (free, {}, {}, {})
    assert len(driver.pinned) == 1  # a part of the array is still held
    del part
    gc.collect()
    assert not driver.pinned


def test_too_little_memory(driver: Driver) -> None:
    device = cuda.Device()
    with pytest.raises(UnavailableError, match="^memory for cuMemAlloc is not available"):
        device.empty(driver.memory + 1)


def test_a_refusal_names_the_call(driver: Driver) -> None:
    device = cuda.Device()
    with pytest.raises(UnavailableError, match="cuMemcpyHtoDAsync: CUDA_ERROR_ILLEGAL_ADDRESS"):
        device.stream().upload(np.zeros(4), 12345)


def test_without_a_driver() -> None:
    """In a fresh process, as the driver may be played in this one."""
    code = (
        "import sys\n"
        "from headway.runtime import cuda\n"
        "from headway.core.errors import UnavailableError\n"
        "print('cuda' in sys.modules)\n"
        "sys.modules[cuda.BINDINGS] = None\n"
        "print(cuda.available())\n"
        "try: cuda.Device()\n"
        "except UnavailableError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, available, message = found.stdout.splitlines()
    assert (imported, available) == ("False", "False")
    assert message.startswith("device 'cuda' is not available: pip install cuda-bindings")
