"""Engines without TensorRT: shapes, keys, folders, builds and the swap, on a library and a driver that are played."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import BundleError, OutputError, UnavailableError, UsageError
from headway.core.manifest import Bundle
from headway.runtime import cuda
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.key import Key, Options, Target, sha256_of_graph
from headway.runtime.tensorrt.library import SWITCH, open_library
from headway.runtime.tensorrt.manager import Managed
from headway.runtime.tensorrt.order import Order
from headway.runtime.tensorrt.store import PLAN, RECORD, Engine, Store, folders
from tests import cuda_driver, fake_tensorrt
from tests.cuda_driver import Driver
from tests.fake_tensorrt import Module
from tests.small import MAX_LENGTH, small_bundle

KEY = Key(graph="a", library="tensorrt", version="11.4.0", gpu="H200", capability=(9, 0), driver="580.82.07")
OPTIONS = Options(shapes=Shapes(64))
ENGINE = Engine(b"a plan", OPTIONS)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return cuda_driver.installed(monkeypatch)


@pytest.fixture
def trt(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Module:
    return fake_tensorrt.installed(monkeypatch, driver)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "headway" / "engines"


@pytest.fixture
def wanted(trt: Module, user: Path, tmp_path: Path) -> Order:
    """An engine of a small bundle."""
    device = cuda.Device()
    device.use()
    folder = small_bundle(tmp_path / "bundle")
    return orders.order(
        folder, Bundle.read(folder), "fp32/model.onnx", open_library(), Target.of(device), index=0
    )


def place(wanted: Order) -> Path:
    """The folder of an order's engine."""
    return Path(wanted.places[0]) / wanted.key(open_library()).name


# shapes


@given(st.integers(1, 9000), st.integers(16, 40_000), st.data())
def test_every_batch_has_a_shape_and_a_profile(longest: int, tokens: int, data: st.DataObject) -> None:
    shapes = Shapes(longest, tokens)
    length = data.draw(st.integers(1, longest))
    rows = data.draw(st.integers(1, shapes.most(length)))
    found = shapes.place(rows, length)
    profile = shapes.profiles[found.profile]
    assert rows <= found.rows <= min(shapes.most(length), max(rows * 1.5, rows + 1))
    assert length <= found.length <= min(longest, max(length + 15, 1.5 * length))
    assert all(a <= b <= c for a, b, c in zip(profile.least, found[1:3], profile.most, strict=True))
    assert found.rows == 1 or found.rows * found.length <= tokens


@pytest.mark.parametrize(("longest", "count"), [(5, 2), (16, 2), (128, 6), (512, 10), (8192, 18)])
def test_profiles_are_few(longest: int, count: int) -> None:
    assert len(Shapes(longest).profiles) == count
    assert Shapes(longest).profiles[-1].most[1] == longest


def test_one_row_has_a_profile_of_its_own() -> None:
    shapes = Shapes(512)
    assert shapes.profiles[shapes.place(1, 40).profile].most == (1, 64)
    assert shapes.profiles[shapes.place(2, 40).profile].least == (2, 48)


def test_where_only_one_row_fits() -> None:
    assert Shapes(512, tokens=512).profiles[-1] == ((1, 384), (1, 512))


# keys


