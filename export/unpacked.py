"""A graph without padding on a processor, which has no `PackedMultiHeadAttention`: for proof, not for speed.

The op becomes standard ones: tokens are put into their places in a padded batch, attend there, and are taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from headway.core.manifest import Graph
from headway.export.precision.base import Writer
from headway.export.ragged import OP
from headway.runtime.backends.base import Outputs
from headway.runtime.layouts import Layout, PaddingFree, sizes
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import Place


def unpack(model: ir.Model) -> ir.Model:
    """The same graph in standard ops; it may be changed in place."""
    for node in [node for node in model.graph if node.op_type == OP]:
        writer = Writer(model)
        writer.replace(node, _Attention(writer, node).write())
    return model


class _Attention:
    """Writes one op's part of the graph."""

    def __init__(self, writer: Writer, node: ir.Node) -> None:
        self.writer, self.node = writer, node
        self.qkv = [value for value in node.inputs[:3] if value is not None]
        places, bounds = node.inputs[4:6]
        assert places is not None
        assert bounds is not None
        self.places, self.bounds = places, bounds
        self.heads = node.attributes.get_int("num_heads")

    def write(self) -> ir.Value:
        size = self._made("Shape", [self.places], "size")  # B, S
        flat = self._made("Reshape", [self.places, self._number(-1)], "flat")
        count = self._made("Shape", [self.qkv[0]], "count", start=0, end=1)
        own = self._made(
            "Cast", [self._made("Slice", [flat, self._number(0), count], "own")], "at", to=ir.DataType.INT64
        )
        kind, width = self.qkv[0].type, self._made("Shape", [self.qkv[0]], "width", start=1, end=2)
        padded = [self._padded(value, own, size, width, f"{i}") for i, value in enumerate(self.qkv)]
        heads = {
            "q_num_heads": self.heads,
            "kv_num_heads": self.heads,
            "scale": self.node.attributes.get_float("scale"),
        }
        mixed = self._made("Attention", [*padded, self._mask(size)], "mixed", **heads)  # (B, S, D)
        mixed.type = kind
        rows = self._made("Reshape", [mixed, self._joined([self._number(-1), width], "rows")], "tokens")
        rows.type = kind
        taken = self._made("Gather", [rows, own], "unpacked")
        taken.type, taken.shape = kind, self.node.outputs[0].shape
        return taken

    def _padded(
        self, tokens: ir.Value, own: ir.Value, size: ir.Value, width: ir.Value, name: str
    ) -> ir.Value:
        """(T, D) to (B, S, D), with zeros in the padding."""
        count = self._made("ReduceProd", [size], f"{name}.count")
        empty = self._made(
            "Expand", [self._zero(tokens), self._joined([count, width], f"{name}.all")], f"{name}.empty"
        )
        empty.type = tokens.type
        at = self._made("Unsqueeze", [own, self._number(1)], f"{name}.at")
        put = self._made("ScatterND", [empty, at, tokens], f"{name}.put")
        put.type = tokens.type
        padded = self._made("Reshape", [put, self._joined([size, width], f"{name}.shape")], f"{name}.padded")
        padded.type = tokens.type
        return padded

    def _mask(self, size: ir.Value) -> ir.Value:
        """Which tokens are there, (B, 1, S, S)."""
        ends, begins = (
            self._made("Slice", [self.bounds, *map(self._number, part)], f"cut{part[0]}") for part in _ENDS
        )
        lengths = self._made(
            "Cast", [self._made("Sub", [ends, begins], "lengths32")], "lengths", to=ir.DataType.INT64
        )
        long = self._made("Slice", [size, self._number(1), self._number(2)], "long")
        zero, one = (self.writer.constant(f"unpacked.scalar{n}", np.array(n)) for n in (0, 1))
        each = self._made("Range", [zero, self._made("Squeeze", [long], "last"), one], "each")
        there = self._made(
            "Less", [each, self._made("Unsqueeze", [lengths, self._number(1)], "of")], "there"
        )  # (B, S)
        axes = self.writer.constant("unpacked.axes", np.array([1, 2]))
        keys = self._made("Unsqueeze", [there, axes], "keys")
        one_row = [self._number(1), self._number(1), long, self._number(1)]
        return self._made("Expand", [keys, self._joined(one_row, "square")], "mask")

    def _zero(self, like: ir.Value) -> ir.Value:
        assert like.dtype is not None
        return self.writer.constant(f"unpacked.zero.{like.dtype.name}", np.zeros(1, like.dtype.numpy()))

    def _number(self, number: int) -> ir.Value:
        return self.writer.constant(f"unpacked.{number}", np.array([number], np.int64))

    def _joined(self, parts: list[ir.Value], name: str) -> ir.Value:
        return self._made("Concat", parts, name, axis=0)

    def _made(self, op: str, inputs: list[ir.Value], name: str, **attributes: float | None) -> ir.Value:
        return self.writer.node(self.node, op, inputs, f"{self.node.outputs[0].name}.{name}", **attributes)


_ENDS = ((1, 2**31), (0, -1))
"""of each text its end, and its beginning, among the bounds"""


class OnProcessor:
    """A graph without padding in standard ops, with no more tokens than the batch has."""

    pads = False

    def __init__(self, graph: Path, declared: Graph, read: Sequence[str], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._declared = declared
        self._read = [tensor for tensor in declared.outputs if tensor.name in read]

    def run(self, batches: Sequence[Ragged]) -> list[Outputs]:
        return [self._run(batch) for batch in batches]

    def _run(self, batch: Ragged) -> Outputs:
        longest = int(batch.lengths.max())
        place = Place(0, len(batch), longest, len(batch.ids))
        layout: Layout = PaddingFree(longest)
        given = {t.name: np.empty(sizes(t, place), t.dtype) for t in self._declared.inputs}
        layout.fill(given, batch, place)
        found = self._session.run([tensor.name for tensor in self._read], given)
        pairs = zip(self._read, found, strict=True)
        return {t.name: layout.answer(array, t, batch, longest) for t, array in pairs}
