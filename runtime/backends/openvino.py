"""OpenVINO on the processor.

Each new shape makes it build kernels, so lengths are padded to few buckets. One compiled model takes them all: one
for each bucket would hold the weights as many times.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import NAME, Bundle, Graph
from headway.cpp_ext import mask, pad
from headway.runtime.backends.base import Outputs
from headway.runtime.fork_safety import PerProcess
from headway.runtime.ragged import Ragged

DEVICES = ("cpu",)
TARGET = "cpu"
PACKAGE = "openvino"
BUCKETS = (8, 4, 16)
"""from one power of two to the next: with 8, 2,000 mixed texts in 241 batches have 84 shapes instead of 172, for 7 %
more padding (4 and a shortest of 16: 66 shapes, 13 %)"""

TELEMETRY = "openvino.tools.ovc"
"""part of openvino that reports its import to its maker and takes half of the import's time; nothing here needs it"""

SHORTEST = 8
"""tokens, of the shortest bucket and between buckets at least"""

CAPABILITY = {"bf16": "BF16", "f16": "FP16"}
"""OpenVINO's names of a type: in a graph, and among what the processor has instructions for"""


def open_graph(
    graph: Path,
    declared: Graph,
    read: Sequence[str],
    pad_id: int,
    device: str,
    threads: int,
    buckets: int = 0,
) -> OpenVino:
    try:
        openvino = _import()
    except ImportError as error:
        raise UnavailableError("openvino", "pip install 'headway[openvino]'") from error
    return OpenVino(
        openvino, graph, declared, read, pad_id, threads, buckets or BUCKETS[0], _longest(graph.parent.parent)
    )


def _longest(folder: Path) -> int | None:
    """Tokens that a bundle's model takes; none while it is still being made."""
    return Bundle.read(folder).max_length if (folder / NAME).is_file() else None


def _import() -> Any:
    """The package without its telemetry, which stays importable for whoever wants it."""
    if (known := sys.modules.get("openvino")) is not None:
        return known
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails, which openvino expects
    try:
        import openvino
    finally:
        del sys.modules[TELEMETRY]
    return openvino


class OpenVino:
    """One batch runs on all threads; of several batches, each runs in a stream of one thread, which is faster."""

    pads = True

    def __init__(
        self,
        openvino: Any,
        graph: Path,
        declared: Graph,
        read: Sequence[str],
        pad_id: int,
        threads: int,
        buckets: int,
        longest: int | None,
    ) -> None:
        """`longest`: tokens that the model has positions for; none: it is not known, and nothing is padded to more.

        Never more go in: on one thread OpenVINO then raises nothing, and gives what it gave before.
        """
        self._threads, self._pad_id = threads, pad_id
        self._buckets, self._longest = buckets, longest
        self._inputs = [tensor.name for tensor in declared.inputs]
        self._outputs = list(read)
        self._of_tokens = {tensor.name for tensor in declared.outputs if "length" in tensor.shape}
        model = PerProcess(partial(_Model.read, openvino, graph))
        self._all_threads = PerProcess(partial(_compiled, model, threads, streams=1))
        self._streams = PerProcess(partial(_compiled, model, threads, streams=threads))
        self._workers = PerProcess(partial(ThreadPoolExecutor, threads, thread_name_prefix="headway-run"))
        self._all_threads()

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        if len(batches) == 1 or self._threads == 1:
            return [self._run_one(self._all_threads(), batch) for batch in batches]
        return list(self._workers().map(lambda batch: self._run_one(self._streams(), batch), batches))

    def _run_one(self, requests: Requests, batch: Ragged) -> Outputs:
        longest = int(batch.lengths.max())
        most = longest if self._longest is None else self._longest
        if longest > most:
            raise RuntimeError(f"{longest} tokens are more than the model's {most}")
        length = min(bucket(longest, self._buckets), most)
        given = {
            "input_ids": lambda: pad(batch.ids, batch.offsets, length, self._pad_id),
            "attention_mask": lambda: mask(batch.offsets, length),
            "token_type_ids": lambda: pad(batch.types, batch.offsets, length, 0),
        }
        # np.int64 is one of two types that are the same 64 bits, and the only one of them that OpenVINO knows
        values = requests.run({name: given[name]().view(np.int64) for name in self._inputs}, self._outputs)
        return {n: v[:, :longest] if n in self._of_tokens else v for n, v in values.items()}


class _Model(NamedTuple):
    """A graph that was read, in a core of its own, with the type to compute in."""

    core: Any
    graph: Any
    hint: str

    @classmethod
    def read(cls, openvino: Any, path: Path) -> _Model:
        core = openvino.Core()
        graph = _read(core, path)
        return cls(core, graph, _hint(graph, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))


def _compiled(model: Callable[[], _Model], threads: int, streams: int) -> Requests:
    core, graph, hint = model()
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # other processes have their threads too
    }
    return Requests(core.compile_model(graph, "CPU", options))


class Requests:
    """A compiled model's inference requests, of which each serves one call at a time."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []  # as many in the end as there were calls at once

    def run(self, given: Mapping[str, NDArray[np.int64]], read: Sequence[str]) -> Outputs:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            found = request.infer(given, share_inputs=True, share_outputs=True)
            return {name: np.array(found[name], np.float32) for name in read}  # its memory is the next call's
        finally:
            self._idle.append(request)


def bucket(length: int, buckets: int) -> int:
    """The least bucket of so many tokens; where 8 lie between powers of two: 8, 16, … 120, 128, 144, … 256, 288, …"""
    octave = 1 << max(length - 1, 1).bit_length() - 1
    step = max(SHORTEST, octave // buckets)
    return -(-length // step) * step


def _hint(model: Any, capabilities: Sequence[str]) -> str:
    """The type to compute in: 16 bits where the graph says so and the processor can, and never in an fp32 graph."""
    kinds = {op.get_output_element_type(0).get_type_name() for op in model.get_ops() if op.get_output_size()}
    return next((k for k, name in CAPABILITY.items() if k in kinds and name in capabilities), "f32")


def _read(core: Any, graph: Path) -> Any:
    try:
        return core.read_model(graph)
    except RuntimeError as error:
        unknown = re.search(r"Conversion is failed for: (\S+)|(?:no conversion rule) for: (\S+)", str(error))
        if "outside the base directory" in str(error):
            raise UnavailableError(
                f"weights behind a link, as those of {graph.parent.name}/{graph.name}, in openvino,",
                "copy the bundle with its files (cp -rL), or use --backend onnxruntime",
            ) from error
        if unknown is None:
            raise BundleError(graph.parent.parent, f"{graph.name} cannot be opened: {error}") from error
        op = (unknown[1] or unknown[2]).partition("-")[0]
        raise UnavailableError(
            f"{op} as {graph.parent.name}/{graph.name} has it, in openvino,",
            "use --backend onnxruntime, or --precision fp32 or int8-static",
        ) from error
