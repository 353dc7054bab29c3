"""Checkpoint to a standard ONNX graph in fp32, pooling, head and activation included."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, cast

import onnx_ir as ir
import torch
from optimum.utils import NormalizedConfigManager

from headway.core.errors import CheckpointError
from headway.core.manifest import Graph
from headway.export.precision import base as base_precision
from headway.train.checkpoint import Opened, is_causal
from headway.train.tasks import base

OPSET = 24
"""Attention, Gelu and LayerNormalization are single standard ops from 23 on"""


def architecture(opened: Opened) -> dict[str, Any]:
    """Sizes of the model (of two models in one, of the decoder) by their common names. Raises CheckpointError for a model type unknown to optimum."""
    config = opened.model.config
    sized = config.decoder if config.model_type == "encoder-decoder" else config
    try:
        normal = NormalizedConfigManager.get_normalized_config_class(sized.model_type)(sized)
        return {
            "model_type": config.model_type,
            "hidden_size": normal.hidden_size,
            "layers": normal.num_layers,
            "heads": normal.num_attention_heads,
            "vocab_size": normal.vocab_size,
        }
    except (KeyError, AttributeError) as error:
        raise CheckpointError(
            opened.folder, f"the model type '{config.model_type}' is not supported"
        ) from error


def build(opened: Opened, declared: Graph) -> ir.Model:
    """Trace an encoder with dynamic batch and length. The same checkpoint gives the same bytes."""
    names = [tensor.name for tensor in declared.inputs]
    outputs = [tensor.name for tensor in declared.outputs]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    sample = tuple(torch.ones(2, 7, dtype=torch.int64) for _ in names)
    dynamic = (tuple({0: batch, 1: length} for _ in names),)
    with _expanded_masks(opened.model):
        return trace(opened, _Graph(opened, names), sample, dynamic, names, outputs)


def trace(
    opened: Opened,
    module: torch.nn.Module,
    sample: tuple[torch.Tensor, ...],
    dynamic: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> ir.Model:
    """A module as a graph whose weights bear the names of their modules, and that tells nothing of the machine."""
    quiet = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet), no_logging():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                sample,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=dynamic,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            kind = opened.model.config.model_type
            raise CheckpointError(opened.folder, f"torch cannot trace the model type '{kind}'") from error
    if program is None:
        raise CheckpointError(opened.folder, "torch.onnx.export gave no graph")
    return anonymous(_named(_with_products(program.model)))


class _Graph(torch.nn.Module):
    """Model plus activation."""

    def __init__(self, opened: Opened, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.model = opened.model
        self.spec = opened.spec
        self.specifics = cast(base.EncoderTrainTask, base.load(opened.manifest.task))
        self.register_buffer("temperature", torch.tensor(getattr(self.spec.settings, "temperature", 1.0)))

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        said = self.model(**dict(zip(self.names, tensors, strict=True)))
        return self.specifics.outputs(said, self.spec, cast(torch.Tensor, self.temperature))


@contextmanager
def _expanded_masks(model: Any) -> Iterator[None]:
    """Let the mask be (B, 1, T, T) from the start, where a model's layers all take it as it is: not where they are causal.

    transformers' own way to it is a dozen ops; ONNX Runtime's Attention does not broadcast (B, 1, 1, T).
    """
    body = getattr(model, "body", None) or model.base_model
    windows = getattr(body.config, "sliding_window", None) or getattr(body.config, "local_attention", None)
    sdpa = getattr(body, "_supports_sdpa", False) and body.config._attn_implementation == "sdpa"
    if not sdpa or windows or is_causal(body):
        yield
        return

    def expand(_: Any, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = named["attention_mask"]  # (B, T)
        expanded = mask[:, None, None, :].to(torch.bool).expand(-1, 1, mask.shape[1], -1)
        return arguments, named | {"attention_mask": expanded}

    hook = body.register_forward_pre_hook(expand, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _with_products(model: ir.Model) -> ir.Model:
    """Let linear layers that some models compute on flattened tokens (GPT-2's) be products like all others."""
    for node in list(model.graph):
        if node.op_type != "Gemm" or node.inputs[0] is None or _is_transposed_or_scaled(node):
            continue
        before = node.inputs[0].producer()
        if before is None or before.op_type != "Reshape":
            continue
        name = str(node.outputs[0].name)
        product = ir.node("MatMul", node.inputs[:2], name=f"{node.name}.product")
        product.outputs[0].name = f"{name}.product"
        product.metadata_props.update(node.metadata_props)
        made = [product]
        if len(node.inputs) > 2:
            made.append(ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}.sum"))
            made[-1].outputs[0].name = f"{name}.sum"
        for value in (step.outputs[0] for step in made):
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), node.outputs[0].shape
        model.graph.insert_before(node, made)
        node.outputs[0].replace_all_uses_with(made[-1].outputs[0])
        model.graph.remove(node, safe=True)
    return model


def _is_transposed_or_scaled(node: ir.Node) -> bool:
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return any(attribute.value != usual[name] for name, attribute in node.attributes.items())


def _named(model: ir.Model) -> ir.Model:
    """Give each linear layer's weight the name of its module, which the exporter only notes of parameters."""
    taken = set(model.graph.initializers)
    for node in model.graph:
        weight = node.inputs[1] if node.op_type in ("MatMul", "Gemm") else None
        if weight is None or not base_precision.is_weight(weight) or not str(weight.name).startswith("val_"):
            continue
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]").strip("[]").replace("'", "")
        module = next((s for s in reversed(scopes.split(", ")[:-1]) if s), "")
        name = f"{module}.weight" if module else str(weight.name)
        if name not in taken:
            taken.add(name)
            weight.name = name
    return model


def anonymous(model: ir.Model) -> ir.Model:
    """Drop what tells of the machine or the run: doc strings, stack traces, module names."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    return model


@contextmanager
def no_logging() -> Iterator[None]:
    """No log lines from torch's exporter while it works."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
