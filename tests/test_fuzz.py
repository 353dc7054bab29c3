"""The fuzz targets for a moment each; for longer: `python -m tests.fuzz`."""

from typing import Any

import pytest

from headway.core.tasks import token_classification
from tests import fuzz


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_mutated_inputs(target: str) -> None:
    assert fuzz.run(target, seconds=2, seed=0) > 0


def test_a_failing_input_is_told_and_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    words_of: Any = token_classification.words_of
    monkeypatch.setattr(
        token_classification, "words_of", lambda text: [(a, b + 1) for a, b in words_of(text)]
    )
    with pytest.raises(
        AssertionError, match=r"words overlap\npython -m tests.fuzz alignment --seed 1 --case \d+\n"
    ) as caught:
        fuzz.run("alignment", seconds=60, seed=1)
    case = int(str(caught.value).partition("--case ")[2].split()[0])
    with pytest.raises(AssertionError) as again:
        fuzz.run("alignment", seconds=0, seed=1, only=case)
    assert str(again.value) == str(caught.value)
    monkeypatch.undo()
    assert fuzz.run("alignment", seconds=0, seed=1, only=case) == case + 1
