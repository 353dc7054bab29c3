"""Many sources on several threads: each is what it is on one, in its place."""

import time
from typing import Any

import pytest

from headway.core.errors import InputError
from headway.core.search import Search
from headway.runtime.generation import search as searching
from headway.runtime.generation.batch import Batch
from headway.runtime.generation.engine import Engine
from headway.runtime.generation.search import search
from tests.test_generation_graphs import END, SOURCES, START, engine, graph_files


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_parts_on_threads_of_their_own(name: str) -> None:
    parallel = Engine(graph_files(name), threads=2, kept=3)
    own = Search(num_beams=3, max_new_tokens=8, decoder_start_token_id=START, eos_token_id=[END])
    many = [*SOURCES, *SOURCES[::-1], [7, 9]]
    for sources in (many, many[:4], many[:3], many[:1]):
        alone = [search(engine(name), [source], own, str)[0] for source in sources]
        found = search(parallel, sources, own, str)
        assert [[h.tokens for h in every] for every in found] == [
            [h.tokens for h in every] for every in alone
        ]
    assert parallel.on_one_thread.threads == 1
    with pytest.raises(InputError, match="input 3: it has no tokens"):
        search(parallel, [[5], [6], [7], [], [8]], own, str)
    assert search(parallel, [], own, str) == []


def test_after_an_error_nobody_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel, steps = Engine(graph_files("gpt2"), threads=2), []
    own = Search(max_new_tokens=50, min_new_tokens=50, eos_token_id=[END])

    class Failing(Batch):
        def add(self, sources: Any, settings: Search) -> list[int]:
            self.long = [11] in sources
            return super().add(sources, settings)

        def step(self) -> list[int]:
            if not self.long:
                raise RuntimeError("the engine failed")
            time.sleep(0.01)  # so that the caller has a turn, even on one processor
            steps.append(super().step())
            return steps[-1]

    monkeypatch.setattr(searching, "Batch", Failing)
    with pytest.raises(RuntimeError, match="the engine failed"):
        search(parallel, [[7], [11], [12], [13]], own, str)
    parallel.workers.shutdown()
    assert len(steps) < 50
