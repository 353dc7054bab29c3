"""Models that write in ONNX Runtime on an NVIDIA GPU: encoder and decoder on one stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle, Graph
from headway.runtime.backends import onnxruntime_cuda
from headway.runtime.cuda import Device, Stream
from headway.runtime.devices import place as placed
from headway.runtime.generation.gpu.device import Bound, Place
from headway.runtime.generation.gpu.engine import GpuEngine
from headway.runtime.generation.gpu.kernels import open_kernels
from headway.runtime.generation.gpu.reading import Model

BFLOAT16 = 16
"""ONNX's number of the type, which numpy does not have"""
KINDS = {f"tensor({name})": kind for name, kind in {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "int64": "int64"}.items()}  # fmt: skip
"""ONNX Runtime's names of types"""


def open_writer(
    folder: Path, declared: Bundle, graphs: Mapping[str, Path], device: str, threads: int = 1, kept: int = 0
) -> GpuEngine:
    """Open verified graphs, by role. Raises UnavailableError or BundleError."""
    gpu = Device(placed(device).number)
    place = Place.on(gpu, open_kernels(gpu))
    opened = {
        role: OnnxRuntimeGraph(path, declared.graphs[role], gpu, place.stream)
        for role, path in graphs.items()
    }
    return GpuEngine(
        Model(place, declared.graphs, opened["decoder"], opened.get("encoder"), declared.longest)
    )


class OnnxRuntimeGraph:
    """A session whose work goes through a stream that others use, too."""

    def __init__(self, graph: Path, declared: Graph, gpu: Device, stream: Stream) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UnavailableError("onnxruntime-gpu", "pip install 'headway[gpu]'") from error
        self._session = onnxruntime_cuda._session(onnxruntime, graph, gpu, stream)
        self._index = gpu.index
        taken = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self._inputs = {value.name for value in taken}
        found = {value.name: value.type for value in (*taken, *self._session.get_outputs())}
        said = {tensor.name for tensor in (*declared.inputs, *declared.outputs)}
        if found.keys() != said:
            wanted = f"has {', '.join(sorted(found))}, not {', '.join(sorted(said))} as declared"
            raise BundleError(graph.parent.parent, f"{graph.name} {wanted}; export it again")
        if unknown := sorted(set(found.values()) - KINDS.keys()):
            name = f"{', '.join(unknown)} as input or output of {graph.parent.name}/{graph.name}"
            raise UnavailableError(name, "choose another --precision")
        self.kinds: Mapping[str, str] = {name: KINDS[kind] for name, kind in found.items()}
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def prepared(self, tensors: Mapping[str, Bound]) -> Any:
        binding = self._session.io_binding()
        for name, (pointer, shape) in tensors.items():
            kind = self.kinds[name]
            element: Any = BFLOAT16 if kind == "bfloat16" else np.dtype(kind)
            bind = binding.bind_input if name in self._inputs else binding.bind_output
            bind(name, onnxruntime_cuda.KIND, self._index, element, shape, pointer)
        return binding

    def execute(self, context: Any) -> None:
        onnxruntime_cuda.run(self._session, context, self._options)