CHANGES: list[dict[str, Any]] = [
    {"graph": "b"},
    {"library": "tensorrt-rtx"},
    {"version": "11.4.1"},
    {"gpu": "H100"},
    {"capability": (8, 9)},
    {"driver": "580.95.05"},
    {"format": 0},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_another_key_is_another_engine(change: dict[str, Any], tmp_path: Path) -> None:
    store, other = Store([tmp_path]), msgspec.structs.replace(KEY, **change)
    store.keep(KEY, ENGINE)
    assert store.find(KEY) == ENGINE
    assert other.name != KEY.name
    assert store.find(other) is None


def test_every_part_of_a_key_is_tried() -> None:
    assert {next(iter(change)) for change in CHANGES} == set(Key.__struct_fields__)


def test_the_hash_of_a_graph_is_that_of_its_files(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "bundle")
    declared, name = Bundle.read(folder), "fp32/model.onnx"
    alone = sha256_of_graph(declared, folder, name)
    file = declared.files[name]
    declared.files["fp32/model.onnx.data"] = file
    beside = sha256_of_graph(declared, folder, name)
    declared.files["fp32/model.onnx.data"] = msgspec.structs.replace(file, sha256="other")
    assert len({alone, beside, sha256_of_graph(declared, folder, name)}) == 3
    with pytest.raises(BundleError, match="not listed"):
        sha256_of_graph(declared, folder, "fp16/model.onnx")


def test_what_a_key_takes_from_a_library(trt: Module) -> None:
    library, target = open_library(), Target("GPU", (8, 9), "580")
    assert Key.of("a", library, target).version == "11.4.0"
    assert Key.of("a", library, target, version_compatible=True).version == "11."
    library.portable = True
    assert Key.of("a", library, target) == msgspec.structs.replace(
        Key.of("a", library, target), gpu="", driver="", capability=(8, 9)
    )


# the library


def test_which_library(trt: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (open_library().name, open_library().version) == ("tensorrt", "11.4.0")
    monkeypatch.setenv(SWITCH, "warp")
    with pytest.raises(UsageError, match="^HEADWAY_TENSORRT: unknown 'warp'; known: tensorrt, tensorrt-rtx"):
        open_library()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UnavailableError, match=r"pip install 'headway\[tensorrt\]'"):
        open_library("tensorrt")


# folders


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": lambda folder: flip(folder / PLAN),
    "its end": lambda folder: (folder / PLAN).write_bytes((folder / PLAN).read_bytes()[:-1]),
    "everything": lambda folder: (folder / PLAN).write_bytes(b""),
    "the plan": lambda folder: (folder / PLAN).unlink(),
    "the record": lambda folder: (folder / RECORD).unlink(),
    "the record's end": lambda folder: (folder / RECORD).write_bytes((folder / RECORD).read_bytes()[:-9]),
    "no text": lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe"),
    "no record": lambda folder: (folder / RECORD).write_bytes(b"[]"),
    "deep": lambda folder: (folder / RECORD).write_bytes(b"[" * 100_000),
    "another hash": lambda folder: edit(folder, sha256="0" * 64),
    "another engine": lambda folder: edit(folder, key={**msgspec.to_builtins(KEY), "gpu": "H100"}),
    "an unknown field": lambda folder: edit(folder, more=1),
    "a folder": lambda folder: ((folder / PLAN).unlink(), (folder / PLAN).mkdir()),
}


def edit(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | changes))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_not_found_and_replaced(damage: str, tmp_path: Path) -> None:
    store = Store([tmp_path])
    DAMAGES[damage](store.keep(KEY, ENGINE))
    assert store.find(KEY) is None
    store.keep(KEY, ENGINE)
    assert store.find(KEY) == ENGINE


def test_an_engine_under_another_name(tmp_path: Path) -> None:
    store, other = Store([tmp_path]), msgspec.structs.replace(KEY, driver="1")
    shutil.copytree(store.keep(KEY, ENGINE), tmp_path / other.name)
    assert store.find(other) is None


def test_where_engines_lie(user: Path, tmp_path: Path) -> None:
    assert folders(tmp_path) == [tmp_path / "engines", user]


def test_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "engines").touch()  # a file where the folder would be
    store = Store([tmp_path / "bundle" / "engines", tmp_path / "user"])
    assert store.keep(KEY, ENGINE) == tmp_path / "user" / KEY.name
    assert store.find(KEY) == ENGINE
    store.refuse(KEY, "no")
    assert store.refusal(KEY) == "no"
    with store.locked("a"):
        assert (tmp_path / "user" / "a.lock").exists()


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store([tmp_path / "file", tmp_path / "file" / "inside"])
    with pytest.raises(OutputError, match=str(tmp_path / "file")):
        store.keep(KEY, ENGINE)
    with store.locked("a"):
        store.note(KEY, b"timings")
    assert store.timings(KEY) == b""


