"""What each precision defines, and the few verbs that graph rewriting needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.core import siblings

FAMILY = "headway.export.precision"


Feeds = Sequence[Mapping[str, NDArray[Any]]]
"""real inputs of the graph by name, each a batch without padding"""


class Remembered(tuple[Mapping[str, NDArray[Any]], ...]):
    """Feeds of one graph that remember what it made of them, so that it reads them once, however often converted."""

    @cached_property
    def seen(self) -> dict[tuple[str, str], Any]:
        """By what was asked, and the name of the value."""
        return {}


class Precision(Protocol):
    """What each module of this family defines."""

    ABOUT: str
    """one sentence for the model card"""

    def convert(self, model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
        """The variant's graph from the fp32 graph, which may be changed in place.

        Args:
            model: the fp32 graph.
            kept: names of the layers that stay as they are.
            feeds: what the user's texts give the graph, for what must be calibrated.
        """
        ...


def load(name: str) -> Precision:
    """The precision of that name. Raises UsageError."""
    return cast(Precision, siblings.load(FAMILY, name, "--precision"))


@dataclass(frozen=True)
class Layer:
    """A linear layer: a product with a constant matrix."""

    name: str
    """of its module in PyTorch"""
    node: ir.Node
    """MatMul"""
    weight: NDArray[np.float32]  # (inputs, outputs)


@dataclass(frozen=True)
class Table:
    """An embedding table whose rows are looked up."""

    name: str
    node: ir.Node
    """Gather"""
    rows: NDArray[np.float32]  # (V, D)


SMALLEST_TABLE = 1 << 20
"""elements of an embedding table that is worth converting"""


def tables(model: ir.Model) -> list[Table]:
    """The large embedding tables of an fp32 graph."""
    found = []
    for node in model.graph:
        if node.op_type == "Gather" and (rows := matrix(node.inputs[0], SMALLEST_TABLE)) is not None:
            found.append(Table(str(node.inputs[0].name).removesuffix(".weight"), node, rows))  # type: ignore[union-attr]
    return found


def layers(model: ir.Model) -> list[Layer]:
    """The linear layers of an fp32 graph, in the order in which they are computed."""
    found = []
    for node in model.graph:
        if node.op_type == "MatMul" and (weight := _weight(node.inputs[1])) is not None:
            found.append(Layer(str(node.inputs[1].name).removesuffix(".weight"), node, weight))  # type: ignore[union-attr]
    return found


def is_weight(value: ir.Value) -> bool:
    """True for a constant, and for one that the graph transposes first (a head that shares the embedding's table)."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
        value = producer.inputs[0]
    return value.const_value is not None


def _weight(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The matrix (inputs, outputs) of a product."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Transpose":
        table = matrix(producer.inputs[0])
        return None if table is None else np.ascontiguousarray(table.T)
    return matrix(value)


def matrix(value: ir.Value | None, least_size: int = 1) -> NDArray[np.float32] | None:
    """The content of a two-dimensional float32 constant, None for anything else."""
    if value is None or value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT:
        return None
    array = value.const_value.numpy()
    return array if array.ndim == 2 and array.size >= least_size else None


class Writer:
    """Adds constants and nodes to a graph."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """An initializer of that name, made once."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self.graph.register_initializer(value)
        return value

    def node(
        self, before: ir.Node, op: str, inputs: list[ir.Value], name: str, **attributes: Any
    ) -> ir.Value:
        """A node with one output, both called `name`, put in front of another node."""
        made = ir.node(op, inputs, attributes=attributes, name=name)
        made.outputs[0].name = name
        self.graph.insert_before(before, made)
        return made.outputs[0]

    def replace(self, node: ir.Node, by: ir.Value) -> None:
        """Let `by` take the place and the name of a node's only output, and remove what nothing uses any more."""
        old = node.outputs[0]
        name = old.name
        if old.is_graph_output():
            by.shape, by.type = old.shape, old.type
        old.replace_all_uses_with(by, replace_graph_outputs=True)
        before = [value.producer() for value in node.inputs if value is not None]
        self.graph.remove(node, safe=True)
        by.name = name
        for unused in before:
            if unused is not None and unused.op_type == "Transpose" and not unused.outputs[0].uses():
                self.graph.remove(unused, safe=True)

    def drop_unused_constants(self) -> None:
        used = {value for node in self.graph for value in node.inputs}
        for name, value in list(self.graph.initializers.items()):
            if value not in used:
                del self.graph.initializers[name]
