"""Models that write in TensorRT, on a library and a driver that are played: engines, stand-in, profiles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.core import files
from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle, File, Graph, Variant
from headway.runtime.generation.gpu import tensorrt as gpu_tensorrt
from headway.runtime.generation.search import score, search
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt import ahead
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.key import Options, Target
from headway.runtime.tensorrt.library import open_library
from headway.runtime.tensorrt.ranges import profiles
from tests import fake_tensorrt
from tests.cuda_driver import Driver
from tests.cuda_writing import Kernels
from tests.fake_tensorrt import Module
from tests.test_generation_gpu import BEAMS, GREEDY, MANY, assert_same, driver, gpu_files
from tests.test_generation_graphs import START, engine

__all__ = ["driver"]


@pytest.fixture
def library(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Module:
    for name in ("t5", "gpt2"):  # PyTorch looks for a TensorRT when it traces
        gpu_files(name, "tensorrt")
        engine(name)
    monkeypatch.setattr(gpu_tensorrt, "open_kernels", lambda device: Kernels(driver))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return fake_tensorrt.installed(monkeypatch, driver)


def bundle_of(name: str, folder: Path) -> tuple[Bundle, dict[str, Path]]:
    """A bundle's graphs and what its manifest says of them."""
    graphs, told = gpu_files(name, "tensorrt")
    (folder / "fp32").mkdir(parents=True)
    for path in graphs.values():
        (folder / "fp32" / path.name).write_bytes(path.read_bytes())
    names = {role: f"fp32/{path.name}" for role, path in graphs.items()}
    declared = Bundle(
        task="text2text-generation" if "encoder" in graphs else "text-generation", labels=[], max_length=32, pad_id=0,
        graphs=told.graphs, longest=told.longest, architecture={}, made_by={}, source={},
        variants={"fp32": Variant(precision="fp32", target="tensorrt", graphs=names)},
        files={n: File(bytes=(folder / n).stat().st_size, sha256=files.sha256(folder / n)) for n in names.values()},
    )  # fmt: skip
    return declared, {role: folder / file for role, file in names.items()}


def opened(name: str, folder: Path) -> Any:
    declared, graphs = bundle_of(name, folder)
    wanted = {
        r: orders.order(folder, declared, f"fp32/{p.name}", open_library(), target())
        for r, p in graphs.items()
    }
    for each in wanted.values():
        assert orders.make(each, open_library())
    return gpu_tensorrt.open_writer(folder, declared, graphs, "cuda")


def target() -> Target:
    from headway.runtime.cuda import Device

    device = Device()
    device.use()
    return Target.of(device)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_the_texts_of_the_processor(name: str, library: Module, tmp_path: Path) -> None:
    ours, theirs = opened(name, tmp_path / "bundle"), engine(name)
    assert isinstance(ours, gpu_tensorrt.GpuEngine)
    for settings in (GREEDY, BEAMS, GREEDY.changed(do_sample=True, seed=3)):
        for _ in range(3):
            assert_same(search(ours, MANY, settings, str), search(theirs, MANY, settings, str))
    assert library.driver.launches > 0
    targets = [[5, 9, 33, 2]] * len(MANY)
    found, wanted = (score(each, MANY, targets, START) for each in (ours, theirs))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_more_than_an_engine_takes(library: Module, tmp_path: Path) -> None:
    ours = opened("t5", tmp_path / "bundle")
    many = MANY * 8  # beyond the engine's sources at once
    assert_same(search(ours, many, GREEDY, str), search(ours, MANY, GREEDY, str) * 8)
    with pytest.raises(UnavailableError, match=r"an engine of fp32/decoder.onnx for \(4, 4, 768, 8\)"):
        search(ours, MANY[:1], BEAMS.changed(max_new_tokens=700), str)


def test_another_engine_serves_until_they_are_built(
    library: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, builds, driver = tmp_path / "bundle", [], library.driver
    declared, graphs = bundle_of("gpt2", folder)

    class Here:
        """Builds where it stands, when it is waited for."""

        def __init__(self, wanted: Any) -> None:
            self.wanted = wanted

        def wait(self) -> bool:
            target()
            builds.append(orders.make(self.wanted, open_library()))
            return True

        def end(self) -> None:
            builds.append("ended")

    monkeypatch.setattr(gpu_tensorrt, "Apart", Here)
    ours = gpu_tensorrt.open_writer(folder, declared, graphs, "cuda")
    assert isinstance(ours, gpu_tensorrt.ManagedWriter)
    assert ours.wait(60)
    assert builds == [True]
    assert ours.problem is None
    assert (ours.longest, ours.vocabulary, ours.with_encoder, ours.joinable) == (64, 61, False, False)
    assert_same(search(ours, MANY, BEAMS, str), search(engine("gpt2"), MANY, BEAMS, str))
    assert library.contexts
    assert [len(logits) for logits in ours.logits(MANY)] == [len(text) for text in MANY]
    assert driver.launches > 0


def test_engines_are_built_ahead(library: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    declared, graphs = bundle_of("t5", folder)
    monkeypatch.setattr(Bundle, "read", lambda path: declared)
    options = Options(shapes=Shapes(declared.max_length))

    def made() -> list[bool]:
        return [m.built for m in ahead.build_engines(folder, open_library(), [target()], options)]

    assert (made(), made()) == ([True], [False])
    assert len(library.builds) == len(graphs)
    assert [len(build["profiles"]) for build in library.builds] == [2, 3]


def test_profiles_have_every_input() -> None:
    for name in ("t5", "gpt2"):
        graphs = gpu_files(name, "tensorrt")[1].graphs
        declared: Any = SimpleNamespace(graphs=graphs, max_length=100, longest=None)
        assert profiles(declared, "model") == []
        for role, graph in graphs.items():
            for profile in profiles(declared, role):
                assert profile.keys() == {tensor.name for tensor in graph.inputs}
                for least, usual, most in profile.values():
                    assert all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True))
    assert msgspec.json.decode(msgspec.json.encode(graphs["decoder"]), type=Graph) == graphs["decoder"]
