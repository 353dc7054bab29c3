"""The decoder's graph over caches of a fixed size, which it writes in place, and sources that several rows share.

As it is traced, a decoder appends new keys and values to its caches and returns the longer ones: each step copies all
that was read before. Here `TensorScatter` puts them into columns that are there already, from `written` on; bound to
the same memory as input and output, a cache is never copied. Rows of the same source stand together, and their queries
meet its keys and values as queries of one row, so that beams share what the encoder has found.

Nothing that a processor must know (a shape, a bound) depends on how much is written, so that a GPU may do a captured
step again and again. There caches, what the encoder gives and logits have the type that the graph computes in.
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
APART = "tensorrt"
"""the target that gives new columns alone"""
WHOLE = ".all"
"""ends the name of a cache with its new columns, where these alone are given"""


def declare(graph: Graph, target: str = "cpu") -> Graph:
    """What the decoder takes and gives with caches of a fixed size, `room` columns, of which it writes some.

    TensorRT writes in place only into caches whose size it was built for: there the new columns alone are given.
    """
    crossed = any(tensor.name.startswith("cross.") for tensor in graph.inputs)
    total = "step" if target == APART else "room"
    inputs = [_fixed(tensor, crossed, "room") for tensor in graph.inputs]
    inputs.append(Tensor(name=WRITTEN, dtype="int64", shape=[]))
    return Graph(inputs=inputs, outputs=[_fixed(tensor, crossed, total) for tensor in graph.outputs])


def _fixed(tensor: Tensor, crossed: bool, total: str) -> Tensor:
    named: dict[int | str, int | str] = {"past": "room", "total": total}
    if tensor.name.startswith("cross.") or (crossed and tensor.name == "attention_mask"):
        named["rows"] = SOURCES
    return msgspec.structs.replace(tensor, shape=[named.get(d, d) for d in tensor.shape])


def in_place(model: ir.Model, declared: Graph, checkpoint: str, target: str = "cpu") -> ir.Model:
    """Rewrite a decoder that appends to its caches; it may be changed in place.

    Args:
        declared: what `declare` said.
        checkpoint: where the model comes from.
        target: what runs it; of graphs for GPUs sizes that are known between nodes are left, for engines that read them.
    Raises:
        CheckpointError: it reads the length of its caches for something else than masks and positions.
    """
    graph, sized = model.graph, target != "cpu"
    written = ir.Value(name=WRITTEN, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    graph.inputs.append(written)
    if sized:
        _drop_defaults(graph)
    _tell_lengths(model, written, checkpoint)
    if target == APART:
        _write_apart(model, written)
    else:
        _write_in_place(model, written)
    shared = _share_sources(model, sized)
    RemoveUnusedNodesPass()(model)
    shapes = {tensor.name: tensor.shape for tensor in (*declared.inputs, *declared.outputs)}
    for value in (*graph.inputs, *graph.outputs):
        shape = shapes[str(value.name)]
        value.shape = ir.Shape(shape if shared else ["rows" if size == SOURCES else size for size in shape])
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = _sizes(value) if sized else None  # many told of dimensions that are gone
    return model


def _drop_defaults(graph: ir.Graph) -> None:
    """Let no input have a value of its own, which TensorRT would take for a constant."""
    for value in graph.inputs:
        if graph.initializers.pop(str(value.name), None) is not None:
            value.const_value = None


def _sizes(value: ir.Value) -> ir.Shape | None:
    """The dimensions that are numbers; the others are unknown."""
    return None if value.shape is None else ir.Shape([d if isinstance(d, int) else None for d in value.shape])


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


def _write_apart(model: ir.Model, written: ir.Value) -> None:
    """Let attention see the new keys and values in their columns, and give them alone."""
    writer, first = Writer(model), next(iter(model.graph))
    cache, (ids,) = _caches(model)[0], [value for value in model.graph.inputs if value.name == "input_ids"]
    zero, one, end = (writer.constant(f"cache.{n}", np.array(n, np.int64)) for n in (0, 1, -1))
    axis = writer.constant("cache.axis", np.array([1], np.int64))

    def counted(name: str, of: ir.Value, at: int) -> ir.Value:
        """0, 1, 2 … on the GPU, as many as a dimension has."""
        shape = writer.node(first, "Shape", [of], f"cache.{name}.shape", start=at, end=at + 1)
        size = writer.node(first, "Squeeze", [shape], f"cache.{name}.size")
        return writer.node(first, "Range", [zero, size, one], f"cache.{name}")

    columns, new_ones = counted("columns", cache, 2), counted("step", ids, 1)
    place = writer.node(first, "Sub", [columns, written], "cache.place")  # of a column among the new ones
    last = writer.node(first, "Gather", [new_ones, end], "cache.last", axis=0)
    inside = [
        writer.node(first, "GreaterOrEqual", [place, zero], "cache.from"),
        writer.node(first, "LessOrEqual", [place, last], "cache.to"),
    ]
    new_here = writer.node(first, "And", inside, "cache.inside")
    new_here = writer.node(first, "Unsqueeze", [new_here, axis], "cache.new")  # (room, 1)
    begun = writer.node(first, "Max", [place, zero], "cache.begun")
    nearest = writer.node(first, "Min", [begun, last], "cache.nearest")
    for cache in _caches(model):
        for node in [n for form in _forms(cache) for n in form.consumers() if n.op_type == "Concat"]:
            old, new, whole = node.inputs[0], node.inputs[1], node.outputs[0]
            assert old is not None
            assert new is not None
            name = str(cache.name).replace("past", "present", 1)
            moved = writer.node(node, "Gather", [new, nearest], f"{name}.moved", axis=2)
            made = writer.node(node, "Where", [new_here, moved, old], f"{name}{WHOLE}")
            made.type, made.shape = whole.type, _sizes(whole)
            given = new
            if whole.dtype != cache.dtype:
                given = writer.node(node, "Cast", [new], f"{name}.given", to=cache.dtype)
            else:
                given = writer.node(node, "Identity", [new], f"{name}.given")
            given.type = ir.TensorType(cache.dtype) if cache.dtype is not None else None
            at = next(i for i, value in enumerate(model.graph.outputs) if value.name == name)
            output = model.graph.outputs[at]
            model.graph.outputs[at], output.name, given.name = given, f"{name}.before", name
            whole.replace_all_uses_with(made)


def whole(model: ir.Model, declared: Graph) -> ir.Model:
    """Let a graph that gives new columns alone give whole caches, for a processor; it is changed in place."""
    named = {value.name: value for node in model.graph for value in node.outputs}
    shapes = {tensor.name: tensor.shape for tensor in declared.outputs}
    for i, value in enumerate(model.graph.outputs):
        name = str(value.name)
        if (held := named.get(f"{name}{WHOLE}")) is not None:
            value.name, held.name, held.shape = f"{name}.new", name, ir.Shape(shapes[name])
            model.graph.outputs[i] = held
    return model


def _forms(cache: ir.Value) -> Iterator[ir.Value]:
    """A cache, and the same in other types."""
    found = [cache]
    for value in found:
        yield value
        found += [node.outputs[0] for node in value.consumers() if node.op_type == "Cast"]


def _share_sources(model: ir.Model, sized: bool) -> bool:
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
        query = node.inputs[0]
        asked = _asked_together(writer, node, sources, rest)
        if sized and query is not None and query.dtype is not None:
            asked.type, asked.shape = ir.TensorType(query.dtype), _sizes(query)
        if expanded is None:
            queries = writer.node(node, "Shape", [asked], "cross.queries", start=2, end=3)
            shape = writer.node(node, "Concat", [sources, one, queries, one], "cross.shape", axis=0)
            expanded = writer.node(node, "Expand", [seen, shape], "cross.expanded")
            if sized:
                expanded.type, expanded.shape = (
                    ir.TensorType(ir.DataType.BOOL),
                    ir.Shape([None, 1, None, None]),
                )
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
