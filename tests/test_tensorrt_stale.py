"""Engines that serve no more: what they are known by, which are deleted, and plans that TensorRT does not open."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle
from headway.runtime import load
from headway.runtime.backends import onnxruntime, tensorrt
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt import stale
from headway.runtime.tensorrt.library import open_library
from headway.runtime.tensorrt.order import Order
from headway.runtime.tensorrt.stale import Here
from headway.runtime.tensorrt.store import PLAN, RECORD, Engine, Store, engines, folders
from tests.conftest import Run
from tests.fake_tensorrt import Module
from tests.small import texts
from tests.test_tensorrt_backend import Here as Building
from tests.test_tensorrt_backend import scores
from tests.test_tensorrt_manager import ENGINE, KEY, OPTIONS, driver, place, trt, user, wanted  # noqa: F401

HERE = Here("tensorrt", "11.4.0", ("H200",), "580.82.07")


def kept(at: Path, **changes: Any) -> Path:
    """An engine's folder."""
    return Store([at]).keep(msgspec.structs.replace(KEY, **changes), ENGINE)


def test_what_an_engine_has_outlived() -> None:
    def why(**changes: Any) -> str | None:
        return stale.outlived(msgspec.structs.replace(KEY, **changes), HERE)

    assert why() is None
    assert why(version="11.") is None
    assert why(gpu="", driver="") is None
    assert why(version="11.3.0") == "was built by tensorrt 11.3.0, here is 11.4.0"
    assert why(version="10.") == "was built by tensorrt 10., here is 11.4.0"
    assert why(driver="570") == "was built with driver 570, here is 580.82.07"
    assert why(format=0) == "was built by another version of headway"
    for elsewhere in ({"gpu": "A100"}, {"library": "tensorrt-rtx"}):  # those are for other machines
        assert why(**elsewhere, version="1", driver="1") is None
    assert stale.elsewhere(KEY, HERE) is None
    assert stale.elsewhere(msgspec.structs.replace(KEY, gpu="A100"), HERE) == "is for A100"


def test_only_engines_are_deleted(tmp_path: Path) -> None:
    """Not what is wanted, is damaged, is a link, lies in the wrong folder, or is being built."""
    gone, wanted, busy = kept(tmp_path, graph="x"), kept(tmp_path), kept(tmp_path, graph="y")
    damaged, moved, more = (kept(tmp_path, graph=name) for name in ("d", "m", "n"))
    (damaged / RECORD).write_text("{}")
    moved = moved.rename(tmp_path / "moved")
    (more / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(wanted)
    (tmp_path / "file").write_text("a file")
    store = Store([tmp_path, tmp_path / "none"])
    with store.locked(busy.name):
        found = list(store.prune(lambda key, at: None if key == KEY else "is to go"))
    assert {pruned.folder for pruned in found} == {gone, more}
    assert all((pruned.bytes, pruned.reason) == (len(ENGINE.plan), "is to go") for pruned in found)
    assert not gone.exists()
    assert [path.name for path in more.iterdir()] == ["notes.txt"]
    assert all((folder / PLAN).is_file() for folder in (wanted, busy, damaged, moved, tmp_path / "link"))
    assert {folder for _, folder in engines(tmp_path)} == {wanted, busy}


def test_the_command(run: Run, trt: Module, user: Path, wanted: Order) -> None:
    bundle, library = Path(wanted.graph).parents[1], open_library()
    own = bundle / "engines"
    orders.make(wanted, library)
    now = wanted.key(library)
    Store([own]).keep(msgspec.structs.replace(now, graph="0" * 64), Engine(b"12345", OPTIONS))
    Store([user]).keep(msgspec.structs.replace(now, graph="0" * 64), ENGINE)  # another bundle's
    Store([user]).keep(msgspec.structs.replace(now, driver="1"), Engine(b"123", OPTIONS))
    Store([user]).keep(msgspec.structs.replace(now, gpu="Another"), ENGINE)
    ran = run("engines", bundle, "--prune")
    assert ran.code == 0
    first, second, last = ran.err.splitlines()
    assert first.endswith("5 bytes: it was built of a graph that the bundle has no more")
    assert f"3 bytes: it was built with driver 1, here is {wanted.target.driver}" in second
    assert last == "2 engines deleted, 8 bytes"
    assert orders.find(wanted, library) is not None
    assert len(list(engines(user))) == 2
    assert run("engines", bundle, "--prune").err == "0 engines deleted, 0 bytes\n"
    assert len(trt.builds) == 1


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another engine on the same device, and builds in this process."""
    monkeypatch.setattr(onnxruntime, "DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(tensorrt, "Apart", Building)


def opened(wanted: Order) -> Any:
    return load(Path(wanted.graph).parents[1], device="cuda", backend="tensorrt", precision="fp32")


def test_a_plan_that_is_not_opened_is_built_anew(trt: Module, wanted: Order, stand_in: None) -> None:
    orders.make(wanted, open_library())
    path = place(wanted) / PLAN
    before = path.stat().st_mtime_ns
    trt.opens = False
    pipe = opened(wanted)
    trt.opens = True
    assert scores(pipe, texts(9)) == scores(load(Path(wanted.graph).parents[1]), texts(9))
    assert pipe._backend.wait(60)
    assert len(trt.builds) == 2
    assert path.stat().st_mtime_ns > before
    assert isinstance(opened(wanted)._backend, tensorrt.TensorRt)


def test_it_is_built_anew_only_once(
    trt: Module, wanted: Order, stand_in: None, caplog: pytest.LogCaptureFixture
) -> None:
    orders.make(wanted, open_library())
    trt.opens = False
    with caplog.at_level(logging.WARNING, "headway"):
        pipe = opened(wanted)
        assert not pipe._backend.wait(60)
    assert len(trt.builds) == 2
    assert "TensorRT does not serve, another engine does" in caplog.text
    assert len(pipe(texts(3))) == 3
    for _ in range(2):
        with pytest.raises(UnavailableError, match="headway engines .* --again`$"):
            opened(wanted)
    assert len(trt.builds) == 2
    trt.opens = True
    orders.make(wanted, open_library(), again=True)
    assert isinstance(opened(wanted)._backend, tensorrt.TensorRt)


def test_a_folder_that_cannot_be_written(
    trt: Module, wanted: Order, stand_in: None, monkeypatch: Any
) -> None:
    """The plan stays, and nothing is built for ever."""
    orders.make(wanted, open_library())
    monkeypatch.setattr(Store, "drop", lambda self, key: None)
    trt.opens = False
    pipe = opened(wanted)
    assert not pipe._backend.wait(60)
    assert len(trt.builds) == 1
    assert len(pipe(texts(3))) == 3


def test_graphs_of_all_variants(wanted: Order) -> None:
    folder = Path(wanted.graph).parents[1]
    assert stale.graphs(folder, Bundle.read(folder)) == {wanted.sha256: "fp32"}
    assert folders(folder)[0] == folder / "engines"
