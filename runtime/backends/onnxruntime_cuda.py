"""ONNX Runtime on an NVIDIA GPU: inputs and outputs stay where they are bound, and nothing is waited for but the answers.

All work, copies included, goes through one stream of ours; the work of each shape is captured at its second run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle, Graph, Tensor
from headway.runtime.cuda import Device, Stream
from headway.runtime.devices import place
from headway.runtime.lanes import LANES, Lane, Lanes, Tensors, sizes
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
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError("onnxruntime-gpu", "pip install 'headway[gpu]'") from error
    gpu = Device(place(device).number)
    stream, lock = gpu.stream(), Lock()
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

    tensors = Tensors(declared, dtype, tuple(read), pad_id, Shapes(_longest(graph)))
    quiet = onnxruntime.RunOptions()
    quiet.add_run_config_entry("disable_synchronize_execution_providers", "1")
    lanes = [OnnxRuntimeLane(gpu, stream, tensors, session, quiet, lock) for _ in range(LANES)]
    return Lanes(tensors, lanes)


class OnnxRuntimeLane(Lane[Any]):
    """A batch in a session that all lanes share, as they share its stream: one gives it work at a time."""

    def __init__(
        self, device: Device, stream: Stream, tensors: Tensors, session: Any, options: Any, lock: Lock
    ) -> None:
        super().__init__(device, stream, tensors)
        self._session, self._options, self._lock = session, options, lock

    def start(self, batch: Ragged, place: Place) -> None:
        with self._lock:
            super().start(batch, place)

    def prepared(self, place: Place) -> Any:
        binding, index = self._session.io_binding(), self.device.index
        declared = self.tensors.declared
        for bind, side in ((binding.bind_input, declared.inputs), (binding.bind_output, declared.outputs)):
            for tensor in side:
                shape, kind = sizes(tensor, place.rows, place.length), self.tensors.dtype(tensor)
                bind(tensor.name, KIND, index, kind, shape, self.rooms[tensor.name].device.pointer)
        return binding

    def execute(self, context: Any) -> None:
        try:
            self._session.run_with_iobinding(context, self._options)
        except Exception as error:  # the library's exceptions have no common base
            raise UnavailableError(
                f"ONNX Runtime's answer on the GPU ({error})", "ask headway doctor"
            ) from error


def _longest(graph: Path) -> int:
    """Tokens that the bundle's model takes."""
    return Bundle.read(graph.parent.parent).max_length


def _session(onnxruntime: Any, graph: Path, gpu: Device, stream: Stream) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # it plans for one shape; lengths vary here
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    told = OPTIONS | {"device_id": str(gpu.index), "user_compute_stream": str(stream.pointer)}
    try:
        providers = _providers(onnxruntime, options, told, gpu.index)
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
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
