"""What a model asks of a machine, and what the machine can give: operations and bytes a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from headway.bench import bandwidth
from headway.bench.record import Peaks, Work
from headway.core.manifest import Bundle

PRODUCTS = ("MatMul", "Gemm")
SIZE = 2048
"""rows and columns of the matrices that are multiplied to find the peaks"""
BYTES = 1 << 30
"""that are read to find how fast memory is"""
PASSES = 5


def work(bundle: Path, lengths: Sequence[int]) -> Work | None:
    """Of inputs of so many tokens each, through the fp32 graph of an encoder. None without one, or without onnx.

    A product with a weight of (K, N) is 2 K N operations a token; attention is 4 T² H a layer for T tokens, with the
    keys and values of each. What is left out (normalisation, activations) is below a hundredth.
    """
    declared = Bundle.read(bundle)
    path = bundle / "fp32" / "model.onnx"
    if not lengths or not path.is_file():
        return None
    try:
        import onnx
    except ImportError:
        return None
    graph = onnx.load(path, load_external_data=False).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    read = [
        shapes[name]
        for node in graph.node
        if node.op_type in PRODUCTS
        for name in node.input
        if name in shapes
    ]
    per_token = sum(2 * shape[0] * shape[1] for shape in read if len(shape) == 2)
    hidden, layers = declared.architecture["hidden_size"], declared.architecture["layers"]
    tokens = np.array(lengths, np.float64)
    return Work(
        tokens=float(tokens.mean()),
        operations=float((per_token * tokens + 4 * layers * hidden * tokens**2).mean()),
        weights=2.0 * per_token,  # four bytes for two operations
    )


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
