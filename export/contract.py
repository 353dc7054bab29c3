"""The declared contract of a graph: every input and output by name, type and shape, checked all at once."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from headway.core.errors import CheckpointError
from headway.core.manifest import Graph, Tensor
from headway.core.tasks import EncoderTask

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""what an encoder may take, each (batch, length) int64; a model takes those that its tokenizer makes"""
HALVES = ("float16", "bfloat16")


def declare(task: EncoderTask, tokenizer_inputs: Sequence[str], classes: int, width: int) -> Graph:
    """What an encoder's graph must take and give: so many classes, vectors so wide."""
    sizes = {"classes": classes, "width": width}
    return Graph(
        inputs=[
            Tensor(name=n, dtype="int64", shape=["batch", "length"]) for n in INPUTS if n in tokenizer_inputs
        ],
        outputs=[
            Tensor(name=name, dtype="float32", shape=[sizes.get(d, d) for d in shape])
            for name, shape in task.GRAPH.items()
        ],
    )


def check(model: ir.Model, declared: Graph, checkpoint: str, narrow: bool = False) -> None:
    """Raise CheckpointError with every difference between the graph and the contract.

    `narrow`: what is declared in fp32 may be in 16 bits.
    """
    problems = _differences("input", declared.inputs, model.graph.inputs, narrow)
    problems += _differences("output", declared.outputs, model.graph.outputs, narrow)
    if problems:
        raise CheckpointError(checkpoint, "its graph breaks the contract: " + "; ".join(problems))


def _differences(kind: str, declared: list[Tensor], found: object, narrow: bool) -> list[str]:
    seen = {v.name: v for v in found}  # type: ignore[attr-defined]
    problems = [f"{kind} '{n}' is not declared" for n in seen.keys() - {t.name for t in declared}]
    for tensor in declared:
        value = seen.get(tensor.name)
        if value is None:
            problems.append(f"{kind} '{tensor.name}' is missing")
            continue
        shape = [d if isinstance(d, int) else str(d) for d in value.shape or ()]
        dtype = value.dtype.numpy().name if value.dtype else "unknown"
        if narrow and tensor.dtype == "float32" and dtype in HALVES:
            dtype = tensor.dtype
        if (dtype, shape) != (tensor.dtype, tensor.shape):
            problems.append(f"{kind} '{tensor.name}' is {dtype}{shape}, not {tensor.dtype}{tensor.shape}")
    return problems
