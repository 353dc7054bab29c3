"""The decoder's graph over caches of a fixed size, which it writes in place, and sources that several rows share.

As it is traced, a decoder appends new keys and values to its caches and returns the longer ones: each step copies all
that was read before. Here `TensorScatter` puts them into columns that are there already, from `written` on; bound to
the same memory as input and output, a cache is never copied. Rows of the same source stand together, and their queries
meet its keys and values as queries of one row, so that beams share what the encoder has found.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from headway.core.errors import CheckpointError
from headway.core.manifest import Graph, Tensor
from headway.export.precision.base import Writer

WRITTEN = "written"
"""input: columns of the caches that hold tokens, as all rows have read equally many (with their padding)"""
SOURCES = "sources"
"""how many sources there are, of which each may have several rows"""
SWAPPED = [0, 2, 1, 3]
"""(R, H, S, D) to (R, S, H, D) and back"""


def declare(graph: Graph) -> Graph:
    """What the decoder takes and gives with caches of a fixed size, `room` columns, of which it writes some."""
    crossed = any(tensor.name.startswith("cross.") for tensor in graph.inputs)
    inputs = [_fixed(tensor, crossed) for tensor in graph.inputs]
    inputs.append(Tensor(name=WRITTEN, dtype="int64", shape=[]))
    return Graph(inputs=inputs, outputs=[_fixed(tensor, crossed) for tensor in graph.outputs])


def _fixed(tensor: Tensor, crossed: bool) -> Tensor:
    named: dict[int | str, int | str] = {"past": "room", "total": "room"}
    if tensor.name.startswith("cross.") or (crossed and tensor.name == "attention_mask"):
        named["rows"] = SOURCES
    return msgspec.structs.replace(tensor, shape=[named.get(d, d) for d in tensor.shape])


def in_place(model: ir.Model, declared: Graph, checkpoint: str) -> ir.Model:
    """Rewrite a decoder that appends to its caches; it may be changed in place.

    Args:
        declared: what `declare` said.
        checkpoint: where the model comes from.
    Raises:
        CheckpointError: it reads the length of its caches for something else than masks and positions.
    """
    graph = model.graph
    written = ir.Value(name=WRITTEN, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    graph.inputs.append(written)
    _tell_lengths(model, written, checkpoint)
    _write_in_place(model, written)
    shared = _share_sources(model)
    RemoveUnusedNodesPass()(model)
    shapes = {tensor.name: tensor.shape for tensor in (*declared.inputs, *declared.outputs)}
    for value in (*graph.inputs, *graph.outputs):
        shape = shapes[str(value.name)]
        value.shape = ir.Shape(shape if shared else ["rows" if size == SOURCES else size for size in shape])
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # many told of dimensions that are gone
    return model


def _caches(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if str(value.name).startswith("past.")]


def _tell_lengths(model: ir.Model, written: ir.Value, checkpoint: str) -> None:
    """Tokens read so far are `written`, no more the caches' length, which is now that of masks over all columns."""
    writer, caches = Writer(model), {form for cache in _caches(model) for form in _forms(cache)}
    for shape in [n for n in model.graph if n.op_type == "Shape" and n.inputs[0] in caches]:
        start = shape.attributes["start"].as_int() if "start" in shape.attributes else 0
        if start == 0 and shape.attributes["end"].as_int() == 1:
            continue  # the number of rows
        if start != 2:
            raise CheckpointError(checkpoint, f"its decoder reads dimension {start} of its caches")
        columns = shape.outputs[0]  # (1)
        for node, place in list(columns.uses()):
            if node.op_type != "Squeeze":
                flat = writer.constant("cache.flat", np.array([-1], np.int64))
                node.replace_input_with(
                    place, writer.node(node, "Reshape", [written, flat], f"{node.name}.written")
                )
                continue
            length = node.outputs[0]
            for user, where in list(length.uses()):
                for ranged, limit in list(_ranges(user)):
                    ranged.replace_input_with(limit, length)
                if user.op_type != "Range":
                    user.replace_input_with(where, written)


