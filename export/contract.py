"""The declared contract of a graph: every input and output by name, type and shape, checked all at once."""

from __future__ import annotations

import onnx_ir as ir

from headway.core.errors import CheckpointError
from headway.core.manifest import Tensor
from headway.core.tasks.text_classification import OUTPUTS

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""what an encoder may take, each (batch, length) int64; a model takes those that its tokenizer makes"""


def declare(tokenizer_inputs: list[str], labels: int) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and outputs that the graph of a checkpoint must have."""
    inputs = [
        Tensor(name=n, dtype="int64", shape=["batch", "length"]) for n in INPUTS if n in tokenizer_inputs
    ]
    outputs = [Tensor(name=n, dtype="float32", shape=["batch", labels]) for n in OUTPUTS]
    return inputs, outputs


def check(model: ir.Model, inputs: list[Tensor], outputs: list[Tensor], checkpoint: str) -> None:
    """Raise CheckpointError with every difference between the graph and the contract."""
    problems = _differences("input", inputs, model.graph.inputs)
    problems += _differences("output", outputs, model.graph.outputs)
    if problems:
        raise CheckpointError(checkpoint, "its graph breaks the contract: " + "; ".join(problems))


def _differences(kind: str, declared: list[Tensor], found: object) -> list[str]:
    seen = {v.name: v for v in found}  # type: ignore[attr-defined]
    problems = [f"{kind} '{n}' is not declared" for n in seen.keys() - {t.name for t in declared}]
    for tensor in declared:
        value = seen.get(tensor.name)
        if value is None:
            problems.append(f"{kind} '{tensor.name}' is missing")
            continue
        shape = [d if isinstance(d, int) else str(d) for d in value.shape or ()]
        dtype = value.dtype.numpy().name if value.dtype else "unknown"
        if (dtype, shape) != (tensor.dtype, tensor.shape):
            problems.append(f"{kind} '{tensor.name}' is {dtype}{shape}, not {tensor.dtype}{tensor.shape}")
    return problems