def test_the_bundles_own_engine_goes_before_the_users(tmp_path: Path) -> None:
    Store([tmp_path / "user"]).keep(KEY, Engine(b"old", OPTIONS))
    Store([tmp_path / "bundle"]).keep(KEY, ENGINE)
    both = Store([tmp_path / "bundle", tmp_path / "user"])
    assert both.find(KEY) == ENGINE
    flip(tmp_path / "bundle" / KEY.name / PLAN)
    assert both.find(KEY) == Engine(b"old", OPTIONS)


def test_timings_are_shared_by_graphs_and_by_nothing_else(tmp_path: Path) -> None:
    store = Store([tmp_path / "bundle", tmp_path / "user"])
    store.note(KEY, b"timings")
    assert store.timings(msgspec.structs.replace(KEY, graph="b")) == b"timings"
    for change in CHANGES[1:]:
        assert store.timings(msgspec.structs.replace(KEY, **change)) == b""
    (path,) = (tmp_path / "user").glob("*.timings")
    flip(path)
    assert store.timings(KEY) == b""
    assert not (tmp_path / "bundle").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from headway.runtime.tensorrt.store import Store\n"
        "place = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with Store([place]).locked('a'):\n"
        "        count = int((place / 'count').read_text())\n"
        "        (place / 'count').write_text(str(count + 1))"
    )
    (tmp_path / "count").write_text("0")
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "count").read_text() == "40"


# builds


def test_a_build_is_made_once_and_found(trt: Module, wanted: Order) -> None:
    library = open_library()
    assert orders.find(wanted, library) is None
    assert orders.make(wanted, library)
    assert not orders.make(wanted, library)
    (asked,) = trt.builds
    assert asked["flags"] == []  # TF32, which rounds, is off
    profiles = Shapes(MAX_LENGTH).profiles
    assert [p["input_ids"] for p in asked["profiles"]] == [
        [list(p.least), list(p.most), list(p.most)] for p in profiles
    ]
    found = orders.find(wanted, library)
    assert found is not None
    assert found.options == wanted.options
    assert not list(Path(wanted.places[0]).glob(".*"))  # nothing half-written


@pytest.mark.parametrize("change", ["version", "release", "gpu", "graph"])
def test_what_is_stale_is_built_again(
    change: str, trt: Module, driver: Driver, wanted: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.make(wanted, open_library())
    if change == "version":
        trt.__version__ = "11.5.0"
    changes = {"release": {"driver": "590"}, "gpu": {"gpu": "B200"}}
    target = msgspec.structs.replace(wanted.target, **changes.get(change, {}))
    sha256 = "other" if change == "graph" else wanted.sha256
    now = msgspec.structs.replace(wanted, target=target, sha256=sha256)
    assert orders.find(now, open_library()) is None
    assert orders.make(now, open_library())
    assert orders.find(now, open_library()) is not None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_engine_is_built_again(damage: str, trt: Module, wanted: Order) -> None:
    orders.make(wanted, open_library())
    DAMAGES[damage](place(wanted))
    assert orders.make(wanted, open_library())
    assert len(trt.builds) == 2
    assert orders.find(wanted, open_library()) is not None


def test_threads_that_want_the_same(trt: Module, wanted: Order) -> None:
    def make(_: int) -> bool:
        cuda.Device().use()
        return orders.make(wanted, open_library())

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(4))) == [False, False, False, True]
    assert len(trt.builds) == 1


def test_a_graph_that_is_not_taken_is_tried_once(trt: Module, wanted: Order) -> None:
    trt.unknown = ("ReduceSum", "Div")
    message = r"^ReduceSum; Div of fp32/model.onnx, in tensorrt 11.4.0, is not available: export"
    with pytest.raises(UnavailableError, match=message) as first:
        orders.make(wanted, open_library())
    trt.unknown = ()
    with pytest.raises(UnavailableError) as second:
        orders.make(wanted, open_library())
    assert str(first.value) in str(second.value)
    assert not trt.builds
    assert orders.make(wanted, open_library(), again=True)
    assert not orders.make(wanted, open_library())