def _ranges(total: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    """Where a sum of old and new tokens says how many columns there are."""
    if total.op_type == "Add":
        yield from ((node, place) for node, place in total.outputs[0].uses() if node.op_type == "Range")


def _write_in_place(model: ir.Model, written: ir.Value) -> None:
    """Put new keys and values into the caches; of a graph in 16 bits in fp32, as the caches are."""
    writer, first = Writer(model), next(iter(model.graph))
    (ids,) = [value for value in model.graph.inputs if value.name == "input_ids"]
    rows = writer.node(first, "Shape", [ids], "cache.rows", start=0, end=1)
    columns = writer.node(first, "Expand", [written, rows], "cache.columns")  # where each row is written
    for cache in _caches(model):
        for node in [n for form in _forms(cache) for n in form.consumers() if n.op_type == "Concat"]:
            new, whole = node.inputs[1], node.outputs[0]
            assert new is not None
            name = str(whole.name)
            narrow = node.inputs[0] is not cache
            if narrow:
                new = writer.node(node, "Cast", [new], f"{name}.new", to=ir.DataType.FLOAT)
            made = writer.node(
                node, "TensorScatter", [cache, new, columns], f"{name}.all", axis=2, mode="linear"
            )
            if narrow:
                (present,) = [
                    u for u in whole.consumers() if u.op_type == "Cast" and u.outputs[0].is_graph_output()
                ]
                writer.replace(present, made)
                made = writer.node(node, "Cast", [made], f"{name}.narrow", to=whole.dtype)
            writer.replace(node, made)


def _forms(cache: ir.Value) -> Iterator[ir.Value]:
    """A cache, and the same in other types."""
    found = [cache]
    for value in found:
        yield value
        found += [node.outputs[0] for node in value.consumers() if node.op_type == "Cast"]


def _share_sources(model: ir.Model) -> bool:
    """Let the rows of a source ask its keys and values together: (R, H, S, D) as (B, H, R / B * S, D) and back.

    Whether that was done: it is not where attention is in products, as for TensorRT.
    """
    crossed = [n for n in model.graph if n.op_type == "Attention" and _is_cross(n)]
    if not crossed:
        return False
    writer = Writer(model)
    named = {str(value.name): value for value in model.graph.inputs}
    mask = named["attention_mask"]
    first = next(iter(model.graph))
    for counted in [n for n in model.graph if n.op_type == "Shape" and _is_of_sources(n.inputs[0])]:
        if (
            "end" in counted.attributes and counted.attributes["end"].as_int() == 1
        ):  # sources, where there was one for each row
            counted.replace_input_with(0, named["input_ids"])
    axes = writer.constant("cross.axes", np.array([1, 2], np.int64))
    seen = writer.node(first, "Cast", [mask], "cross.seen", to=ir.DataType.BOOL)
    seen = writer.node(first, "Unsqueeze", [seen, axes], "cross.mask")  # (B, 1, 1, L)
    sources = writer.node(first, "Shape", [mask], "cross.sources", start=0, end=1)
    rest, one = (writer.constant(f"cross.{n}", np.array([n], np.int64)) for n in (-1, 1))
    expanded: ir.Value | None = None
    for node in crossed:
        asked = _asked_together(writer, node, sources, rest)
        if expanded is None:
            queries = writer.node(node, "Shape", [asked], "cross.queries", start=2, end=3)
            shape = writer.node(node, "Concat", [sources, one, queries, one], "cross.shape", axis=0)
            expanded = writer.node(node, "Expand", [seen, shape], "cross.expanded")
        node.replace_input_with(0, asked)
        node.replace_input_with(3, expanded)
    return True


def _asked_together(writer: Writer, node: ir.Node, sources: ir.Value, rest: ir.Value) -> ir.Value:
    """The queries of an Attention by source (B, H, R / B * S, D); what it gives goes back to (R, H, S, D).

    Where the queries are split into heads, and joined again afterwards, as usual, that does it on the way.
    """
    query, key, name = node.inputs[0], node.inputs[1], str(node.outputs[0].name)
    assert query is not None
    assert key is not None
    assert key.shape is not None
    split = _before(_before(query, "Transpose"), "Reshape")
    if split is not None and _after(_after(node, "Transpose"), "Reshape") is not None:
        sizes = writer.constant(
            f"cross.{key.shape[1]}x{key.shape[3]}", np.array([key.shape[1], key.shape[3]])
        )
        together = writer.node(node, "Concat", [sources, rest, sizes], f"{name}.together", axis=0)
        assert split.inputs[0] is not None
        by_source = writer.node(node, "Reshape", [split.inputs[0], together], f"{name}.split")
        return writer.node(node, "Transpose", [by_source], f"{name}.query", perm=SWAPPED)
    by_row = writer.node(node, "Transpose", [query], f"{name}.rows", perm=SWAPPED)  # (R, S, H, D)
    whole = writer.node(node, "Shape", [by_row], f"{name}.shape")
    heads = writer.node(node, "Shape", [by_row], f"{name}.heads", start=2)
    together = writer.node(node, "Concat", [sources, rest, heads], f"{name}.together", axis=0)
    by_source = writer.node(node, "Reshape", [by_row, together], f"{name}.by_source")
    after = list(node.outputs[0].uses())
    found = ir.node("Transpose", [node.outputs[0]], {"perm": SWAPPED}, name=f"{name}.found")
    back = ir.node("Reshape", [found.outputs[0], whole], name=f"{name}.by_row")
    answer = ir.node("Transpose", [back.outputs[0]], {"perm": SWAPPED}, name=f"{name}.answer")
    writer.graph.insert_after(node, [found, back, answer])
    for user, place in after:
        user.replace_input_with(place, answer.outputs[0])
    return writer.node(node, "Transpose", [by_source], f"{name}.query", perm=SWAPPED)


def _before(value: ir.Value | ir.Node | None, op: str) -> ir.Node | None:
    """The node of that op that makes a value, or a node's first input."""
    value = value.inputs[0] if isinstance(value, ir.Node) else value
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op else None


def _after(node: ir.Node | None, op: str) -> ir.Node | None:
    """The node of that op that alone uses what another gives."""
    users = [] if node is None else list(node.outputs[0].consumers())
    return users[0] if len(users) == 1 and users[0].op_type == op else None


def _is_cross(node: ir.Node) -> bool:
    return _is_of_sources(node.inputs[1])


def _is_of_sources(value: ir.Value | None) -> bool:
    return value is not None and str(value.name).startswith(("cross.", "attention_mask"))
