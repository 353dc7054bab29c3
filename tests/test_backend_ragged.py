"""Batches without padding, on ONNX Runtime's CUDA backend and a played driver: where they go, and what comes back."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import RAGGED, Bundle, Tensor
from headway.core.tasks import Row
from headway.core.tolerance import PRECISION
from headway.export import doctor, encoders, simulated, store, unpacked
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import layouts, load
from headway.runtime.backends import onnxruntime_cuda
from headway.runtime.layouts import LONG, PLACES, PaddingFree, arranged, sizes
from headway.runtime.ragged import Ragged
from tests import cuda_driver
from tests.alone import worst
from tests.cuda_driver import Driver
from tests.test_architectures import model_of
from tests.test_backend_cuda import Session
from tests.test_export_tasks import TASKS, untrained

Made = Callable[[str], Path]
LONGEST, VOCABULARY = 60, 90
"""tokens, and ids that they are drawn from"""
TENSOR = {
    name: Tensor(name=name, dtype=dtype, shape=list(shape)) for name, (dtype, shape) in layouts.INPUTS.items()
}


class Noting(Session):
    """Tells how many tokens each run has."""

    tokens: list[int]

    def io_binding(self) -> Any:
        real = self._real.io_binding()
        bind = real.bind_input

        def noted(name: str, kind: str, index: int, dtype: Any, shape: Sequence[int], pointer: int) -> None:
            if name == "input_ids":
                Noting.tokens.append(int(np.prod(shape)))
            bind(name, kind, index, dtype, shape, pointer)

        real.bind_input = noted
        return real


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    """The op that only a GPU has is computed by others."""
    found = cuda_driver.installed(monkeypatch)
    opens = onnxruntime_cuda._session
    for name, value in {"runs": 0, "captured": 0, "fails": False}.items():
        monkeypatch.setattr(Session, name, value)
    monkeypatch.setattr(Noting, "tokens", [], raising=False)
    monkeypatch.setattr(onnxruntime_cuda, "KIND", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "_providers", lambda *told: ["CPUExecutionProvider"])

    def session(library: Any, graph: Path, gpu: Any, stream: Any) -> Session:
        model = unpacked.unpack(ir.load(graph))
        store.write(simulated.simulate(model), tmp_path / graph.name)
        return Noting(opens(library, tmp_path / graph.name, gpu, stream), found, stream)

    monkeypatch.setattr(onnxruntime_cuda, "_session", session)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Bundles of tasks, each made when it is asked for."""
    folder = tmp_path_factory.mktemp("bundles")
    model = model_of("bert", transformers.AutoModel, folder / "model")

    @cache
    def of(kind: str) -> Path:
        (folder / kind).mkdir()
        checkpoint, _ = untrained(kind, model, folder / kind, LONGEST)
        options = ExportOptions(
            output=folder / kind / "bundle", target="cuda", precision="fp32,fp16", threads=1
        )
        return export(checkpoint, options).bundle

    return of


def opened(bundle: Path, precision: str = "fp32", **options: Any) -> Any:
    return load(bundle, device="cuda", backend="onnxruntime-cuda", precision=precision, **options)


