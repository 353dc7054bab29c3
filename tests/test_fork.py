"""A process that has answered forks, as gunicorn --preload and multiprocessing do: the child answers, and ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import pytest

from headway.core.errors import UnavailableError
from headway.runtime import cuda, load
from headway.runtime.fork_safety import ForkSafeLock, PerProcess
from tests import cuda_driver
from tests.small import small_bundle
from tests.test_generation_graphs import graph_files

SECONDS = 120
"""until a process counts as hanging"""
BACKENDS = ["onnxruntime"] + (["openvino"] if find_spec("openvino") else [])

COMMON = """
import multiprocessing, os, signal, sys, threading, time
from headway.runtime import load

def in_children(job, count=2, leave=sys.exit):
    '''Run a job in forked children that all live at once, and end as Python does.'''
    children = []
    for _ in range(count):
        if (child := os.fork()) == 0:
            leave(0 if job() else 3)
        children.append(child)
    until = time.monotonic() + 60
    ended = {}
    while len(ended) < count and time.monotonic() < until:
        time.sleep(0.01)
        for child in set(children) - ended.keys():
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                ended[child] = os.waitstatus_to_exitcode(status)
    for child in set(children) - ended.keys():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(ended) == count, "a child hangs"
    assert set(ended.values()) == {0}, ended

many = ["my parcel is late " * n for n in range(1, 40)]
"""


def run(
    script: str, *arguments: object, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    ended = subprocess.run(
        [sys.executable, "-c", COMMON + script, *map(str, arguments)],
        env=environment | {"HEADWAY_CACHE": "off"} | (variables or {}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended


ENCODER = """
pipe = load(sys.argv[1], backend=sys.argv[2], precision=sys.argv[3], threads=2)
before = sys.argv[4]
expected = load(sys.argv[1], backend=sys.argv[2], precision=sys.argv[3], threads=2)(many)
near = lambda found: all(
    a.label == b.label and all(abs(a.scores[n] - s) < 1e-2 for n, s in b.scores.items())
    for a, b in zip(found, expected, strict=True)
)
if before == "one":
    pipe(many[-1])
if before == "many":
    pipe(many)
in_children(lambda: near(pipe(many)) and near([pipe(text) for text in many]))
in_children(lambda: True)  # it only ends
worker = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(not near(pipe(many))))
worker.start()
worker.join(60)
assert worker.exitcode == 0
assert near(pipe(many))  # the parent goes on
"""


@pytest.mark.parametrize("before", ["nothing", "one", "many"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_encoders_answer_in_forked_children(backend: str, precision: str, before: str, bundle: Path) -> None:
    if (backend, precision) == ("openvino", "int8"):
        pytest.skip("OpenVINO does not run that int8")
    run(ENCODER, bundle, backend, precision, before)


FRONT = """
import asyncio
from headway.runtime.front import Front

pipe = load(sys.argv[1], threads=2)
front = Front(pipe)
expected = pipe(many)

async def answer():
    return await asyncio.gather(*map(front, many))

labels = [result.label for result in expected]
right = lambda: [result.label for result in asyncio.run(answer())] == labels
assert right()
in_children(right)
assert right()
"""


def test_a_front_answers_in_forked_children(bundle: Path) -> None:
    run(FRONT, bundle)


WRITER = """
from pathlib import Path
from headway.core.search import Search
from headway.runtime.generation.engine import Engine
from headway.runtime.generation.search import search

