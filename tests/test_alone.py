"""Alone equals in a batch, for each precision of a bundle and each engine that opens it; all tasks: `python -m tests.alone`."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import UnavailableError
from headway.core.tolerance import PRECISION
from headway.runtime import load
from headway.runtime.backends.base import engines_for
from tests.alone import worst

lengths = st.integers(1, 48)
ids = st.integers(1, 90)
texts = lengths.flatmap(lambda n: st.lists(ids, min_size=n, max_size=n))


@pytest.mark.parametrize("engine", engines_for("cpu"))
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_text_alone_is_as_among_others(precision: str, engine: str, bundle: Path) -> None:
    try:
        pipe: Any = load(bundle, precision=precision, backend=engine, threads=1)
    except UnavailableError as error:
        pytest.skip(str(error))

    @settings(max_examples=8)
    @given(st.lists(texts, min_size=2, max_size=8))
    def compare(batch: list[list[int]]) -> None:
        assert worst(pipe, batch) <= PRECISION[precision].neighbours

    compare()
