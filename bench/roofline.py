"""What a model asks of a machine, and what the machine can give: operations and bytes a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench import bandwidth, mixes
from headway.bench.answers import Answers
from headway.bench.record import Peaks, Work
from headway.core.manifest import Bundle

PRODUCTS = ("MatMul", "Gemm")
SIZE = 2048
"""rows and columns of the matrices that are multiplied to find the peaks"""
BYTES = 1 << 30
"""that are read to find how fast memory is"""
PASSES = 5


def of_answers(bundle: Path, inputs: Sequence[Any], answers: Answers, max_length: int) -> Work | None:
    """Of inputs cut at so many tokens, and their answers."""
    writes = "decoder" in Bundle.read(bundle).graphs
    written = mixes.tokens(bundle, list(answers), sys.maxsize) if writes else ()
    return work(bundle, mixes.tokens(bundle, inputs, max_length), written)


def work(bundle: Path, lengths: Sequence[int], written: Sequence[int] = ()) -> Work | None:
    """Of inputs of so many tokens each, through the fp32 graphs. None without them, or without onnx.

    A product with a weight of (K, N) is 2 K N operations a token; attention is 4 T² H a layer for T tokens, with the
    keys and values of each. What is left out (normalisation, activations) is below a hundredth. `written`: tokens of
    each answer, of a model that writes; each of its beams is counted as long as that.
    """
    declared = Bundle.read(bundle)
    roles = {role: bundle / "fp32" / f"{role}.onnx" for role in declared.graphs}
    if not lengths or find_spec("onnx") is None or not all(path.is_file() for path in roles.values()):
        return None
    read, new = np.array(lengths, np.float64), np.array(written, np.float64)
    vocabulary = declared.architecture["vocab_size"]
    attention = 4.0 * declared.architecture["layers"] * declared.architecture["hidden_size"]
    if "decoder" not in roles:
        reads = sum(_weights(roles["model"], vocabulary))
        operations = 2 * reads * read + attention * read**2
        return Work(tokens=float(read.mean()), operations=float(operations.mean()), weights=4.0 * reads)
    body, head = _weights(roles["decoder"], vocabulary)
    crossed = "encoder" in roles
    reads = sum(_weights(roles["encoder"], vocabulary)) if crossed else body
    beams = declared.settings.get("num_beams") or declared.search.get("num_beams", 1)
    steps = new if crossed else new - 1  # a decoder alone gives the first token when it has read
    writing = 2 * (steps * body + new * head) + attention * steps * (read + new / 2)
    return Work(
        tokens=float(read.mean()),
        operations=float((2 * reads * read + attention * read**2 + beams * writing).mean()),
        weights=float(4 * (reads + steps * body + new * head).mean()),
        written=float(new.mean()),
    )


def _weights(path: Path, vocabulary: int) -> tuple[int, int]:
    """Numbers in the weights that a token is multiplied by: those before the scores of so many tokens, and of these."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:  # a head that shares its weights with the embeddings
        if node.op_type == "Transpose" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]][::-1]
    read = [
        shapes[name]
        for node in graph.node
        if node.op_type in PRODUCTS
        for name in node.input
        if len(shapes.get(name, ())) == 2
    ]
    body, head = ([k * n for k, n in read if (vocabulary in (k, n)) == scores] for scores in (False, True))
    return sum(body), sum(head)


def peaks(threads: int) -> Peaks:
    """Of so many threads of this machine, by large products in ONNX Runtime and by a pass over memory."""
    found = {}
    with suppress(ImportError):  # the memory alone
        found = {
            "fp32": _products("MatMul", np.float32, threads),
            "int8": _products("MatMulInteger", np.uint8, threads),
        }
    return Peaks(operations=found, memory=bandwidth.reading(threads, BYTES))


def _products(kind: str, dtype: Any, threads: int) -> float:
    """Operations a second: the fastest of some."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    given, gives = (
        (TensorProto.FLOAT, TensorProto.FLOAT)
        if dtype is np.float32
        else (TensorProto.UINT8, TensorProto.INT32)
    )
    inputs = [helper.make_tensor_value_info("x", given, [SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("y", gives, [SIZE, SIZE])]
    weight = np.ones((SIZE, SIZE), np.float32 if dtype is np.float32 else np.int8)
    weights = [onnx.numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"])], "product", inputs, outputs, weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x, times = np.ones((SIZE, SIZE), dtype), []
    for _ in range(PASSES):
        begin = time.perf_counter()
        session.run(None, {"x": x})
        times.append(time.perf_counter() - begin)
    return 2.0 * SIZE**3 / min(times)
