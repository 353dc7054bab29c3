"""Models that write on a driver that is played: what they write is what the processor writes, and nothing waits.

The graphs run in ONNX Runtime on the processor, and the kernels are played by `cuda_writing`.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from headway.core.errors import BundleError, UnavailableError
from headway.core.search import Search
from headway.export import cache, generation_settings, store
from headway.runtime.backends import onnxruntime_cuda
from headway.runtime.generation.batch import Batch
from headway.runtime.generation.engine import Engine
from headway.runtime.generation.gpu import beams, kernels, steps
from headway.runtime.generation.gpu import onnxruntime as gpu_onnxruntime
from headway.runtime.generation.gpu.stepwise import placed
from headway.runtime.generation.search import score, search
from tests import cuda_driver, test_generation_graphs
from tests.cuda_driver import Driver
from tests.cuda_writing import Kernels
from tests.test_backend_cuda import Session
from tests.test_generation_graphs import END, SOURCES, START, engine, opened, traced
from tests.tolerance import TOLERANCE

NAMES = ("t5", "bart", "gpt2", "llama")
MANY = [*SOURCES, *SOURCES[::-1], [7, 9], [21, 13, 5, 6, 2, 8, 41, 12, 3, 17, 55, 19, 28, 4, 31, 9, 14, 2]]
GREEDY = Search(max_new_tokens=9, decoder_start_token_id=START, eos_token_id=[END])
BEAMS = GREEDY.changed(num_beams=4, num_return_sequences=3)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = cuda_driver.installed(monkeypatch)
    opens = onnxruntime_cuda._session
    monkeypatch.setattr(Session, "fails", False)
    monkeypatch.setattr(onnxruntime_cuda, "KIND", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "_providers", lambda *told: ["CPUExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime_cuda,
        "_session",
        lambda library, graph, gpu, stream: Session(opens(library, graph, gpu, stream), found, stream),
    )
    monkeypatch.setattr(gpu_onnxruntime, "open_kernels", lambda device: Kernels(found))
    return found


@functools.cache
def gpu_files(name: str, target: str = "cuda") -> tuple[dict[str, Path], Any]:
    """The graphs as they are exported for a GPU, in fp32, and what a bundle says of them."""
    graphs, declared = traced(name), {}
    folder = Path(tempfile.mkdtemp(dir=test_generation_graphs.SHARED)) / "fp32"
    folder.mkdir()
    for role, made in graphs.items():
        model, declared[role] = store.twin(made.model), made.declared
        if role == "decoder":
            declared[role] = cache.declare(made.declared, target)
            model = cache.in_place(model, declared[role], name, target)
        ir.save(model, folder / f"{role}.onnx")
    bundle = SimpleNamespace(graphs=declared, longest=generation_settings.longest(opened(name)))
    return {role: folder / f"{role}.onnx" for role in declared}, bundle


def on_gpu(name: str, target: str = "cuda") -> Any:
    graphs, bundle = gpu_files(name, target)
    return gpu_onnxruntime.open_writer(graphs["decoder"].parent.parent, bundle, graphs, "cuda")


def assert_same(found: Any, wanted: Any) -> None:
    """The same hypotheses of every source."""
    assert [[h.tokens for h in every] for every in found] == [[h.tokens for h in every] for every in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.score, b.score, *TOLERANCE["float32"])
            np.testing.assert_allclose(a.log_probabilities, b.log_probabilities, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", NAMES)
def test_the_texts_of_the_processor(name: str, settings: Search, driver: Driver) -> None:
    ours, theirs = on_gpu(name), engine(name)
    for _ in range(3):  # given, captured, launched
        assert_same(search(ours, MANY, settings, str), search(theirs, MANY, settings, str))
    assert driver.launches > 0
    alone = [search(ours, [source], settings, str)[0] for source in MANY]
    assert_same(search(ours, MANY, settings, str), alone)


@pytest.mark.parametrize("name", NAMES)
def test_settings_with_which_the_processor_chooses(name: str, driver: Driver) -> None:
    ours, theirs, drawn = (
        on_gpu(name),
        engine(name),
        GREEDY.changed(do_sample=True, num_return_sequences=3, seed=3),
    )
    grouped = BEAMS.changed(num_beam_groups=2, diversity_penalty=0.5)
    for settings in (drawn, grouped, BEAMS.changed(force_words_ids=[[9, 14]]), GREEDY.changed(max_time=1e9)):
        assert not beams.suited(settings)
        assert_same(search(ours, MANY, settings, str), search(theirs, MANY, settings, str))
    assert driver.launches == 0


def test_steps_beyond_the_first_room(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.runtime.generation.gpu.stepwise.ROOM", 4)
    settings = GREEDY.changed(do_sample=True, num_return_sequences=2, min_new_tokens=16, max_new_tokens=16)
    for name in ("t5", "gpt2"):
        found = search(on_gpu(name), MANY, settings, str)
        assert_same(found, search(engine(name), MANY, settings, str))


def test_rows_keep_their_places_where_they_can() -> None:
    source, wanted = np.array([0, 0, 0, 2, 2]), np.array([1, 1, 2, 7, 7])
    assert placed(source, 3, wanted).tolist() == [1, 0, 2, 7, 6]
    assert placed(source, 3, None).tolist() == [0, 1, 2, 6, 7]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_judged(name: str, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.runtime.generation.gpu.engine.LOGITS", 1 << 12)  # a few texts at once
    targets = [
        [5, 9, 33, 2],
        [7],
        [8, 8],
        [14, 9, 52, 31, 8, 60, 7, 3, 2],
        [2],
        [3, 4],
        [21, 22, 23],
        [44],
        [6],
        [2, 3],
    ]
    found, wanted = (score(each, MANY, targets, START) for each in (on_gpu(name), engine(name)))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    if name in ("gpt2", "llama"):
        for ours, theirs in zip(on_gpu(name).logits(MANY), engine(name).logits(MANY), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_step_is_one_launch_and_nothing_waits_between_the_questions(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []
    for call in ("cuStreamSynchronize", "cuEventSynchronize"):
        real = getattr(Driver, call)
        monkeypatch.setattr(
            Driver, call, lambda self, *told, real=real: (waits.append(self.launches), real(self, *told))[1]
        )
    engine_there, steps = on_gpu("t5"), 40
    settings = BEAMS.changed(min_new_tokens=steps, max_new_tokens=steps)
    for _ in range(2):
        search(engine_there, MANY, settings, str)
    before = driver.launches
    waits.clear()
    search(engine_there, MANY, settings, str)
    assert driver.launches - before == steps  # the first one reads the sources, too
    begin = [wait for wait in waits if wait == before]
    asked = sorted(set(waits) - {before})
    assert begin  # what the last search has left is waited for
    assert asked == [before + 1 + beams.INTERVAL * turn for turn in (2, 3, 4)] + [before + steps]


def test_searches_that_end_early(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beams, "INTERVAL", 2)
    ours, settings = on_gpu("gpt2"), GREEDY.changed(max_new_tokens=40)
    for source in MANY:
        before = driver.launches
        (found,) = search(ours, [source], settings, str)
        assert driver.launches - before <= len(found[0].tokens) + 2 * beams.INTERVAL
        assert_same([found], search(engine("gpt2"), [source], settings, str))


def test_texts_under_way_step_by_step(driver: Driver) -> None:
    batch, plain = Batch(on_gpu("bart")), Batch(engine("bart"))
    keys = [each.add(MANY, BEAMS) for each in (batch, plain)]
    with pytest.raises(UnavailableError, match="a place beside other texts"):
        batch.add([[5]], BEAMS)
    for each in (batch, plain):
        while len(each):
            each.step()
    ours, theirs = (
        [each.found(key, str) for key in own] for each, own in zip((batch, plain), keys, strict=True)
    )
    assert_same(ours, theirs)


def test_memory_is_kept_for_shapes_and_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_gpu("bart")
    search(ours, MANY, BEAMS, str)
    held = driver.held()
    for _ in range(3):
        search(ours, MANY, BEAMS, str)
    assert driver.held() == held
    monkeypatch.setattr("headway.runtime.generation.gpu.engine.KEPT", 1)
    search(ours, MANY[:2], BEAMS, str)
    assert len(ours._idle) == 1


def test_logits_that_are_no_numbers(driver: Driver) -> None:
    ours = on_gpu("t5")
    search(ours, MANY, BEAMS, str)
    (held,) = ours._model.place.cuda.begun
    held.spoilt = True
    with pytest.raises(ValueError, match="row 0 holds NaN"):
        search(ours, MANY, BEAMS, str)
    assert_same(search(ours, MANY, BEAMS, str), search(engine("t5"), MANY, BEAMS, str))


def test_a_gpu_without_room(driver: Driver) -> None:
    driver.memory = driver.held() + 1000
    with pytest.raises(UnavailableError, match="memory for cuMemAlloc"):
        search(on_gpu("t5"), MANY, BEAMS, str)


def test_graphs_that_are_not_as_declared(driver: Driver) -> None:
    graphs, _ = gpu_files("gpt2")
    other = SimpleNamespace(
        graphs=gpu_files("llama")[1].graphs | {"decoder": traced("gpt2")["decoder"].declared}, longest=9
    )
    with pytest.raises(BundleError, match="as declared; export it again"):
        gpu_onnxruntime.open_writer(graphs["decoder"].parent.parent, other, graphs, "cuda")


def test_without_a_gpu_the_kernels_say_so(driver: Driver) -> None:
    from headway.cpp_ext import cuda as real
    from headway.runtime.cuda import Device

    try:
        real.check_device()
    except real.UnavailableError:
        with pytest.raises(UnavailableError, match="which models that write need on a GPU"):
            kernels.open_kernels(Device())


def test_caches_for_a_gpu_are_not_for_a_processor(driver: Driver) -> None:
    graphs, _ = gpu_files("gpt2", "tensorrt")
    with pytest.raises(
        UnavailableError, match="^fp32, whose caches are made for a GPU, on a processor is not"
    ):
        Engine(graphs, 1)


def test_caches_of_more_than_ten_sizes(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups of caches are told apart by their whole number, not by its last digit."""
    alike = steps.Steps._alike

    def many(self: steps.Steps) -> list[steps.Alike]:
        groups = alike(self)
        single = [group._replace(names=group.names[:1]) for group in groups]
        return [single[i % len(single)] for i in range(10)] + groups

    monkeypatch.setattr(steps.Steps, "_alike", many)
    assert_same(search(on_gpu("gpt2"), MANY, BEAMS, str), search(engine("gpt2"), MANY, BEAMS, str))
