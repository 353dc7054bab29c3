"""The search, and the plain one in numpy, equal `generate()`: on tables of scores with any settings, and on every architecture."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from transformers.modeling_outputs import CausalLMOutputWithPast

from headway.core.errors import InputError, UnavailableError, UsageError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.cpp_ext import Searcher
from headway.export import generation_settings
from headway.runtime.generation.batch import Batch, prompts
from headway.runtime.generation.search import search
from tests import plain_search
from tests.plain_rules import Allowed, packed
from tests.test_generation_graphs import DECODERS, END, PAD, SIZES, SOURCES, engine, opened
from tests.tolerance import MODEL, NEIGHBOURS

WORDS = 13
"""tokens of a table"""


class Table:
    """Scores of the next token, looked up by the last three tokens and how many there are."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.last = random.normal(0, 1.5, (3, WORDS, WORDS)).astype(np.float32)
        self.place = random.normal(0, 1, (64, WORDS)).astype(np.float32)

    def logits(self, tokens: Any) -> Any:
        found = self.place[tokens.shape[1]][None]
        for back in range(min(3, tokens.shape[1])):
            found = found + self.last[back, tokens[:, -1 - back]]
        return found


class TableModel(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A table as a model of transformers."""

    config_class = transformers.GPT2Config
    main_input_name = "input_ids"

    def __init__(self, table: Table) -> None:
        super().__init__(transformers.GPT2Config(vocab_size=WORDS, bos_token_id=None, eos_token_id=None))
        self.generation_config.use_cache = False  # every step brings all tokens
        self.table, self.weight = table, torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **_: Any) -> Any:
        logits = torch.from_numpy(self.table.logits(input_ids.numpy()))
        return CausalLMOutputWithPast(logits=logits[:, None])


class TableEngine:
    """A table as a decoder alone; its state is the tokens of every row."""

    with_encoder, vocabulary, longest, threads = False, WORDS, None, 1

    def __init__(self, table: Table) -> None:
        self.table, self.ran = table, []

    def begin(self, sources: Any, start: int) -> Any:
        rows = [np.array([source]) for source in sources]
        return TableDecoding(self, rows), np.concatenate([self.table.logits(row) for row in rows])

    def search(self, *_: Any) -> None:
        """The processor chooses."""


def settled(engine: Any, source: list[int], settings: Search, lexicon: Any = None) -> Iterator[list[int]]:
    """Tokens of the best hypothesis, in pieces, each as soon as nothing can change it any more."""
    batch, told = Batch(engine, lexicon), 0
    (key,) = batch.add([source], settings)
    while len(batch):
        batch.step()
        tokens = batch.settled(key)
        yield tokens[told:]
        told = len(tokens)


class TableDecoding:
    def __init__(self, engine: TableEngine, rows: Any) -> None:
        self.engine, self.rows = engine, rows

    def step(self, ids: Any, parents: Any) -> Any:
        self.rows = [np.append(self.rows[i], [own], axis=1) for i, own in zip(parents, ids, strict=True)]
        self.engine.ran.append(len(self.rows))
        return np.concatenate([self.engine.table.logits(row) for row in self.rows])


def generated(model: Any, source: list[int], settings: dict[str, Any]) -> tuple[list[list[int]], list[float]]:
    """Tokens after the prompt, up to and with the first end token, and scores, by transformers."""
    ids = torch.tensor([source])
    said = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    prompt = 1 if model.config.is_encoder_decoder else len(source)
    ends = settings.get("eos_token_id", [END])
    found = []
    for row in said.sequences[:, prompt:].tolist():
        last = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        assert set(row[last:]) <= {PAD, ends[0]}  # beams end with the latter where the padding token is 0
        found.append(row[:last])
    if settings.get("num_beams", 1) > 1:
        return found, said.sequences_scores.tolist()
    logs = [torch.log_softmax(s[0], -1)[t].item() for s, t in zip(said.scores, found[0], strict=True)]
    return found, [sum(logs)]


def assert_equal(found: Any, model: Any, source: list[int], settings: dict[str, Any]) -> None:
    tokens, scores = generated(model, source, settings)
    assert [h.tokens for h in found] == tokens[: len(found)]
    rtol, atol = MODEL["fp32"]
    np.testing.assert_allclose([h.score for h in found], scores[: len(found)], rtol=rtol, atol=atol)
    assert all(score < -1e6 for score in scores[len(found) :])  # its fillers, where all else is forbidden


@st.composite
def any_settings(draw: Any) -> dict[str, Any]:
    """Settings under names of `generate()`, that leave more tokens than are forbidden."""
    token = st.integers(1, WORDS - 1)
    found: dict[str, Any] = {
        "max_new_tokens": draw(st.integers(1, 10)),
        "num_beams": draw(st.integers(1, 6)),
        "eos_token_id": draw(st.lists(token, min_size=1, max_size=2, unique=True)),
        "pad_token_id": PAD,
    }
    few = st.lists(token, min_size=1, max_size=2)
    optional = {
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "repetition_penalty": st.sampled_from([0.7, 1.3, 2.0]),
        "no_repeat_ngram_size": st.integers(1, 3),
        "bad_words_ids": st.lists(st.lists(token, min_size=1, max_size=3), min_size=1, max_size=3),
        "suppress_tokens": few,
        "begin_suppress_tokens": few,
        "forced_bos_token_id": token,
        "forced_eos_token_id": st.just(found["eos_token_id"][0]),
        "renormalize_logits": st.just(True),
        "min_length": st.integers(0, 5),
        "min_new_tokens": st.integers(0, found["max_new_tokens"]),
        "num_return_sequences": st.integers(1, found["num_beams"]),
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)), max_size=5)):
        found[name] = draw(optional[name])
    if found.get("no_repeat_ngram_size") == 1:  # or there would be no token left
        found["max_new_tokens"] = min(found["max_new_tokens"], 4)
        found["min_new_tokens"] = 0
    forced = {found.get("forced_bos_token_id"), found.get("forced_eos_token_id")}
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if forced & {*found.get(name, [])}:
            del found[name]
    if draw(st.booleans()) and "min_new_tokens" not in found:
        found["max_length"] = found.pop("max_new_tokens") + 4
    if found["num_beams"] == 1:
        for name in ("length_penalty", "early_stopping"):
            found.pop(name, None)  # which transformers warns of
    return found


@profile(max_examples=200)
@given(
    st.integers(0, 10**6),
    any_settings(),
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_any_settings(seed: int, settings: dict[str, Any], prompts: list[list[int]]) -> None:
    """Prompts together here, each alone in transformers."""
    table = Table(seed)
    model = TableModel(table)
    own = Search().changed(**{n: v for n, v in settings.items() if n != "pad_token_id"})
    for found in (one(TableEngine(table), prompts, own, str) for one in (search, plain_search.search)):
        for hypotheses, prompt in zip(found, prompts, strict=True):
            assert hypotheses
            assert_equal(hypotheses, model, prompt, settings)


GRID: list[dict[str, Any]] = [
    {"max_new_tokens": 14},
    {"max_new_tokens": 14, "num_beams": 4},
    {"max_new_tokens": 12, "no_repeat_ngram_size": 1, "repetition_penalty": 1.4},
    {"max_new_tokens": 12, "num_beams": 4, "num_return_sequences": 3, "no_repeat_ngram_size": 2},
    {
        "max_new_tokens": 10,
        "num_beams": 3,
        "length_penalty": -1.0,
        "early_stopping": True,
        "min_new_tokens": 4,
    },
    {
        "max_length": 20,
        "num_beams": 2,
        "early_stopping": "never",
        "length_penalty": 2.0,
        "suppress_tokens": [7],
    },
    {"max_new_tokens": 8, "num_beams": 5, "bad_words_ids": [[9], [31, 8]], "forced_eos_token_id": END},
]


@pytest.mark.parametrize("name", SIZES)
def test_architectures(name: str) -> None:
    """Sources of many lengths together here, each alone in transformers."""
    model, own = opened(name).model, generation_settings.read(opened(name))
    written: set[int] = set()
    for settings in GRID:
        together = search(engine(name), SOURCES, own.changed(**settings), str)
        for hypotheses, source in zip(together, SOURCES, strict=True):
            assert_equal(hypotheses, model, source, settings)
            written.update(hypotheses[0].tokens)
    assert len(written) >= 15, "one token again and again would prove little"


@pytest.mark.parametrize("name", SIZES)
def test_alone_equals_in_a_batch(name: str) -> None:
    own = generation_settings.read(opened(name)).changed(
        max_new_tokens=12, num_beams=4, num_return_sequences=4
    )
    together = search(engine(name), SOURCES, own, str)
    for hypotheses, source in zip(together, SOURCES, strict=True):
        (alone,) = search(engine(name), [source], own, str)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        rtol, atol = NEIGHBOURS["fp32"]
        scores = [h.score for h in hypotheses]
        np.testing.assert_allclose([h.score for h in alone], scores, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
@pytest.mark.parametrize("settings", [GRID[i] for i in (0, 1, 3, 4)])
def test_only_what_is_allowed(name: str, settings: dict[str, Any]) -> None:
    """Tokens that may come, by those before, are those of prefix_allowed_tokens_fn."""
    machine, model = engine(name), opened(name).model
    own = generation_settings.read(opened(name)).changed(**settings)
    allowed = Allowed(6, machine.vocabulary, 0.3)

    def allow(_: int, tokens: torch.Tensor) -> list[int]:
        return np.flatnonzero(allowed.row(tokens.tolist())).tolist()

    for source in SOURCES:
        searcher, ((prompt, longest),) = Searcher(machine.vocabulary), prompts(machine, [source], own)
        key = searcher.add(np.array(prompt), own, longest, own.shortest(len(prompt)))
        decoding, logits = machine.begin([source], own.decoder_start_token_id or 0)
        held = [list(prompt)]
        while held:
            searcher.advance(logits, packed(allowed.rows(held)))
            tokens, parents = searcher.tokens, searcher.parents
            held = [[*held[i], token] for i, token in zip(parents, tokens.tolist(), strict=True)]
            if held:
                logits = decoding.step(tokens[:, None], parents)
        found = [Hypothesis("", score, tokens) for tokens, score, _ in searcher.found(key)]
        assert_equal(found, model, source, {**settings, "prefix_allowed_tokens_fn": allow})


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama"])
def test_batches_of_transformers(name: str) -> None:
    """What transformers makes of the same padded batch, where padding does not change what its settings do."""
    model, own = opened(name).model, generation_settings.read(opened(name))
    left = name in DECODERS
    width = max(map(len, SOURCES))
    pads = [[PAD] * (width - len(s)) for s in SOURCES]
    ids = torch.tensor([p + s if left else s + p for p, s in zip(pads, SOURCES, strict=True)])
    mask = torch.tensor(
        [
            [0] * len(p) + [1] * len(s) if left else [1] * len(s) + [0] * len(p)
            for p, s in zip(pads, SOURCES, strict=True)
        ]
    )
    for settings in ({"max_new_tokens": 14}, {"max_new_tokens": 14, "num_beams": 4, "length_penalty": 0.5}):
        said = model.generate(ids, attention_mask=mask, do_sample=False, **settings)
        found = search(engine(name), SOURCES, own.changed(**settings), str)
        for row, (best, *_) in zip(said[:, width if left else 1 :].tolist(), found, strict=True):
            assert row[: len(best.tokens)] == best.tokens
            assert set(row[len(best.tokens) :]) <= {PAD, END}


def test_finished_sentences_do_not_run_on() -> None:
    table = Table(5)
    prompts = [[1], [2], [3], [4], [5]]
    machine = TableEngine(table)
    found = search(machine, prompts, Search(max_new_tokens=30, eos_token_id=[2, 5, 7, 8]), str)
    lengths = [len(h.tokens) for (h,) in found]
    assert len(set(lengths)) > 1
    assert machine.ran == [sum(n > step for n in lengths) for step in range(1, max(lengths))]


def test_texts_are_decoded() -> None:
    ((hypothesis,),) = search(TableEngine(Table(1)), [[3]], Search(max_new_tokens=2), lambda ids: f"<{ids}>")
    assert hypothesis.text == f"<{hypothesis.tokens}>"
    assert search(TableEngine(Table(1)), [], Search(), str) == []


@given(st.lists(st.sampled_from([-np.inf, -2.0, 0.0, 0.5, 3.0]), min_size=1, max_size=30), st.data())
def test_top_takes_the_first_of_equals(values: list[float], data: Any) -> None:
    count = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert plain_search.top(np.array(values, np.float32), count).tolist() == expected


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 10**9}, "num_beams: must be at most 1024, not 1000000000"),
        ({"max_new_tokens": 10**30}, "max_new_tokens: must be at most 2147483647"),
        ({"length_penalty": 1e6}, "length_penalty: must be from -30 to 30"),
        ({"length_penalty": math.nan}, "length_penalty: must be from -30 to 30"),
        ({"repetition_penalty": math.inf}, "repetition_penalty"),
        ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"bad_words_ids": [[]]}, "bad_words_ids"),
        ({"forced_eos_token_id": 2, "suppress_tokens": [2, 3]}, "forced_eos_token_id"),
        ({"max_length": 3, "min_length": 4}, "min_length"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beam_groups: 3 do not divide num_beams, 4"),
        ({"num_beams": 4, "num_beam_groups": 2, "do_sample": True}, "num_beam_groups"),
        ({"diversity_penalty": 0.5}, "diversity_penalty"),
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "temperature": math.nan}, "temperature"),
        ({"do_sample": True, "top_k": -1}, "top_k"),
        ({"do_sample": True, "top_p": 0.0}, "top_p"),
        ({"do_sample": True, "typical_p": 1.5}, "typical_p"),
        ({"min_p": 2.0}, "min_p"),
        ({"seed": -1}, "seed"),
        ({"encoder_no_repeat_ngram_size": -1}, "encoder_no_repeat_ngram_size"),
        ({"penalty_alpha": 0.6}, "penalty_alpha"),
        ({"num_beams": "two"}, "num_beams"),
        ({"early_stopping": "soon"}, "early_stopping"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=names):
        Search().changed(**settings)


def test_what_does_not_fit_the_model_is_refused_before_the_first_step() -> None:
    machine = TableEngine(Table(1))
    with pytest.raises(UsageError, match="suppress_tokens: the model has no token 13"):
        search(machine, [[1]], Search(suppress_tokens=[WORDS]), str)
    with pytest.raises(UsageError, match="max_length: 3 leaves no room"):
        search(machine, [[1, 2, 3]], Search(max_length=3), str)
    with pytest.raises(InputError, match="input 1: it has no tokens"):
        search(machine, [[1], []], Search(), str)
    machine.longest = 3
    with pytest.raises(InputError, match="input 0: 3 tokens leave no room"):
        search(machine, [[1, 2, 3]], Search(), str)
    with pytest.raises(UsageError, match="decoder_start_token_id"):
        search(engine("t5"), [[1]], Search(), str)
    assert machine.ran == []


def with_settings(**settings: Any) -> Any:
    config = transformers.GenerationConfig(**settings)
    shape = SimpleNamespace(is_encoder_decoder=True)
    return SimpleNamespace(folder="some", model=SimpleNamespace(generation_config=config, config=shape))


def test_settings_are_read_from_the_model() -> None:
    given = {
        "num_beams": 4,
        "length_penalty": 2.0,
        "eos_token_id": 2,
        "bad_words_ids": [[5, 6]],
        "bos_token_id": 3,
    }
    found = generation_settings.read(with_settings(**given, temperature=0.3, do_sample=True, top_k=5))
    expected = {
        "eos_token_id": [2],
        "decoder_start_token_id": 3,
        "num_beams": 4,
        "temperature": 0.3,
        "top_k": 5,
    }
    assert found == Search().changed(length_penalty=2.0, bad_words_ids=[[5, 6]], **expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"stop_strings": ["."]},
        {"sequence_bias": [[[5], 2.0]]},
        {"exponential_decay_length_penalty": (3, 1.1)},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"force_words_ids": [[3]]},
        {"max_time": 1.0},
        {"something_new": 1},
    ],
)
def test_settings_that_are_not_known_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError, match=next(iter(settings))):
        generation_settings.read(with_settings(**settings))


def test_values_that_change_nothing_are_accepted() -> None:
    defaults = transformers.GenerationConfig._get_default_generation_params()
    found = generation_settings.read(with_settings(**defaults))
    assert found == Search(max_length=20)
