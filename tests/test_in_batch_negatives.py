"""In-batch and mined negatives against sentence-transformers: what is right for an anchor is never its negative."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from headway.core.data import Record
from headway.core.errors import DataError, UsageError
from headway.core.tasks import Spec
from headway.core.tasks.sentence_embedding import Example, Settings
from headway.train import losses
from headway.train.checkpoint import open_model, open_tokenizer
from headway.train.options import TrainOptions
from headway.train.tasks import sentence_embedding as task
from tests.conftest import Run, write_jsonl
from tests.task_examples import few, seeds

SCALE = 20.0
REFERENCE = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=SCALE)  # type: ignore[arg-type]


def example(*texts: str) -> Example:
    form = "triplet" if len(texts) == 3 else "pair"
    return Example(texts, form, None, None, Record({}, "data.jsonl", 1))


def ours(examples: list[Example], vectors: torch.Tensor, batch: list[int] | None = None) -> float:
    """The loss of a batch of the examples, whose texts have vectors (K, B, D)."""
    names = task._names(examples)
    same = torch.from_numpy(task._false_negatives([names[i] for i in batch or range(len(names))]))
    return float(losses.multiple_negatives(vectors[0], vectors[1:].flatten(0, 1), same, SCALE))


def reference(parts: list[torch.Tensor]) -> float:
    return float(REFERENCE.compute_loss_from_embeddings(parts, torch.zeros(len(parts[0]))))


def test_two_positives_of_one_question() -> None:
    """Perfect vectors: as a batch without the repeated question, and far from the 2/3 ln 2 of before."""
    examples = [example("q1", "p1"), example("q1", "p2"), example("q2", "p3")]
    vectors = torch.eye(3)[[0, 0, 1]]
    expected = reference([torch.eye(3)[[0, 1]], torch.eye(3)[[0, 1]]])
    assert ours(examples, torch.stack([vectors, vectors])) == pytest.approx(expected, abs=1e-6)
    assert expected < 1e-6 < 2 / 3 * math.log(2)


@few
@given(seed=seeds, count=st.integers(1, 6), triplets=st.booleans(), texts=st.integers(2, 6))
def test_the_loss_is_that_of_batches_without_repeated_texts(
    seed: int, count: int, triplets: bool, texts: int
) -> None:
    """Each row's loss is the reference's on the row alone with those of the others' texts that may be negatives."""
    random = np.random.default_rng(seed)
    names = random.integers(0, texts, (count + 2, 2 + triplets)).astype(
        str
    )  # the last two are not in the batch
    examples = [example(*row) for row in names.tolist()]
    vectors = torch.from_numpy(random.standard_normal((2 + triplets, count, 5)).astype(np.float32))
    each = []
    for i in range(count):
        anchor, positive = names[i, :2]
        right = {anchor, positive} | {row[1] for row in names if row[0] == anchor}
        negatives = [
            vectors[1, j]
            for j in range(count)
            if names[j, 1] not in right and not set(names[i, :2]) & set(names[j, :2])
        ]
        if triplets:
            negatives += [vectors[2, j] for j in range(count) if names[j, 2] not in right]
        each.append(reference([v[None] for v in (vectors[0, i], vectors[1, i], *negatives)]))
    found = ours(examples, vectors, list(range(count)))
    assert found == pytest.approx(float(np.mean(each)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "rows",
    [
        [("q1", "p1"), ("p1", "x"), ("q2", "y")],  # an anchor that is another row's positive
        [("q1", "p1"), ("q2", "p1"), ("q3", "y")],  # equal positives
        [("q1", "p1"), ("q2", "q1"), ("q3", "y")],  # a positive that is another row's anchor
    ],
)
def test_rows_that_share_a_text(rows: list[tuple[str, str]]) -> None:
    found = task._false_negatives(task._names([example(*row) for row in rows]))
    expected = np.eye(3, dtype=bool)
    expected[0, 1] = expected[1, 0] = True
    np.testing.assert_array_equal(found, expected)


def test_a_positive_of_the_anchor_that_is_not_in_the_batch() -> None:
    examples = [example("q1", "p1"), example("q2", "p2"), example("q1", "p2")]
    found = task._false_negatives(task._names(examples)[:2])
    np.testing.assert_array_equal(found, [[True, True], [False, True]])


def test_a_given_negative_that_is_a_positive_elsewhere() -> None:
    examples = [example("q1", "p1", "p2"), example("q2", "p3", "n"), example("q1", "p2", "n")]
    found = task._false_negatives(task._names(examples)[:2])
    np.testing.assert_array_equal(found[0], [True, False, True, False])


def mined(rows: list[tuple[str, str]], pretrained: Path, count: int) -> tuple[list[Example], dict[str, int]]:
    tokenizer, spec = open_tokenizer(str(pretrained)), Spec([], 16, Settings())
    model: Any = open_model(str(pretrained), "sentence-embedding", spec, None)
    return task.mine(model, tokenizer, [example(*row) for row in rows], spec, count)


def test_mined_negatives_are_no_positives_of_the_anchor(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "MARGIN", 10.0)  # of random vectors, nothing is too near
    rows = [
        ("where is it", "late parcel"),
        ("where is it", "lost parcel"),
        ("refund", "money back"),
        ("x", "refund"),
    ]
    found, counts = mined(rows, pretrained, 5)
    of_anchor = {a: {e.texts[2] for e in found if e.texts[0] == a} for a, _ in rows}
    assert of_anchor == {
        "where is it": {"money back", "refund"},
        "refund": {"late parcel", "lost parcel"},
        "x": {"late parcel", "lost parcel", "money back"},
    }
    assert all(len(set(e.texts)) == 3 for e in found)
    assert counts == {task.FEWER_NEGATIVES: 4}


def test_pairs_without_a_negative_are_counted(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "MARGIN", 10.0)
    rows = [("a", "parcel"), ("a", "refund"), ("b", "parcel")]
    found, counts = mined(rows, pretrained, 1)
    assert [e.texts for e in found] == [("b", "parcel", "refund")]
    assert counts == {task.NO_NEGATIVE: 2}


def test_no_pair_has_a_negative(run: Run, pretrained: Path, tmp_path: Path) -> None:
    rows = [{"anchor": f"question {i}", "positive": "the one answer"} for i in range(6)]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    ran = run(
        "train", "sentence-embedding", "--model", pretrained, "--train", data, "--output", tmp_path / "out",
        "--hard-negatives", 2, "--max-length", 16, "--threads", 1,
    )  # fmt: skip
    assert ran.code == 2, ran.err
    assert "--hard-negatives: finds none: for each of 6 pairs" in ran.err


@pytest.mark.parametrize(
    ("rows", "changes", "problem"),
    [
        ([("q", "a"), ("q", "b")], {}, "has one anchor"),
        ([("q", "a"), ("r", "a")], {}, "has one positive"),
        ([("q", "a"), ("r", "b")], {"batch_size": 1}, "--batch-size: must be 2"),
        ([("q", "a"), ("r", "b")], {"batch_size": 8, "accumulate": 8}, "--batch-size: must be 2"),
    ],
)
def test_batches_without_any_negative(rows: list[tuple[str, str]], changes: Any, problem: str) -> None:
    options = TrainOptions(model="m", train=Path("t"), output=Path("o"), **changes)
    with pytest.raises((DataError, UsageError), match=problem):
        task.describe([example(*row) for row in rows], [], None, options)  # type: ignore[arg-type]