roles = dict(given.split("=", 1) for given in sys.argv[1:])
engine = Engine({role: Path(path) for role, path in roles.items()}, 2, kept=2)
sources = [[5, 9, 33, 21, 8, 40, 7, 17, 2], [11], [30, 12, 55, 2], [6, 28, 3, 19, 44, 2]] * 3
settings = Search(decoder_start_token_id=1, eos_token_id=[2], max_new_tokens=6, num_beams=2)
write = lambda some: [[h.tokens for h in every] for every in search(engine, some, settings, lambda tokens: "")]
expected = write(sources)
in_children(lambda: write(sources) == expected and write(sources[:1]) == expected[:1])
in_children(lambda: True)
decoding, logits = engine.begin(sources[:1], 1)  # one that was begun before the fork goes on
first = logits.copy()
in_children(lambda: decoding.step(first.argmax(-1)[:, None]).shape == first.shape)
assert write(sources) == expected
"""


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_writers_answer_in_forked_children(name: str) -> None:
    run(WRITER, *(f"{role}={path}" for role, path in graph_files(name).items()))


LOCKED = """
pipe = load(sys.argv[1], backend="onnxruntime", threads=2, cache=100)
expected = [result.label for result in pipe(many)]
begun = threading.Event()

def tokenize():
    with pipe._tokenizing, pipe.cache._lock:
        tokenizer = pipe._tokenizer
        while True:
            begun.set()
            tokenizer.encode_batch(["my parcel " * 50_000])  # holds a lock inside the library, and not Python's

threading.Thread(target=tokenize, daemon=True).start()
begun.wait()
time.sleep(0.05)
in_children(lambda: [result.label for result in pipe(many)] == expected, count=3)
os._exit(0)
"""


@pytest.mark.parametrize("parallel", [None, "true"])
def test_a_fork_while_another_thread_tokenizes(parallel: str | None, tmp_path: Path) -> None:
    run(
        LOCKED,
        small_bundle(tmp_path / "bundle"),
        variables={"TOKENIZERS_PARALLELISM": parallel} if parallel else None,
    )


def test_children_share_what_has_no_threads(tmp_path: Path) -> None:
    script = """
    import headway.runtime.backends.onnxruntime as backend
    opened = []
    session = backend._session
    backend._session = lambda *given: opened.append(given[2]) or session(*given)
    pipe = load(sys.argv[1], threads=1)
    pipe(many)
    in_children(lambda: bool(pipe(many)) and opened == [1])
    pipe = load(sys.argv[1], threads=2)
    pipe(many), pipe(many[0])
    in_children(lambda: bool(pipe(many)) and bool(pipe(many[0])) and opened[-3:] == [2, 1, 2])
    """
    run(textwrap.dedent(script), small_bundle(tmp_path / "bundle"))


def test_a_value_is_made_once_in_a_process_and_freed_with_its_owner() -> None:
    made: list[int] = []
    value = PerProcess(lambda: made.append(1) or object())
    threads = [Thread(target=value) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, value()) == ([1], value())


def test_a_lock_is_a_lock() -> None:
    lock, entered = ForkSafeLock(), Event()
    with lock:
        thread = Thread(target=lambda: [lock.acquire(), entered.set(), lock.release()])
        thread.start()
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_a_pipeline_is_freed_when_nobody_holds_it(tmp_path: Path) -> None:
    """Reference cycles would keep a model's memory until the collector runs."""
    pipe = load(small_bundle(tmp_path / "bundle"), threads=2)
    pipe(["late parcel", "my refund"])
    backend = weakref.ref(pipe._backend)  # type: ignore[attr-defined]
    gc.disable()
    try:
        del pipe
        assert backend() is None
    finally:
        gc.enable()


def test_a_gpu_is_refused_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_driver.installed(monkeypatch)
    device = cuda.Device()
    device.use()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(UnavailableError, match="load the bundle after the fork"):
        device.call("cuMemGetInfo")


def test_a_child_does_not_end_its_parents_build(monkeypatch: pytest.MonkeyPatch) -> None:
    order = pytest.importorskip("headway.runtime.tensorrt.order")
    monkeypatch.setattr(order.msgspec.json, "encode", lambda wanted: b"")
    popen = subprocess.Popen
    monkeypatch.setattr(order.subprocess, "Popen", lambda _, **given: popen(["sleep", "600"], **given))
    build = order.Apart(None)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        build.end()
    assert build._process.poll() is None
    build.end()
    assert build._process.wait(60) != 0
    assert not build.wait()
