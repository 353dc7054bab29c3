"""The shapes that batches are padded to, and the optimization profiles that an engine has for them.

Lengths are 16, 32, 48, 64, 96, 128, 192 … up to the model's own, rows are 1, 2, 3, 4, 6, 8, 12 …: so few that each may
have a CUDA graph. Each octave of lengths has a profile for one row, where latency counts, and one for many.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import msgspec

from headway.core.manifest import Count

SHORTEST = 16
"""tokens of the shortest shape; tensor cores take so many at a time"""
TOKENS = 16_384
"""padded tokens that go through an engine together, at most (one text may be longer)"""

Shape = tuple[int, int]
"""rows, tokens"""


class Profile(NamedTuple):
    """Shapes that an engine is built for, from the least to the most, for which it is optimized."""

    least: Shape
    most: Shape


class Place(NamedTuple):
    """Where a batch goes."""

    profile: int
    rows: int
    length: int
    """of the longest row, at most"""
    tokens: int
    """of all rows, with the padding that the engine sees"""


class Shapes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """All shapes of an engine."""

    longest: Count
    """tokens that the model takes"""
    tokens: Count = TOKENS
    """padded tokens in a batch, at most"""

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Ascending."""
        return _steps(self.longest, SHORTEST)

    @cached_property
    def octaves(self) -> tuple[tuple[int, ...], ...]:
        """Lengths that share profiles."""
        found: dict[int, list[int]] = {}
        for length in self.lengths:
            found.setdefault(max(length - 1, SHORTEST).bit_length(), []).append(length)
        return tuple(map(tuple, found.values()))

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        """For each octave one for a single row, and one for more where more fit."""
        made = []
        for octave in self.octaves:
            shortest, longest = octave[0], octave[-1]
            made.append(Profile((1, shortest), (1, longest)))
            if (rows := self.most(shortest)) > 1:
                made.append(Profile((2, shortest), (rows, longest)))
        return tuple(made)

    def padded(self, length: int) -> int:
        """The least length of a shape that so many tokens fit into."""
        return next(each for each in self.lengths if each >= length)

    def most(self, length: int) -> int:
        """Rows of a shape of that length, at most."""
        return max(1, self.tokens // next(octave[-1] for octave in self.octaves if octave[-1] >= length))

    def place(self, rows: int, length: int) -> Place:
        """Where so many rows, not more than `most`, of at most so many tokens go."""
        length = self.padded(length)
        rows = next(each for each in _steps(self.most(length), 1) if each >= rows)
        for number, profile in enumerate(self.profiles):
            if all(a <= b <= c for a, b, c in zip(profile.least, (rows, length), profile.most, strict=True)):
                return Place(number, rows, length, rows * length)
        raise AssertionError((rows, length))  # the profiles have all shapes


def _steps(most: int, least: int) -> tuple[int, ...]:
    """least · 1, 2, 3, 4, 6, 8, 12, … and `most`."""
    steps = {least * part << octave for octave in range(most.bit_length()) for part in (1, 2, 3)}
    return (*sorted(step for step in steps if step < most), most)
