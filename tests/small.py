"""A bundle made by hand, in a blink and without PyTorch: a text's label is that of its words' mean vector."""

from pathlib import Path
from typing import Any

import numpy as np

from headway.core import files
from headway.core.manifest import Bundle, File, Graph, Tensor, Variant

WORDS = (
    "late",
    "parcel",
    "refund",
    "thanks",
    "broken",
    "please",
    "where",
    "is",
    "my",
    "the",
    "great",
    "screen",
)
LABELS = ["bug", "delivery", "refund"]
MAX_LENGTH = 16
"""tokens in a text"""


def small_bundle(folder: Path) -> Path:
    """Write a text classifier over WORDS into a folder."""
    (folder / "fp32").mkdir(parents=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "fp32" / "model.onnx").write_bytes(_graph())
    names = ("tokenizer.json", "fp32/model.onnx")
    Bundle(
        task="text-classification",
        labels=LABELS,
        max_length=MAX_LENGTH,
        pad_id=0,
        graphs={
            "model": Graph(
                inputs=[
                    Tensor(name=n, dtype="int64", shape=["batch", "length"])
                    for n in ("input_ids", "attention_mask")
                ],
                outputs=[Tensor(name="logits", dtype="float32", shape=["batch", len(LABELS)])],
            )
        },
        variants={
            "fp32": Variant(
                precision="fp32",
                graphs={"model": "fp32/model.onnx"},
                parity={"worst": 0.0, "neighbours": 0.0, "agreement": 1.0},
            )
        },
        architecture={},
        made_by={},
        source={},
        files={n: File(bytes=(folder / n).stat().st_size, sha256=files.sha256(folder / n)) for n in names},
    ).write(folder)
    return folder


def texts(count: int, seed: int = 0) -> list[str]:
    """Random texts of WORDS, some longer than the model."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, MAX_LENGTH + 4))) for _ in range(count)]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = {token: i for i, token in enumerate(("[PAD]", "[UNK]", *WORDS))}
    made = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return made


def _graph() -> bytes:
    """logits (B, C) = mean of the present tokens' vectors (V, C)."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    vectors = random.integers(-9, 10, (len(WORDS) + 2, len(LABELS))).astype(
        np.float32
    )  # padding changes no bit
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["each"]),  # (B, T, C)
        helper.make_node("Cast", ["attention_mask"], ["present"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["present", "last"], ["weight"]),  # (B, T, 1)
        helper.make_node("Mul", ["each", "weight"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["total"], keepdims=0),  # (B, C)
        helper.make_node("ReduceSum", ["weight", "second"], ["count"], keepdims=0),  # (B, 1)
        helper.make_node("Div", ["total", "count"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"])
        for n in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])]
    constants = [
        numpy_helper.from_array(vectors, "vectors"),
        numpy_helper.from_array(np.array([-1]), "last"),
        numpy_helper.from_array(np.array([1]), "second"),
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(made.SerializeToString())
