"""Shapes that the engines of a model that writes are built for: every dimension has a range, in a few profiles."""

from __future__ import annotations

from headway.core.manifest import Bundle, Graph
from headway.runtime.generation.gpu.device import rounded, sizes

Range = tuple[list[int], list[int], list[int]]
"""least, usual and most shape of an input"""
Profile = dict[str, Range]

STEP = 16
"""lengths are multiples of it, twice as many, three times …"""
SOURCES, ROWS = 64, 256
"""at once, at most: texts, and their beams together"""
NEW = 256
"""tokens that a model without a limit writes, at most, beside as many as it reads"""
USUAL = 64
"""tokens"""

Spans = dict[str, tuple[int, int, int]]


def profiles(declared: Bundle, role: str) -> list[Profile]:
    """For the graph of a role; none for encoders alone, whose shapes are `headway.runtime.shapes`."""
    if role == "encoder":
        return [_profile(declared.graphs[role], spans) for spans in _encoders(declared)]
    if role == "decoder":
        return [_profile(declared.graphs[role], spans) for spans in _decoders(declared)]
    return []


def _encoders(declared: Bundle) -> list[Spans]:
    length = _to(rounded(declared.max_length, STEP))
    return [{"batch": (1, 1, 1), "length": length}, {"batch": (2, SOURCES // 2, SOURCES), "length": length}]


def _decoders(declared: Bundle) -> list[Spans]:
    """Steps of one text and of many, prompts, and texts that are judged one by one."""
    length = _to(rounded(declared.max_length, STEP))
    longest = declared.longest or declared.max_length + NEW
    padding = (
        declared.max_length if "encoder" not in declared.graphs else 0
    )  # in front of the shorter prompts
    room, one = _to(rounded(longest + padding, STEP)), (1, 1, 1)
    step = {"step": one, "kept": one, "room": room, "length": length}
    found: list[Spans] = [
        step | {"sources": one, "rows": (1, 4, 8)},
        step | {"sources": (1, SOURCES // 2, SOURCES), "rows": (1, ROWS // 2, ROWS)},
    ]
    if "encoder" not in declared.graphs:
        found.append({"rows": (1, 8, SOURCES), "step": length, "room": length, "kept": one})
    text = _to(rounded(longest, STEP))
    found.append({"rows": one, "sources": one, "step": text, "room": text, "kept": text, "length": length})
    return found


def _to(most: int) -> tuple[int, int, int]:
    return 1, min(USUAL, most), most


def _profile(graph: Graph, spans: Spans) -> Profile:
    def shape(at: int) -> dict[str, list[int]]:
        named = {name: span[at] for name, span in spans.items()}
        return {tensor.name: list(sizes(tensor, named)) for tensor in graph.inputs}

    least, usual, most = (shape(at) for at in range(3))
    return {name: (least[name], usual[name], most[name]) for name in least}
