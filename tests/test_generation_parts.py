"""Many sources on several threads: each is what it is on one, in its place."""

import pytest

from headway.core.errors import InputError
from headway.core.search import Search
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
