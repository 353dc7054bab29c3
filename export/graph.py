"""Checkpoint to a standard ONNX graph in fp32, pooling, head and activation included."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import onnx_ir as ir
import torch
from optimum.utils import NormalizedConfigManager

from headway.core.errors import CheckpointError
from headway.core.manifest import Tensor
from headway.train.checkpoint import Opened
from headway.train.tasks import text_classification

OPSET = 24
"""Attention, Gelu and LayerNormalization are single standard ops from 23 on"""


def architecture(opened: Opened) -> dict[str, Any]:
    """Sizes of the model by their common names. Raises CheckpointError for a model type unknown to optimum."""
    config = opened.model.config
    try:
        normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
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


def build(opened: Opened, inputs: list[Tensor], outputs: list[Tensor]) -> ir.Model:
    """Trace the model with dynamic batch and length. The same checkpoint gives the same bytes."""
    names = [tensor.name for tensor in inputs]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    sample = tuple(torch.ones(2, 7, dtype=torch.int64) for _ in names)
    quiet = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet), _no_logging():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Graph(opened, names),
            sample,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[tensor.name for tensor in outputs],
            dynamic_shapes=(tuple({0: batch, 1: length} for _ in names),),
            verbose=False,
        )
    if program is None:
        raise CheckpointError(opened.folder, "torch.onnx.export gave no graph")
    return _anonymous(program.model)


class _Graph(torch.nn.Module):
    """Model plus activation. The mask is expanded once, outside the layers."""

    def __init__(self, opened: Opened, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.model = opened.model
        self.spec = opened.spec

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        inputs = dict(zip(self.names, tensors, strict=True))
        mask = inputs.get("attention_mask")
        if mask is not None and _takes_expanded_mask(self.model):
            length = mask.shape[1]
            # (B, 1, T, T); ONNX Runtime's Attention does not broadcast the second last dimension
            inputs["attention_mask"] = mask[:, None, None, :].to(torch.bool).expand(-1, 1, length, -1)
        return text_classification.outputs(self.model(**inputs).logits, self.spec)


def _takes_expanded_mask(model: Any) -> bool:
    """True for models that use transformers' common masks, which leave a four-dimensional one as it is."""
    return bool(getattr(model, "_supports_sdpa", False)) and model.config._attn_implementation == "sdpa"


def _anonymous(model: ir.Model) -> ir.Model:
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


class _no_logging:  # noqa: N801
    """No log lines from torch's exporter while it works."""

    def __enter__(self) -> None:
        self.before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.disable(self.before)
