"""Padded beside padding-free, on a played driver: what is computed and told, and that answers are compared."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from headway.bench import gpu_check, gpu_padding, mixes
from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle
from headway.runtime.shapes import TOKENS
from tests.cuda_driver import Driver
from tests.test_backend_ragged import LONGEST, Made, driver, made  # noqa: F401

MIX = "4:3,20:2,60:1"


class Clock:
    """Takes for a call as long as the tokens that it computes: one microsecond each."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, call: Any, repeats: int) -> float:
        self.calls += 1
        call()
        return gpu_padding.computed(call.func.__self__, call.args[0]) / 1e6


def measured(made: Made, clock: Callable[..., float], *precisions: str) -> Any:
    return gpu_padding.measure("tiny", made("single"), precisions, "cuda", MIX, 150, clock)


def test_the_table(driver: Driver, made: Made) -> None:
    clock = Clock()
    table, wrong = measured(made, clock, "fp32")
    assert not wrong
    assert table.title == f"tiny, 150 texts of {MIX}"
    assert clock.calls == 4
    file, coming = (dict(zip(table.head, row, strict=True)) for row in table.rows)
    for row in (file, coming):
        assert row["precision"] == "fp32"
        assert row["same label"] == "100.0 %"
        assert row["time ratio"] == row["tokens ratio"]
    lengths = mixes.drawn(MIX, 150)
    batches = [lengths[at : at + 64] for at in range(0, 150, 64)]
    padded = sum(64 if len(batch) > 24 else 24 for batch in batches) * 60  # the last has 22
    assert coming["padding"] == f"{100 * (1 - sum(lengths) / padded):.1f} %"
    assert float(coming["tokens ratio"]) < 0.4
    assert float(coming["padded, ms"]) == pytest.approx(padded / 1e3)
    assert sum(lengths) <= 1e3 * float(file["without padding, ms"]) <= sum(lengths) * 9 / 8


def test_each_planner_batches_as_it_likes(made: Made) -> None:
    texts = gpu_padding.drawn(Bundle.read(made("single")), "16:4,60:1", 3000)
    (_, padded, free), (_, coming, same) = gpu_padding.batched(texts)
    assert len(free) == -(-len(texts.ids) // TOKENS)
    assert len(padded) > len(free)
    assert coming is same
    for batches in (padded, free, coming):
        ids = np.concatenate([batch.ids for batch in batches])
        assert sorted(ids.tolist()) == sorted(texts.ids.tolist())


def test_other_answers_are_told(driver: Driver, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_padding, "agreement", lambda both, texts: 0.5)
    _, wrong = measured(made, Clock(), "fp32")
    assert wrong == ["tiny: fp32 without it (50.00% the same)"]


def test_a_variant_without_such_a_graph(driver: Driver, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_padding, "RAGGED", "none")
    table, wrong = measured(made, Clock(), "fp32")
    assert not wrong
    assert [row[:2] for row in table.rows] == [["fp32", "has no graph without padding"]]
    assert all(len(row) == len(table.head) for row in table.rows)


def test_its_place_in_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    machine = gpu_check.Machine(None, "cuda")
    asked = []

    def measure(*given: Any) -> Any:
        asked.append(given)
        raise UnavailableError("a GPU", "buy one")

    monkeypatch.setattr(gpu_padding, "measure", measure)
    ((table, wrong),) = gpu_check.padding_tables(machine, "tiny", tmp_path, "fp32,fp16", 9)
    assert (table.head, table.rows, wrong) == (["not run"], [["a GPU is not available: buy one"]], [])
    assert asked[0][:6] == ("tiny, padding", tmp_path / "cuda", ["fp32", "fp16"], "cuda", gpu_check.MIXED, 9)
    assert gpu_check.padding_tables(gpu_check.Machine(None, "cpu"), "tiny", tmp_path, "fp32", 9) == []
