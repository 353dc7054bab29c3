"""A small fp32 graph to convert, of two transformer layers, with ids to run it on and two ways to run it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

VOCABULARY, WIDTH, HEADS, LABELS = 60, 32, 4, 5
LOGITS = "logits"

Feed = dict[str, NDArray[np.int64]]


@functools.cache
def _proto(pre_norm: bool, outlier: float) -> onnx.ModelProto:
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.mix = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.grow, self.shrink = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
            self.before, self.after = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)

        def attend(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
            q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return self.mix(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

        def feed(self, x: torch.Tensor) -> torch.Tensor:
            return self.shrink(F.gelu(self.grow(x)))  # type: ignore[no-any-return]

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if pre_norm:
                x = x + self.attend(self.before(x), mask)
                return x + self.feed(self.after(x))
            x = self.before(x + self.attend(x, mask))
            return self.after(x + self.feed(x))  # type: ignore[no-any-return]

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, WIDTH)
            self.norm = nn.LayerNorm(WIDTH, 1e-12)
            self.first, self.second = Layer(), Layer()
            self.head = nn.Linear(WIDTH, LABELS)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            mask = attention_mask[:, None, None, :].to(torch.bool).expand(-1, 1, input_ids.shape[1], -1)
            x = self.second(self.first(self.norm(self.words(input_ids)), mask), mask)
            logits = self.head(x)
            return {LOGITS: logits, "probabilities": logits.softmax(-1)}

    torch.manual_seed(0)
    module = Encoder().eval()
    with torch.no_grad():
        for norm in (m for m in module.modules() if isinstance(m, nn.LayerNorm)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.1)
            norm.weight[3] *= outlier  # the channel is that much larger, and the weights that meet it smaller
        for linear in (m for m in module.modules() if isinstance(m, nn.Linear)):
            linear.weight.normal_(0, 0.3)
            if linear.in_features == WIDTH:
                linear.weight[:, 3] /= outlier
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    sample = tuple(torch.ones(2, 7, dtype=torch.int64) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            sample,
            dynamo=True,
            opset_version=24,
            input_names=["input_ids", "attention_mask"],
            output_names=[LOGITS, "probabilities"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            verbose=False,
        )
    assert program is not None
    return ir.to_proto(program.model)


def fp32(pre_norm: bool = False, outlier: float = 1.0) -> ir.Model:
    """A new copy of the graph, with layers that normalize before or after, and a channel that is much larger."""
    return ir.from_proto(_proto(pre_norm, outlier))


def feeds(count: int, seed: int = 0, longest: int = 24) -> list[Feed]:
    """Random ids, each a batch of one text without padding."""
    generator = np.random.default_rng(seed)
    return [text(generator.integers(1, VOCABULARY, generator.integers(1, longest + 1))) for _ in range(count)]


def text(ids: NDArray[np.int64]) -> Feed:
    return {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), np.int64)}


def padded(texts: Sequence[Feed]) -> Feed:
    """The texts in one batch, padded on the right."""
    longest = max(t["input_ids"].shape[1] for t in texts)
    return {
        name: np.concatenate([np.pad(t[name], ((0, 0), (0, longest - t[name].shape[1]))) for t in texts])
        for name in ("input_ids", "attention_mask")
    }


def run(model: ir.Model, texts: Sequence[Mapping[str, Any]], optimized: bool = True) -> list[NDArray[Any]]:
    """Logits of each batch by ONNX Runtime. Without its optimizations it does as the graph says, op by op."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(content(model), options, providers=["CPUExecutionProvider"])
    return [session.run([LOGITS], dict(feed))[0] for feed in texts]


def evaluate(model: ir.Model, texts: Sequence[Mapping[str, Any]]) -> list[NDArray[Any]]:
    """Logits of each batch by the standard's own evaluator, which computes in the types that the graph says."""
    evaluator = ReferenceEvaluator(ir.to_proto(model))
    return [evaluator.run([LOGITS], dict(feed))[0] for feed in texts]  # type: ignore[index]


def optimized_ops(model: ir.Model, folder: Any) -> list[str]:
    """The ops that ONNX Runtime makes of a graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(content(model), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def content(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
