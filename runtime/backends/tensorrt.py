"""TensorRT on an NVIDIA GPU: engines that were built before, and ONNX Runtime on the same GPU until one is.

A batch is padded to one of few shapes, for each of which the whole work, copies included, is one CUDA graph. While one
batch is computed the next is padded, on a stream and in memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle, Graph
from headway.runtime.backends.base import Backend, engines_for, load_engine
from headway.runtime.cuda import Device
from headway.runtime.devices import place
from headway.runtime.lanes import LANES, Lanes, Tensors
from headway.runtime.layouts import Padded
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.key import Target
from headway.runtime.tensorrt.lane import Opened, TensorRtLane
from headway.runtime.tensorrt.library import Library, open_library
from headway.runtime.tensorrt.manager import Managed
from headway.runtime.tensorrt.order import Apart
from headway.runtime.tensorrt.store import Engine

DEVICES = ("cuda",)
TARGET = "tensorrt"
PACKAGE = "tensorrt"
BUCKETS = ()


def open_graph(
    graph: Path,
    declared: Graph,
    read: Sequence[str],
    pad_id: int,
    device: str,
    threads: int,
    buckets: int = 0,
) -> Backend:
    gpu, library = Device(place(device).number), open_library()
    folder = graph.parent.parent
    bundle = Bundle.read(folder)
    name = graph.relative_to(folder).as_posix()
    wanted = orders.order(folder, bundle, name, library, Target.of(gpu), index=gpu.index)

    def opened() -> TensorRt | None:
        engine = orders.find(wanted, library)
        return None if engine is None else TensorRt(library, gpu, engine, graph, declared, read, pad_id)

    def opened_again() -> TensorRt | None:
        """What was built in place of an engine that was not opened. It is not built a second time."""
        try:
            return opened()
        except _RefusedPlanError as error:
            wanted.store.refuse(wanted.key(library), str(error))
            raise

    def start() -> Apart:
        return Apart(wanted)

    try:
        if (found := opened()) is not None:
            return found
    except _RefusedPlanError:
        if wanted.store.refusal(wanted.key(library)) is not None:
            raise
        with suppress(UnavailableError):
            serving = _other(graph, declared, read, pad_id, device, threads)
            for key in orders.keys(wanted, library):
                wanted.store.drop(key)
            return Managed(serving, start, opened_again)
        raise
    return Managed(_stand_in(graph, declared, read, pad_id, device, threads), start, opened)


def _stand_in(
    graph: Path, declared: Graph, read: Sequence[str], pad_id: int, device: str, threads: int
) -> Backend:
    """Another engine on the same device. Raises UnavailableError, saying how to build ahead, if there is none."""
    try:
        return _other(graph, declared, read, pad_id, device, threads)
    except UnavailableError as error:
        raise UnavailableError(
            f"a TensorRT engine of {graph.parent.name}, or another engine to run it until one is built,",
            f"build it with `headway engines {graph.parent.parent}`",
        ) from error


def _other(
    graph: Path, declared: Graph, read: Sequence[str], pad_id: int, device: str, threads: int
) -> Backend:
    """Another engine on the same device. Raises UnavailableError if there is none."""
    for name in engines_for(device):
        with suppress(UnavailableError):
            if load_engine(name).open_graph is not open_graph:
                return load_engine(name).open_graph(graph, declared, read, pad_id, device, threads)
    raise UnavailableError(f"another engine on '{device}'", "pip install 'headway[gpu]'")


class _RefusedPlanError(UnavailableError):
    """An engine that is whole, and that the library does not open."""


class TensorRt(Lanes):
    """An engine on a GPU, with as many batches at once as it has lanes."""

    def __init__(
        self,
        library: Library,
        gpu: Device,
        engine: Engine,
        graph: Path,
        declared: Graph,
        read: Sequence[str],
        pad_id: int,
    ) -> None:
        """Raises UnavailableError, or BundleError if the graph is not as declared."""
        log = library.logger()
        gpu.use()
        self._runtime = library.module.Runtime(log)
        opened = deserialized(library, self._runtime, engine, graph)
        if opened is None:
            raise _RefusedPlanError(
                f"an engine of {graph.parent.name} that {library.name} opens ({'; '.join(log.errors[:2])})",
                f"build it again with `headway engines {graph.parent.parent} --again`",
            )
        named(opened, graph, declared)
        on_gpu = Opened(library, gpu, opened)
        tensors = Tensors(declared, on_gpu.dtype, tuple(read), Padded(engine.options.shapes, pad_id))
        super().__init__(tensors, [TensorRtLane(on_gpu, tensors) for _ in range(LANES)])


def named(opened: Any, graph: Path, declared: Graph) -> set[str]:
    """Names of an engine's inputs and outputs. Raises BundleError if they are not as declared."""
    names = {opened.get_tensor_name(i) for i in range(opened.num_io_tensors)}
    said = {tensor.name for tensor in (*declared.inputs, *declared.outputs)}
    if names != said:
        wanted = f"has {', '.join(sorted(names))}, not {', '.join(sorted(said))} as declared"
        raise BundleError(graph.parent.parent, f"{graph.name} {wanted}")
    return names


def deserialized(library: Library, runtime: Any, engine: Engine, graph: Path) -> Any:
    """TensorRT's engine, with its weights; None if the library does not take it."""
    trt, options = library.module, engine.options
    runtime.engine_host_code_allowed = options.version_compatible  # the runtime that such a plan carries
    opened = runtime.deserialize_cuda_engine(engine.plan)
    if opened is None or not options.strip:
        return opened
    log = library.logger()
    refitter = trt.Refitter(opened, log)
    parser = trt.OnnxParserRefitter(refitter, log)
    return opened if parser.refit_from_file(str(graph)) and refitter.refit_cuda_engine() else None
