"""Overlapping windows over a long input, and which window answers for which unit."""

from __future__ import annotations

from collections.abc import Sequence


def cut(lengths: Sequence[int], room: int, overlap: float = 0.25) -> list[tuple[int, int]]:
    """Windows [begin, end) over units of the given lengths, each of at most `room` in all.

    Neighbours share whole units of up to `overlap * room`. A unit longer than `room` is a window of its own.
    """
    windows: list[tuple[int, int]] = []
    begin = 0
    while begin < len(lengths):
        end, used = begin, 0
        while end < len(lengths) and (end == begin or used + lengths[end] <= room):
            used += lengths[end]
            end += 1
        windows.append((begin, end))
        if end == len(lengths):
            break
        following, shared = end, 0
        limit = min(overlap * room, room - lengths[end])  # the next window must have room for what is new
        while following - 1 > begin and shared + lengths[following - 1] <= limit:
            following -= 1
            shared += lengths[following]
        begin = following
    return windows


def owners(windows: Sequence[Sequence[int]]) -> list[set[int]]:
    """For each window the units that it answers for: those it sees with the most context on the poorer side.

    `windows` are the units in each, in order; the first and the last window lack no context on the outside.
    """
    best: dict[int, tuple[float, int]] = {}
    for w, units in enumerate(windows):
        for place, unit in enumerate(units):
            before = float("inf") if w == 0 else place
            after = float("inf") if w == len(windows) - 1 else len(units) - 1 - place
            context = min(before, after)
            if unit not in best or context > best[unit][0]:
                best[unit] = (context, w)
    owned: list[set[int]] = [set() for _ in windows]
    for unit, (_, w) in best.items():
        owned[w].add(unit)
    return owned
