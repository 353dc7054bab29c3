"""Steps of texts of similar length, in random order."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.train import encoder
from headway.train.batches import POOL, SimilarLengths
from headway.train.tasks.base import Prepared
from tests.tolerance import TOLERANCE


@given(st.lists(st.integers(1, 500), min_size=1, max_size=400), st.integers(1, 9))
def test_each_example_once_and_the_smaller_step_last(lengths: list[int], size: int) -> None:
    sampler = SimilarLengths(lengths, size)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)


@given(st.integers(0, 2**31))
def test_steps_are_alike_in_length_and_in_no_order_of_length(seed: int) -> None:
    torch.manual_seed(seed)
    lengths = np.random.default_rng(seed).integers(1, 500, 40 * 8)
    assert POOL >= 40
    steps = lengths[list(SimilarLengths(lengths.tolist(), 8))].reshape(40, 8)
    by_length = np.sort(lengths)[::-1].reshape(40, 8)
    assert sorted(sorted(s) for s in steps.tolist()) == sorted(sorted(s) for s in by_length.tolist())
    place = [int(np.argmax((np.sort(by_length) == np.sort(step)).all(1))) for step in steps]
    assert abs(np.corrcoef(place, np.arange(40))[0, 1]) < 0.9


def test_the_random_state_makes_the_order() -> None:
    sampler = SimilarLengths(list(range(100)), 8)
    orders = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        orders.append(list(sampler))
    assert orders[0] == orders[1] != orders[2]


def test_each_target_counts_the_same_in_short_and_long_texts() -> None:
    """The sum over batches of their losses does not depend on which rows are together."""
    generator = torch.Generator().manual_seed(0)
    lengths = [2, 3, 9, 10]
    rows = [torch.randint(0, 5, (n,), generator=generator).tolist() for n in lengths]
    logits = torch.randn(4, 10, 5, generator=generator)
    each = encoder.judged(Prepared([{"labels": row} for row in rows]), "labels")
    assert each == sum(lengths) / 4

    def total(batches: list[list[int]]) -> float:
        return sum(
            float(
                encoder.cross_entropy(
                    logits[b], encoder.padded([*(rows[i] for i in b), [0] * 10], -100)[:-1], None, 0.0, each
                )
            )
            for b in batches
        )

    plain = [
        torch.nn.functional.cross_entropy(logits[i, : lengths[i]], torch.tensor(rows[i]), reduction="sum")
        for i in range(4)
    ]
    wanted = float(sum(plain)) / sum(lengths) * 2  # two batches of half the rows each
    for batches in ([[0, 1], [2, 3]], [[0, 2], [1, 3]]):
        np.testing.assert_allclose(total(batches), wanted, *TOLERANCE["float32"])
