"""ONNX Runtime on an NVIDIA GPU: inputs and outputs stay where they are bound, and nothing is waited for but the answers.

All work, copies included, goes through one stream of ours; the work of each shape is captured at its second run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headway.core import files
from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import RAGGED, Bundle, Graph, Tensor, inside
from headway.runtime.cuda import Device, Event, Stream
from headway.runtime.devices import place
from headway.runtime.fork_safety import ForkSafeLock
from headway.runtime.lanes import LANES, Lane, Lanes, Tensors
from headway.runtime.layouts import INPUTS, Layout, Padded, PaddingFree, Piece, sizes
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import Place, Shapes

DEVICES = ("cuda",)
TARGET = "cuda"
PACKAGE = "onnxruntime"
BUCKETS = ()

PROVIDER = "CUDAExecutionProvider"
LIBRARY = "HEADWAY_CUDA_PROVIDER"
"""environment variable: the provider's library, for an onnxruntime that comes without it"""
KIND = "cuda"
"""ONNX Runtime's name of the memory that is bound"""
OPTIONS = {
    "use_tf32": "0",  # fp32 is fp32: it was proven so
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
}
ON_PROCESSOR = {
    "Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Identity", "Constant", "Range",
    "ConstantOfShape", "Reshape", "Expand", "Split", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Max", "Min", "ReduceProd",
    "Where", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not",
}  # fmt: skip
"""ops that reckon with sizes, which ONNX Runtime leaves to the processor; any other op there is refused"""
KINDS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(int32)": "int32"}  # fmt: skip


def open_graph(
    graph: Path,
    declared: Graph,
    read: Sequence[str],
    pad_id: int,
    device: str,
    threads: int,
    buckets: int = 0,
) -> Lanes:
    """The variant's graph without padding, if it has one that this ONNX Runtime takes; else the padded one."""
    bundle, problem = Bundle.read(graph.parent.parent), None
    ragged = _without_padding(graph, bundle)
    if ragged is not None:
        _check(bundle.graphs[RAGGED], read, ragged)
        try:
            return opened(ragged, bundle.graphs[RAGGED], read, PaddingFree(bundle.max_length), device)
        except UnavailableError as error:
            problem = error
    lanes = opened(graph, declared, read, Padded(Shapes(bundle.max_length), pad_id), device)
    if problem is not None:
        logging.getLogger("headway").warning("%s runs with padding: %s", graph.parent.name, problem)
    return lanes


