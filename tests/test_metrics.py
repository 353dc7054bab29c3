"""text-classification's figures against scikit-learn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from headway.core.data import Record
from headway.core.tasks import text_classification as task

label = st.sampled_from(["a", "b", "c", "d", "é 漢"])


@given(st.lists(st.tuples(label, label), min_size=1, max_size=60))
def test_equal_to_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    figures = task.metrics(
        [task.Example("text", g, None, Record({}, "", 1)) for g in gold],
        [task.Result(s, 1.0, {}) for s in said],
    )
    assert figures.keys() == {"accuracy", "macro_f1"}
    assert figures["accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert figures["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
