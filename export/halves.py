"""What a graph in 16 bits takes and gives, in 16 bits itself, as a GPU has it; and back, for a processor."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from headway.export.precision.base import Writer

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def narrow(model: ir.Model, given: Mapping[str, ir.DataType] | None = None) -> dict[str, ir.DataType]:
    """Let inputs and outputs that a graph in 16 bits turns from and to fp32 be in 16 bits; the types of its outputs.

    It is changed in place. `given`: types of inputs that another graph gives.
    """
    given, graph, writer = given or {}, model.graph, Writer(model)
    for value in graph.inputs:
        users = [(node, i) for node, i in value.uses() if node.op_type != "Shape"]
        casts = [node for node, _ in users if node.op_type == "Cast"]
        kinds = {node.attributes["to"].as_int() for node in casts} if len(casts) == len(users) else set[int]()
        kind = given.get(str(value.name), ir.DataType(kinds.pop()) if len(kinds) == 1 else value.dtype)
        if value.dtype != ir.DataType.FLOAT or kind not in HALVES:
            continue
        value.type = ir.TensorType(kind)
        for node in casts:
            if node.attributes["to"].as_int() == kind:
                node.outputs[0].replace_all_uses_with(value)
                graph.remove(node, safe=True)
        others = [(node, i) for node, i in users if node.op_type != "Cast"]
        if others:
            wide = writer.node(graph[0], "Cast", [value], f"{value.name}.wide", to=ir.DataType.FLOAT)
            wide.type = ir.TensorType(ir.DataType.FLOAT)
            for node, i in others:
                node.replace_input_with(i, wide)
    for i, value in enumerate(graph.outputs):
        cast = value.producer()
        if (
            cast is None
            or cast.op_type != "Cast"
            or cast.inputs[0] is None
            or cast.inputs[0].dtype not in HALVES
        ):
            continue
        held, name = cast.inputs[0], str(value.name)
        if (
            value.dtype != ir.DataType.FLOAT
            or held.producer() is None
            or held.is_graph_output()
            or value.uses()
        ):
            continue
        graph.outputs[i], held.shape = held, value.shape
        graph.remove(cast, safe=True)
        held.name = name
    return {str(value.name): value.dtype for value in graph.outputs if value.dtype is not None}


def widen(model: ir.Model) -> ir.Model:
    """Let inputs and outputs in 16 bits be in fp32 again, for a processor; it is changed in place."""
    graph, writer = model.graph, Writer(model)
    for value in graph.inputs:
        if value.dtype not in HALVES:
            continue
        users, kind = list(value.uses()), value.dtype
        value.type = ir.TensorType(ir.DataType.FLOAT)
        if users:
            held = writer.node(graph[0], "Cast", [value], f"{value.name}.held", to=kind)
            held.type, held.shape = ir.TensorType(kind), value.shape
            for node, i in users:
                node.replace_input_with(i, held)
    for i, value in enumerate(graph.outputs):
        if value.dtype not in HALVES:
            continue
        name = str(value.name)
        cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{name}.given")
        graph.append(cast)
        wide = cast.outputs[0]
        wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        graph.outputs[i], value.name, wide.name = wide, f"{name}.held", name
    return model
