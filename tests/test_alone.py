"""Alone equals in a batch, for each precision of a bundle and each engine that opens it; all tasks: `python -m tests.alone`."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.tolerance import PRECISION
from headway.runtime import load
from headway.runtime.backends.base import engines_for
from tests.alone import worst

lengths = st.integers(1, 48)
ids = st.integers(1, 90)
texts = lengths.flatmap(lambda n: st.lists(ids, min_size=n, max_size=n))


CASES = [(p, e) for p in ("fp32", "int8") for e in engines_for("cpu") if (p, e) != ("int8", "openvino")]
"""all but what OpenVINO cannot open, which `test_backend_openvino` tells"""


@pytest.mark.parametrize(("precision", "engine"), CASES)
def test_a_text_alone_is_as_among_others(precision: str, engine: str, bundle: Path) -> None:
    pipe: Any = load(bundle, precision=precision, backend=engine, threads=1)

    @settings(max_examples=8)
    @given(st.lists(texts, min_size=2, max_size=8))
    def compare(batch: list[list[int]]) -> None:
        assert worst(pipe, batch) <= PRECISION[precision].neighbours

    compare()
