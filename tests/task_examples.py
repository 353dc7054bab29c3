"""Records, settings and outputs for the tests of tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headway.core import tasks
from headway.core.data import Record
from headway.core.errors import DataError
from headway.core.tasks import (
    Output,
    Row,
    Spec,
)
from tests.tolerance import TOLERANCE

KINDS = ["wordpiece", "byte-level"]
CLOSE = TOLERANCE["float32"]
few = settings(max_examples=50)
seeds = st.integers(0, 2**32 - 1)
compact = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15
).filter(lambda word: not any(c.isspace() for c in word))
"""words of any characters but white space; many are long in tokens, and of some no token is left"""
plain_words = st.text("abcdeé漢😀-.x1", min_size=1, max_size=8)
"""words of which every tokenizer here makes something"""


def whole(tokenizer: Tokenizer, text: str) -> Any:
    """The encoding of a text without special tokens, however long it is."""
    tokenizer.no_truncation()
    return tokenizer.encode(text, add_special_tokens=False)


def record(**fields: Any) -> Record:
    return Record(fields, "data.jsonl", 7)


def read(name: str, **fields: Any) -> Any:
    return tasks.load(name).read(record(**fields), labelled=True)


def spec_of(task: Any, labels: Sequence[str] = (), max_length: int = 16, **options: Any) -> Spec:
    return Spec(list(labels), max_length, task.Settings(**options))


def outputs_of(logits: Sequence[Sequence[float]], truncated: Sequence[bool] | None = None) -> list[Output]:
    cut = truncated or [False] * len(logits)
    return [
        Output(Row(i, [1, 2], [0, 0], truncated=c), np.array(x, np.float32))
        for i, (x, c) in enumerate(zip(logits, cut, strict=True))
    ]


def complaint(attempt: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        attempt()
    return str(caught.value)


def spread(rows: Sequence[Row], classes: int, seed: int) -> list[Output]:
    """Random answers to rows, to be overwritten where it matters."""
    random = np.random.default_rng(seed)
    return [Output(row, random.normal(size=(len(row.ids), classes)).astype(np.float32)) for row in rows]
