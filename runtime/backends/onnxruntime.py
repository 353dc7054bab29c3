"""ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headway.core import files
from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Graph
from headway.cpp_ext import mask, pad
from headway.runtime.backends.base import Outputs
from headway.runtime.fork_safety import PerProcess
from headway.runtime.ragged import Ragged

DEVICES = ("cpu",)
TARGET = "cpu"
PACKAGE = "onnxruntime"
BUCKETS = ()
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""what it makes of a ragged batch"""

SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]
"""ONNX Runtime 1.31's fused kernels for these are slower on a processor than the ops that they replace
(int8 MiniLM-L6, 8 x 128 tokens, one thread: 26.7 against 8.7 ms; the whole model 81.7 against 62.8 ms)"""


def open_graph(
    graph: Path,
    declared: Graph,
    read: Sequence[str],
    pad_id: int,
    device: str,
    threads: int,
    buckets: int = 0,
) -> OnnxRuntime:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError("onnxruntime", "pip install 'headway[cpu]'") from error
    if "CPUExecutionProvider" not in onnxruntime.get_available_providers():
        raise UnavailableError("onnxruntime's CPU provider", "pip install --force-reinstall onnxruntime")
    return OnnxRuntime(onnxruntime, graph, declared, read, pad_id, threads)


class OnnxRuntime:
    """One batch runs on all threads; of several batches, each runs on a thread of its own, which is faster."""

    pads = True

    def __init__(
        self, onnxruntime: Any, graph: Path, declared: Graph, read: Sequence[str], pad_id: int, threads: int
    ) -> None:
        self._threads = threads
        self._inputs = [tensor.name for tensor in declared.inputs]
        self._outputs, self._pad_id = list(read), pad_id
        # a session of one thread has no others, and takes no lock while it computes
        self._one_thread = PerProcess(partial(_session, onnxruntime, graph, 1), shared=True)
        self._all_threads = (
            PerProcess(partial(_session, onnxruntime, graph, threads)) if threads > 1 else self._one_thread
        )
        self._workers = PerProcess(partial(ThreadPoolExecutor, threads, thread_name_prefix="headway-run"))
        taken = {tensor.name for tensor in self._all_threads().get_inputs()}
        if taken != set(self._inputs) or not taken <= set(INPUTS):
            wanted = f"takes {', '.join(sorted(taken))}, not {', '.join(sorted(self._inputs))} as declared"
            raise BundleError(graph.parent.parent, f"{graph.name} {wanted}")

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        if len(batches) == 1 or self._threads == 1:
            return [self._run_one(self._all_threads(), batch) for batch in batches]
        return list(self._workers().map(lambda batch: self._run_one(self._one_thread(), batch), batches))

    def _run_one(self, session: Any, batch: Ragged) -> Outputs:
        length = int(batch.lengths.max())
        padded = {
            "input_ids": lambda: pad(batch.ids, batch.offsets, length, self._pad_id),
            "attention_mask": lambda: mask(batch.offsets, length),
            "token_type_ids": lambda: pad(batch.types, batch.offsets, length, 0),
        }
        values = session.run(self._outputs, {name: padded[name]() for name in self._inputs})
        return dict(zip(self._outputs, (np.asarray(v, np.float32) for v in values), strict=True))


def _session(onnxruntime: Any, graph: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it plans for one shape; lengths vary here
    options.enable_cpu_mem_arena = False  # it doubles as new shapes come, and is no faster than malloc
    options.log_severity_level = 3
    try:
        with files.in_utf8(graph) as name:
            return onnxruntime.InferenceSession(
                name,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=SLOW_FUSIONS,
            )
    except Exception as error:  # the library's exceptions have no common base
        if "NOT_IMPLEMENTED" in str(error):
            name = f"{graph.parent.name}/{graph.name} on onnxruntime's CPU provider"
            raise UnavailableError(name, "choose another --precision or --backend") from error
        raise BundleError(graph.parent.parent, f"{graph.name} cannot be opened: {error}") from error
