"""Windows over long inputs: what they cover, what they share, and which one answers for what."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import windows

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=40)
rooms = st.integers(1, 60)
overlaps = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


@given(lengths, rooms, overlaps)
def test_every_unit_is_in_a_window(units: list[int], room: int, overlap: float) -> None:
    found = windows.cut(units, room, overlap)
    assert set().union(*(range(*window) for window in found)) == set(range(len(units)))
    assert found[0][0] == 0
    assert found[-1][1] == len(units)


@given(lengths, rooms, overlaps)
def test_windows_are_in_order_and_leave_no_gap(units: list[int], room: int, overlap: float) -> None:
    found = windows.cut(units, room, overlap)
    assert all(begin < end for begin, end in found)
    for (begin, end), (next_begin, next_end) in pairwise(found):
        assert begin < next_begin <= end
        assert end < next_end  # each shows something new


@given(lengths, rooms, overlaps)
def test_windows_fit(units: list[int], room: int, overlap: float) -> None:
    for begin, end in windows.cut(units, room, overlap):
        assert sum(units[begin:end]) <= room or end == begin + 1


@given(lengths, rooms, overlaps)
def test_neighbours_share_no_more_than_they_may(units: list[int], room: int, overlap: float) -> None:
    for (_, end), (begin, _) in pairwise(windows.cut(units, room, overlap)):
        assert sum(units[begin:end]) <= overlap * room


@given(lengths, rooms)
def test_windows_are_as_long_as_they_can_be(units: list[int], room: int) -> None:
    for begin, end in windows.cut(units, room):
        assert end == len(units) or sum(units[begin : end + 1]) > room


@pytest.mark.parametrize(
    ("units", "room", "expected"),
    [
        ([], 10, []),
        ([3], 10, [(0, 1)]),
        ([5, 5], 10, [(0, 2)]),
        ([5, 6], 10, [(0, 1), (1, 2)]),
        ([2, 2, 2, 2, 2, 2, 2], 8, [(0, 4), (3, 7)]),  # a quarter of 8 is shared
        ([3, 3, 3, 3], 9, [(0, 3), (3, 4)]),  # a quarter of 9 holds no unit
        ([99, 1, 99], 10, [(0, 1), (1, 2), (2, 3)]),
        ([0, 0, 0], 1, [(0, 3)]),
    ],
)
def test_cut_by_hand(units: list[int], room: int, expected: list[tuple[int, int]]) -> None:
    assert windows.cut(units, room) == expected


def context(found: list[list[int]], w: int, unit: int) -> float:
    """Units that window w has on the poorer side of one of its own; the text's ends are no lack."""
    place = found[w].index(unit)
    sides = [float(place), float(len(found[w]) - 1 - place)]
    if w == 0:
        sides[0] = float("inf")
    if w == len(found) - 1:
        sides[1] = float("inf")
    return min(sides)


@given(lengths, rooms, overlaps)
def test_each_unit_has_the_owner_with_most_context(units: list[int], room: int, overlap: float) -> None:
    found = [list(range(*window)) for window in windows.cut(units, room, overlap)]
    owned = windows.owners(found)
    assert len(owned) == len(found)
    assert sorted(unit for own in owned for unit in own) == list(range(len(units)))
    for w, own in enumerate(owned):
        for unit in own:
            assert unit in found[w]
            rivals = [context(found, v, unit) for v in range(len(found)) if unit in found[v]]
            assert context(found, w, unit) == max(rivals)


@given(st.lists(st.lists(st.integers(0, 20), unique=True).map(sorted), max_size=6))
def test_any_units_have_one_owner(found: list[list[int]]) -> None:
    owned = windows.owners(found)
    assert sorted(unit for own in owned for unit in own) == sorted(
        {unit for window in found for unit in window}
    )
    assert all(own <= set(window) for own, window in zip(owned, found, strict=True))


def test_owners_by_hand() -> None:
    assert windows.owners([]) == []
    assert windows.owners([[0, 1, 2]]) == [{0, 1, 2}]
    assert windows.owners([[0, 1, 2, 3], [2, 3, 4, 5]]) == [{0, 1, 2}, {3, 4, 5}]
    assert windows.owners([[0, 1, 2], []]) == [{0, 1, 2}, set()]
