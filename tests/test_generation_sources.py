"""What was read of sources before: the same logits as when they are read anew, and less that is read."""

from typing import Any

import numpy as np
import pytest

from headway.core.errors import UsageError
from headway.runtime.generation.engine import Engine
from headway.runtime.generation.sources import Sources
from tests.test_generation_graphs import SOURCES, START, assert_close, engine, graph_files


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_sources_are_encoded_once(name: str) -> None:
    keeping = Engine(graph_files(name), threads=1, kept=3)
    encoded: list[int] = []
    encode = keeping._encode
    keeping._encode = lambda ids, mask: encoded.append(len(ids)) or encode(ids, mask)  # type: ignore[method-assign]
    for batch in (SOURCES[:2], SOURCES[1:3], SOURCES[:3], SOURCES[3:], SOURCES[:1]):
        wanted = engine(name).begin(batch, START)
        found = keeping.begin(batch, START)
        assert_close(found[1], wanted[1])
        ids = np.full((len(batch), 1), 14)
        assert_close(found[0].step(ids), wanted[0].step(ids))
    assert encoded == [2, 1, 1, 1]


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_beginnings_of_prompts_are_read_once(name: str) -> None:
    keeping = Engine(graph_files(name), threads=1, kept=4)
    read: list[Any] = []
    long = [5, 9, 33, 21, 8, 40, 7, 17, 2]
    batches = [[long[:6]], [long], [long], [[*long[:7], 30, 31], [*long, 4, 6, 7]], [[11, 12], long[:3]]]
    for batch in batches:
        wanted, expected = engine(name).begin(batch, START)
        decoding, logits = keeping.begin(batch, START)
        assert_close(logits, expected)
        read.append(decoding._bound["input_ids"].shape[1])
        for token in (14, 52):
            ids = np.full((len(batch), 1), token)
            assert_close(decoding.step(ids), wanted.step(ids))
    assert read == [6, 3, 1, 3, 2]


def test_those_used_last_are_kept() -> None:
    kept = Sources(2)
    for source in ([1, 2], [3, 4], [5]):
        kept.put(source, {"past.0.key": np.full((1, len(source), 1), source[0])})
        kept.get([3, 4])
    assert [kept.get(source) is not None for source in ([1, 2], [3, 4], [5])] == [False, True, True]
    assert (len(kept), kept.beginning([3, 9])[0], kept.beginning([9])) == (2, 1, (0, {}))
    with pytest.raises(UsageError, match="cache: must hold at least 1 source, not -1"):
        Sources(-1)
