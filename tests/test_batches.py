"""The parts of a step: little padding, and the same answers as the whole."""

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from headway.train import batches
from headway.train.batches import PART_OVERHEAD, forward, parts
from tests.tolerance import MODEL

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=9)


def cost(found: list[Any]) -> int:
    return sum(len(part) * int(max(part)) + PART_OVERHEAD for part in found)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60))
def test_each_text_is_in_one_part_and_the_longest_part_is_first(found: list[int]) -> None:
    array = np.array(found)
    places = parts(array)
    assert sorted(np.concatenate(places).tolist()) == list(range(len(found)))
    assert all(array[a].min() >= array[b].max() for a, b in pairwise(places))


@given(lengths)
def test_no_other_parts_cost_less(found: list[int]) -> None:
    array = np.array(found)
    ordered = sorted(found, reverse=True)
    every = [
        [ordered[i:j] for i, j in pairwise((0, *cuts, len(found)))]
        for n in range(len(found))
        for cuts in combinations(range(1, len(found)), n)
    ]
    assert cost([array[p] for p in parts(array)]) == min(map(cost, every))


@pytest.mark.parametrize(
    ("auto", "read"),
    [
        (AutoModelForSequenceClassification, lambda o: o.logits),
        (AutoModelForTokenClassification, lambda o: o.logits),
        (AutoModelForQuestionAnswering, lambda o: torch.stack([o.start_logits, o.end_logits], -1)),
    ],
)
def test_parts_answer_as_the_whole(
    auto: Any, read: Any, pretrained: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PART_OVERHEAD", 1)  # as many parts as there are lengths
    model = auto.from_pretrained(pretrained).eval()
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    inputs = dict(tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"))
    assert len(parts(inputs["attention_mask"].sum(1).numpy())) > 5
    found, whole = forward(model, inputs, read), read(model(**inputs))
    assert found.shape == whole.shape
    present = inputs["attention_mask"].bool() if whole.ndim == 3 else torch.ones(len(texts), dtype=torch.bool)
    np.testing.assert_allclose(found[present].detach(), whole[present].detach(), *MODEL["fp32"])
    found[present].square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for n, p in model.named_parameters() if "layer" in n)