def opened(graph: Path, declared: Graph, read: Sequence[str], layout: Layout, device: str) -> Lanes:
    """A graph with batches in a layout that suits it. Raises UnavailableError or BundleError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError("onnxruntime-gpu", "pip install 'headway[gpu]'") from error
    gpu = Device(place(device).number)
    stream, lock = gpu.stream(), ForkSafeLock()
    session = _session(onnxruntime, graph, gpu, stream)
    kinds = {value.name: value.type for value in (*session.get_inputs(), *session.get_outputs())}
    said = {tensor.name for tensor in (*declared.inputs, *declared.outputs)}
    if set(kinds) != said:
        wanted = f"has {', '.join(sorted(kinds))}, not {', '.join(sorted(said))} as declared"
        raise BundleError(graph.parent.parent, f"{graph.name} {wanted}")

    if unknown := sorted(set(kinds.values()) - KINDS.keys()):
        name = f"{', '.join(unknown)} as input or output of {graph.parent.name}/{graph.name}"
        raise UnavailableError(name, "choose another --precision")

    def dtype(tensor: Tensor) -> np.dtype[Any]:
        return np.dtype(KINDS[kinds[tensor.name]])

    tensors = Tensors(declared, dtype, tuple(read), layout)
    quiet = onnxruntime.RunOptions()
    quiet.add_run_config_entry("disable_synchronize_execution_providers", "1")
    lanes = [OnnxRuntimeLane(gpu, stream, tensors, session, quiet, lock) for _ in range(LANES)]
    return Lanes(tensors, lanes)


def _check(declared: Graph, read: Sequence[str], graph: Path) -> None:
    """Raise BundleError if a graph without padding takes what is not given here, or gives what is not read."""
    for tensor in declared.inputs:
        if INPUTS.get(tensor.name) != (tensor.dtype, tuple(tensor.shape)):
            raise BundleError(
                graph.parent.parent, f"{graph.name} takes {tensor.name} as this version does not give it"
            )
    shapes = {tensor.name: tensor.shape for tensor in declared.outputs}
    for name in read:
        shape = shapes.get(name, [])
        known = shape[:1] in (["batch"], ["tokens"]) and all(isinstance(size, int) for size in shape[1:])
        if not known:
            raise BundleError(graph.parent.parent, f"{graph.name} does not give {name} of texts or of tokens")


def _without_padding(graph: Path, bundle: Bundle) -> Path | None:
    """The graph without padding of the variant whose padded graph is given, if it has one."""
    folder = graph.parent.parent
    name = graph.relative_to(folder).as_posix()
    for variant in bundle.variants.values():
        if name in variant.graphs.values() and RAGGED in variant.graphs:
            return inside(folder, variant.graphs[RAGGED])
    return None


class OnnxRuntimeLane(Lane[Any]):
    """A batch in a session that all lanes share, as they share its stream: one gives it work at a time."""

    def __init__(
        self, device: Device, stream: Stream, tensors: Tensors, session: Any, options: Any, lock: ForkSafeLock
    ) -> None:
        super().__init__(device, stream, tensors)
        self._session, self._options, self._lock = session, options, lock

    def start(self, batch: Ragged, place: Place) -> None:
        with self._lock:
            super().start(batch, place)

    def deliver(self, piece: Piece, longest: int, to: Mapping[str, int]) -> Event:
        with self._lock:
            return super().deliver(piece, longest, to)

    def prepared(self, place: Place) -> Any:
        binding, index = self._session.io_binding(), self.device.index
        declared = self.tensors.declared
        for bind, side in ((binding.bind_input, declared.inputs), (binding.bind_output, declared.outputs)):
            for tensor in side:
                shape, kind = sizes(tensor, place), self.tensors.dtype(tensor)
                bind(tensor.name, KIND, index, kind, shape, self.rooms[tensor.name].device.pointer)
        return binding

    def execute(self, context: Any) -> None:
        run(self._session, context, self._options)


def run(session: Any, binding: Any, options: Any) -> None:
    """Give the session's stream what is bound. Raises UnavailableError."""
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # the library's exceptions have no common base
        raise UnavailableError(f"ONNX Runtime's answer on the GPU ({error})", "ask headway doctor") from error


def _session(onnxruntime: Any, graph: Path, gpu: Device, stream: Stream) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # it plans for one shape; lengths vary here
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    told = OPTIONS | {"device_id": str(gpu.index), "user_compute_stream": str(stream.pointer)}
    try:
        providers = _providers(onnxruntime, options, told, gpu.index)
        with files.in_utf8(graph) as name:
            session = onnxruntime.InferenceSession(name, options, providers=providers)
    except UnavailableError:
        raise
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            name = f"{graph.parent.name}/{graph.name} on onnxruntime's CUDA provider"
            raise UnavailableError(name, "choose another --precision or --backend") from error
        raise BundleError(graph.parent.parent, f"{graph.name} cannot be opened: {error}") from error
    _refuse_processor(session, graph)
    return session


def _providers(onnxruntime: Any, options: Any, told: dict[str, str], index: int) -> list[Any] | None:
    """What a session is opened with; None where the options say it. Raises UnavailableError."""
    if (library := os.environ.get(LIBRARY)) and not _devices(onnxruntime):
        onnxruntime.register_execution_provider_library(PROVIDER, library)
    elif PROVIDER in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()
    if found := _devices(onnxruntime):
        options.add_provider_for_devices([found[index]], told)
        return None
    if PROVIDER not in onnxruntime.get_available_providers():
        raise UnavailableError(
            "onnxruntime's CUDA provider", "pip uninstall onnxruntime; pip install 'headway[gpu]'"
        )
    return [(PROVIDER, told)]


def _devices(onnxruntime: Any) -> list[Any]:
    """GPUs of the provider, where it is a library of its own."""
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]


def _refuse_processor(session: Any, graph: Path) -> None:
    """Raise UnavailableError if anything but sizes is computed by the processor."""
    left = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name != PROVIDER
    }
    if wrong := sorted(left - ON_PROCESSOR):
        name = (
            f"{', '.join(wrong)} as {graph.parent.name}/{graph.name} has it, on onnxruntime's CUDA provider,"
        )
        raise UnavailableError(name, "export with --target cuda, or choose another --precision")