def test_a_build_that_failed_may_succeed_later(trt: Module, wanted: Order) -> None:
    trt.refuses = "out of memory"
    with pytest.raises(
        UnavailableError, match="for compute capability 9.0 is not available: out of memory; choose"
    ):
        orders.make(wanted, open_library())
    trt.refuses = None
    assert orders.make(wanted, open_library())


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_file_that_is_no_graph(content: bytes, trt: Module, wanted: Order) -> None:
    Path(wanted.graph).write_bytes(content)
    with pytest.raises(BundleError, match=r"fp32/model.onnx (cannot be read|has not inputs)"):
        orders.make(wanted, open_library())


def test_options(trt: Module, wanted: Order) -> None:
    options = msgspec.structs.replace(wanted.options, version_compatible=True, strip=True, workspace=1 << 20)
    orders.make(msgspec.structs.replace(wanted, options=options), open_library())
    (asked,) = trt.builds
    assert asked["flags"] == ["REFIT_IDENTICAL", "STRIP_PLAN", "VERSION_COMPATIBLE"]
    assert asked["workspace"] == 1 << 20
    trt.__version__ = "11.9.0"
    found = orders.find(wanted, open_library())  # as it is compatible, and serves whoever wants any
    assert found is not None
    assert found.options == options
    trt.__version__ = "12.0.0"
    assert orders.find(wanted, open_library()) is None


def test_builds_go_on_from_earlier_timings(trt: Module, wanted: Order) -> None:
    orders.make(wanted, open_library())
    orders.make(msgspec.structs.replace(wanted, sha256="other"), open_library())
    assert [asked["timings"] for asked in trt.builds] == ["", "+"]
    store, key = wanted.store, wanted.key(open_library())
    store.note(key, b"other GPU")
    assert orders.make(wanted, open_library(), again=True)
    assert trt.builds[-1]["timings"] == ""


# the swap


class Backend:
    def __init__(self, name: str) -> None:
        self.name, self.go, self.running = name, Event(), Event()
        self.go.set()

    def run(self, batches: Any) -> Any:
        self.running.set()
        assert self.go.wait(30)
        return self.name


class Building:
    """Is over when it is told."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.over, self.problem, self.ended = Event(), problem, 0

    def wait(self) -> bool:
        assert self.over.wait(30)
        if self.problem is not None:
            raise self.problem
        return not self.ended

    def end(self) -> None:
        self.ended += 1
        self.over.set()


def ask(managed: Managed) -> Any:
    return managed.run([Ragged(np.ones(1, np.int32), np.zeros(1, np.int32), np.array([0, 1]))])


def test_the_stand_in_serves_until_the_engine_is_built() -> None:
    stand_in, built, building = Backend("stand-in"), Backend("built"), Building()
    managed = Managed(stand_in, lambda: building, lambda: built)  # type: ignore[arg-type, return-value]
    assert ask(managed) == "stand-in"
    assert not managed.wait(0)
    stand_in.go.clear()
    stand_in.running.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, managed)
        assert stand_in.running.wait(30)
        building.over.set()
        assert managed.wait(30)
        assert ask(managed) == "built"
        stand_in.go.set()
        assert running.result(30) == "stand-in"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (UnavailableError("memory", "buy some"), "memory is not available"),
        (KeyError("odd"), "KeyError('odd')"),
    ],
)
def test_a_failure_is_told_once_and_not_tried_again(
    problem: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    building, started = Building(problem), []

    def start() -> Building:
        started.append(1)
        return building

    managed = Managed(Backend("stand-in"), start, lambda: None)
    building.over.set()
    assert not managed.wait(30)
    assert [ask(managed) for _ in range(3)] == ["stand-in"] * 3
    assert said in str(managed.problem)
    assert len(started) == 1
    assert len([r for r in caplog.records if said in r.getMessage()]) == 1


def test_a_build_of_which_nothing_is_found() -> None:
    building = Building()
    managed = Managed(Backend("stand-in"), lambda: building, lambda: None)
    building.over.set()
    assert not managed.wait(30)
    assert "is damaged" in str(managed.problem)


def test_a_build_that_nobody_waits_for_is_given_up() -> None:
    building = Building()
    managed = Managed(Backend("stand-in"), lambda: building, lambda: None)
    del managed
    assert building.ended == 1
