"""Models that write in TensorRT: engines that were built before, and ONNX Runtime on the same GPU until they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle, Graph
from headway.core.search import Search
from headway.runtime.backends import tensorrt as backend
from headway.runtime.cuda import Device
from headway.runtime.devices import place as placed
from headway.runtime.generation.base import Floats, Found, Tokens, Writer
from headway.runtime.generation.gpu import onnxruntime as on_onnxruntime
from headway.runtime.generation.gpu.device import Bound, Place
from headway.runtime.generation.gpu.engine import GpuEngine
from headway.runtime.generation.gpu.kernels import open_kernels
from headway.runtime.generation.gpu.reading import Model
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.key import Target
from headway.runtime.tensorrt.lane import Opened, set_input_shape
from headway.runtime.tensorrt.library import Library, open_library
from headway.runtime.tensorrt.manager import Building, Managed
from headway.runtime.tensorrt.order import Apart, Order
from headway.runtime.tensorrt.ranges import ROWS, SOURCES
from headway.runtime.tensorrt.store import Engine


def open_writer(
    folder: Path, declared: Bundle, graphs: Mapping[str, Path], device: str, threads: int = 1, kept: int = 0
) -> Writer:
    """Open verified graphs, by role. Raises UnavailableError or BundleError."""
    gpu, library = Device(placed(device).number), open_library()
    target = Target.of(gpu)
    wanted = {
        role: orders.order(
            folder, declared, path.relative_to(folder).as_posix(), library, target, index=gpu.index
        )
        for role, path in graphs.items()
    }

    def opened() -> GpuEngine | None:
        engines = {role: orders.find(each, library) for role, each in wanted.items()}
        built = {role: engine for role, engine in engines.items() if engine is not None}
        return _opened(library, gpu, built, graphs, declared) if len(built) == len(engines) else None

    if (found := opened()) is not None:
        return found
    try:
        stand_in = on_onnxruntime.open_writer(folder, declared, graphs, device)
    except UnavailableError as error:
        name = f"TensorRT engines of {folder.name}, or another engine to run it until they are built,"
        raise UnavailableError(name, f"build them with `headway engines {folder}`") from error
    return ManagedWriter(stand_in, lambda: _Builds(list(wanted.values())), opened)


def _opened(
    library: Library, gpu: Device, engines: Mapping[str, Engine], graphs: Mapping[str, Path], declared: Bundle
) -> GpuEngine:
    place = Place.on(gpu, open_kernels(gpu))
    runtime = library.module.Runtime(library.logger())
    made = {
        role: TensorRtGraph(library, place, runtime, engine, graphs[role], declared.graphs[role])
        for role, engine in engines.items()
    }
    model = Model(
        place,
        declared.graphs,
        made["decoder"],
        made.get("encoder"),
        declared.longest,
        SOURCES,
        ROWS,
        judged=1,
    )
    return GpuEngine(model)


class TensorRtGraph:
    """An engine at work on a stream that others use, too."""

    def __init__(
        self, library: Library, place: Place, runtime: Any, engine: Engine, graph: Path, declared: Graph
    ) -> None:
        place.device.use()
        made = backend.deserialized(library, runtime, engine, graph)
        if made is None:
            raise UnavailableError(
                f"an engine of {graph.parent.name}/{graph.name} that {library.name} opens",
                f"build it again with `headway engines {graph.parent.parent} --again`",
            )
        names = backend.named(made, graph, declared)
        self._opened, self._place = Opened(library, place.device, made), place
        self._name, self._ranges = f"{graph.parent.name}/{graph.name}", engine.options.ranges
        self._runtime = runtime  # as long as its engines
        self.kinds: Mapping[str, str] = {name: _kind(library, made.get_tensor_dtype(name)) for name in names}
        self._scratch = place.device.empty(int(made.device_memory_size_v2))

    def prepared(self, tensors: Mapping[str, Bound]) -> Any:
        shapes = {name: shape for name, (_, shape) in tensors.items()}
        profile = self._profile(shapes)
        context = self._opened.context()
        with self._place.lock:
            context.set_device_memory(self._scratch.pointer, self._scratch.nbytes)
            context.set_optimization_profile_async(profile, self._place.stream.pointer)
            self._place.stream.synchronize()
        for name in self._ranges[profile]:
            set_input_shape(context, name, shapes[name])
        for name, (pointer, _) in tensors.items():
            context.set_tensor_address(name, pointer)
        return context

    def _profile(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The first that the engine was built with and that has the inputs' shapes."""
        for number, ranges in enumerate(self._ranges):
            if all(
                a <= b <= c
                for name, (least, _, most) in ranges.items()
                for a, b, c in zip(least, shapes[name], most, strict=True)
            ):
                return number
        asked = next(shapes[name] for name in ("past.0.key", "input_ids") if name in shapes)
        raise UnavailableError(
            f"an engine of {self._name} for {asked}",
            "write fewer texts at once or shorter ones, or choose another --backend",
        )

    def execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._place.stream.pointer):
            raise UnavailableError(
                "a TensorRT engine's answer", "ask headway doctor, or use another --backend"
            )


def _kind(library: Library, kind: Any) -> str:
    """One of `device.STORED`."""
    if kind == getattr(library.module, "bfloat16", None):
        return "bfloat16"
    made: DTypeLike = library.module.nptype(kind)
    return np.dtype(made).name


class _Builds:
    """Engines that are built one after the other, each by a process of its own."""

    def __init__(self, wanted: Sequence[Order]) -> None:
        self._left, self._given_up = list(wanted), False
        self._now: Building = Apart(self._left.pop(0))

    def wait(self) -> bool:
        while self._now.wait() and not self._given_up:
            if not self._left:
                return True
            self._now = Apart(self._left.pop(0))
        return False

    def end(self) -> None:
        self._given_up = True
        self._now.end()


class ManagedWriter(Managed):
    """Writes on a stand-in while the engines are built, and on the engines from the first call after that."""

    def __init__(
        self, stand_in: Writer, start: Callable[[], Building], open_built: Callable[[], Writer | None]
    ) -> None:
        super().__init__(stand_in, start, open_built)  # type: ignore[arg-type]  # which only runs what it is asked for

    @property
    def _writer(self) -> Writer:
        return self._serving  # type: ignore[return-value]

    @property
    def longest(self) -> int | None:
        return self._writer.longest

    @property
    def vocabulary(self) -> int:
        return self._writer.vocabulary

    @property
    def with_encoder(self) -> bool:
        return self._writer.with_encoder

    threads, joinable = 1, False

    @property
    def on_one_thread(self) -> ManagedWriter:
        return self

    @property
    def workers(self) -> ThreadPoolExecutor:
        return self._writer.workers

    def begin(self, sources: Sequence[Tokens], start: int) -> tuple[Any, Floats]:
        return self._writer.begin(sources, start)

    def search(
        self, sources: Sequence[Tokens], settings: Search, begun: Sequence[tuple[Tokens, int]]
    ) -> list[list[Found]] | None:
        return self._writer.search(sources, settings, begun)

    def before(self, sources: Sequence[Tokens], targets: Sequence[Tokens], start: int) -> Iterator[Floats]:
        return self._writer.before(sources, targets, start)

    def logits(self, texts: Sequence[Tokens]) -> list[Floats]:
        return self._writer.logits(texts)