def rows_of(lengths: Sequence[int]) -> list[Row]:
    random = np.random.default_rng(sum(lengths))
    return [Row(i, random.integers(1, VOCABULARY, n).tolist(), [0] * n) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("kind", TASKS)
def test_the_answers_of_the_padded_graph(driver: Driver, made: Made, kind: str) -> None:
    """Of all lengths, in a first run, a capture and a launch; alone as in a batch."""
    rows = rows_of([*range(1, LONGEST + 1), *[3] * 40])
    expected = load(made(kind), precision="fp32", backend="onnxruntime", threads=1).answers(rows)
    spread = float(np.concatenate([answer.ravel() for answer in expected]).std())
    for precision in ("fp32", "fp16"):
        pipe, launched = opened(made(kind), precision), driver.launches
        assert not pipe._backend.pads
        for _ in range(3):
            for found, wanted in zip(pipe.answers(rows), expected, strict=True):
                assert found.shape == wanted.shape
                np.testing.assert_allclose(found, wanted, rtol=0, atol=PRECISION[precision].worst * spread)
        assert driver.launches > launched
        assert worst(pipe, [row.ids for row in rows[::4]]) <= PRECISION[precision].neighbours


def test_only_what_is_missing_to_a_place_is_computed(driver: Driver, made: Made) -> None:
    pipe = opened(made("tags"), batch_tokens=700)
    lengths = [1, *[2] * 50, 17, 33, *[5] * 80, 59, 60, *[31] * 20]
    pipe.answers(rows_of(lengths))
    assert sum(lengths) <= sum(Noting.tokens) <= sum(lengths) * 9 / 8 + 16
    assert len(Noting.tokens) == -(-sum(lengths) // 700)
    assert sum(lengths) < len(lengths) * max(lengths) / 3  # what one padded batch would be


def test_memory_is_taken_once(driver: Driver, made: Made) -> None:
    pipe = opened(made("single"))
    held = driver.held()
    for count in (1, 3, 70):
        for _ in range(3):
            pipe.answers(rows_of([1 + i % LONGEST for i in range(count)]))
    assert driver.held() == held


def test_its_layers_are_inspected(made: Made) -> None:
    folder, declared = made("single"), Bundle.read(made("single"))
    feeds = [encoders.feed(row, declared.graphs[encoders.ROLE]) for row in rows_of([3, 30])]
    found = doctor.layers(folder, declared, "fp16", feeds)
    assert len(found) > 10
    assert all(layer.bytes < layer.bytes_fp32 for layer in found)


def padded(bundle: Path, folder: Path) -> Path:
    """The bundle with a variant fp32 that has the padded graph alone."""
    shutil.copytree(bundle, folder)
    declared = Bundle.read(folder)
    full = declared.variants["fp32"]
    graphs = {role: name for role, name in full.graphs.items() if role != RAGGED}
    variants = declared.variants | {"fp32": msgspec.structs.replace(full, graphs=graphs)}
    msgspec.structs.replace(declared, variants=variants).write(folder)
    return folder


def test_a_variant_without_such_a_graph_is_padded(driver: Driver, made: Made, tmp_path: Path) -> None:
    folder = padded(made("single"), tmp_path / "bundle")
    assert opened(folder)._backend.pads
    assert not opened(folder, "fp16")._backend.pads


def test_a_graph_that_onnx_runtime_does_not_take(
    driver: Driver, made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The padded one runs on the same GPU, and that is told."""
    opens = onnxruntime_cuda._session

    def session(library: Any, graph: Path, gpu: Any, stream: Any) -> Any:
        if graph.stem == RAGGED:
            raise UnavailableError("PackedMultiHeadAttention", "use another GPU")
        return opens(library, graph, gpu, stream)

    monkeypatch.setattr(onnxruntime_cuda, "_session", session)
    with caplog.at_level(logging.WARNING, "headway"):
        assert opened(made("single"))._backend.pads
    assert "fp32 runs with padding: PackedMultiHeadAttention is not available" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.inputs.append(Tensor(name="more", dtype="int64", shape=["tokens"])), "more"),
        (
            lambda told: told.inputs[0].shape.append("tokens"),
            "ragged.onnx takes input_ids as this version does not",
        ),
        (
            lambda told: told.outputs[0].shape.insert(0, "rows"),
            "ragged.onnx does not give logits of texts or of",
        ),
        (lambda told: told.outputs.clear(), "ragged.onnx does not give logits"),
    ],
)
def test_a_graph_that_this_version_does_not_feed(
    driver: Driver, made: Made, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    folder = Path(shutil.copytree(made("single"), tmp_path / "bundle"))
    declared = Bundle.read(folder)
    change(declared.graphs[RAGGED])
    declared.write(folder)
    with pytest.raises(BundleError, match=message):
        opened(folder)


lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(lengths, st.integers(300, 2000))
def test_pieces_hold_all_texts_in_order(own: list[int], most: int) -> None:
    layout, batch = PaddingFree(300, most), Ragged.of(rows_of(own))
    pieces = layout.pieces(batch)
    np.testing.assert_array_equal(np.concatenate([piece.rows.ids for piece in pieces]), batch.ids)
    for rows, place in pieces:
        assert len(rows.ids) <= place.tokens <= min(len(rows.ids) * 9 / 8 + 16, max(most, 300))
        assert rows.lengths.max() <= place.length
        assert place.length * place.rows <= PLACES
        for name, tensor in TENSOR.items():
            assert np.prod(sizes(tensor, place)) <= layout.largest(tensor), name


@given(lengths)
def test_what_is_missing_are_texts_of_their_own(own: list[int]) -> None:
    (piece,) = PaddingFree(300, 20_000).pieces(Ragged.of(rows_of(own)))
    batch, place = piece
    given = arranged(batch, place)
    for name, array in given.items():
        assert array.shape == sizes(TENSOR[name], place), name
    there = np.diff(given["bounds"])
    assert there[: len(own)].tolist() == own
    assert there.sum() == place.tokens
    assert there.max() <= place.length
    np.testing.assert_array_equal(given["input_ids"][: len(batch.ids)], batch.ids)
    np.testing.assert_array_equal(given["positions"], np.concatenate([np.arange(n) for n in there]))
    np.testing.assert_array_equal(given["starts"] + given["positions"], np.arange(place.tokens))
    np.testing.assert_array_equal(given["firsts"][: len(own)], batch.offsets[:-1])
    assert given["firsts"].max() < place.tokens
    assert sorted(given["places"].ravel().tolist()) == list(range(place.rows * place.length))
    text, at = np.divmod(given["places"].ravel()[: place.tokens], place.length)
    np.testing.assert_array_equal(text, np.repeat(np.arange(place.rows), there))
    np.testing.assert_array_equal(at, given["positions"])


@given(st.integers(1, 5000), st.integers(16, 40_000))
def test_places_are_few_and_near(count: int, longest: int) -> None:
    layout = PaddingFree(longest)
    assert len(layout._steps) <= 8 * 13
    place = layout.place(Ragged.of(rows_of([min(count, longest)])))
    assert place.length >= LONG
    assert place.length & (place.length - 1) == 0
    assert place.rows & (place.rows - 1) == 0
