"""What each precision defines, and the few verbs that graph rewriting needs."""

from __future__ import annotations

from typing import Any, Protocol, cast

import onnx_ir as ir
from numpy.typing import NDArray

from headway.core import siblings

FAMILY = "headway.export.precision"


class Precision(Protocol):
    """What each module of this family defines."""

    ABOUT: str
    """one sentence for the model card"""

    def convert(self, model: ir.Model) -> ir.Model:
        """The variant's graph from the fp32 graph, which may be changed in place."""
        ...


def load(name: str) -> Precision:
    """The precision of that name. Raises UsageError."""
    return cast(Precision, siblings.load(FAMILY, name, "--precision"))


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
        """Let `by` take the place of a node's only output, and remove the node."""
        node.outputs[0].replace_all_uses_with(by, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)

    def drop_unused_constants(self) -> None:
        used = {value for node in self.graph for value in node.inputs}
        for name, value in list(self.graph.initializers.items()):
            if value not in used:
                del self.graph.initializers[name]
