"""Which examples make a step: texts of similar length together, steps in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 50
"""steps that are sorted together; the more, the less padding, and the more alike the texts of a step"""


class SimilarLengths(Sampler[int]):
    """Places of the examples, `size` in a row for each step; another order each time, by torch's random state.

    transformers' own sampler goes from long to short texts within each pool. Where a set is one pool or two, the
    last steps of an epoch then see short texts alone, which cost 10 points of entity-F1 on wnut17.
    """

    def __init__(self, lengths: Sequence[int], size: int) -> None:
        self.lengths, self.size = torch.tensor(lengths), size

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        shuffled = torch.randperm(len(self))
        steps: list[torch.Tensor] = []
        for pool in torch.split(shuffled, POOL * self.size):
            by_length = pool[self.lengths[pool].argsort(descending=True, stable=True)]
            steps += torch.split(by_length, self.size)
        rest = [steps.pop()] if len(steps[-1]) < self.size else []  # a smaller one can only be the last
        for step in torch.randperm(len(steps)).tolist():
            yield from steps[step].tolist()
        for last in rest:
            yield from last.tolist()
