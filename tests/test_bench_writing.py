"""Benchmarks of models that write: every writer gives what is asked, and no figure for one that does not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.bench import bandwidth, beams, shapes, suggestions
from headway.bench.memory import Size
from headway.bench.soak import KINDS, growth, sizes
from headway.bench.writers import generate
from headway.bench.writers.base import Found, Hypothesis, Ids, Wish, load_writer, told, up_to_end
from headway.bench.writing import Name, Record, compare, names
from headway.bench.writing_worker import Question, problem, timed
from headway.core.errors import MeasurementError, UsageError

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 90}
        | {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
    ),
    "bart": (
        "BartForConditionalGeneration",
        {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 48}
        | {"decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
        | {"vocab_size": 90, "bos_token_id": 0, "pad_token_id": 2, "eos_token_id": 1}
        | {"decoder_start_token_id": 1, "forced_eos_token_id": None, "max_position_embeddings": 64},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 90}
        | {"bos_token_id": 0, "pad_token_id": 2, "eos_token_id": 1},
    ),
}
SOURCES = np.random.default_rng(0).integers(shapes.SPECIAL, 90, (3, 7)).tolist()
BEAMS = Question("beams", Wish(beams=3, returned=2, new=6, least=6), [SOURCES[:1], SOURCES], repeats=1)
NEXT = Question("next", Wish(beams=4, returned=4, new=1), [[s] for s in SOURCES], repeats=1)
HERE = [name for name in ("generate", "headway", "ctranslate2") if name != "ctranslate2" or find_spec(name)]
"""writers that need no environment of their own"""
QUICK = {("generate", "t5"), ("headway", "gpt2"), ("ctranslate2", "bart"), ("ctranslate2", "gpt2")}


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "SHAPES", TINY)
        yield


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    shapes.write(request.param, folder)
    return folder


def answers(write: Any, question: Question) -> list[Found]:
    return [write(request) for request in question.requests]


def reference(checkpoint: Path, question: Question) -> list[Found]:
    subject = generate.open_subject(checkpoint, "fp32", checkpoint, threads=1)
    return answers(subject.ways(question.wish, scored=True)["generate()"], question)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.grid)
        for name in HERE
        for kind in TINY
    ],
)
def test_every_way_of_every_writer_writes_what_is_asked(name: str, kind: str, tmp_path: Path) -> None:
    writer, checkpoint = load_writer(name), tmp_path / "checkpoint"
    checkpoint.mkdir()
    shapes.write(kind, checkpoint)
    for precision in writer.PRECISIONS:
        folder = tmp_path / precision
        folder.mkdir()
        writer.prepared(checkpoint, precision, folder)
        subject = writer.open_subject(checkpoint, precision, folder, threads=1)
        for question in (BEAMS, NEXT) if not told(checkpoint)["is_encoder_decoder"] else (BEAMS,):
            expected = reference(checkpoint, question)
            for scored in (True, False):
                for way, write in subject.ways(question.wish, scored=scored).items():
                    found = answers(write, question)
                    exact = scored and precision in writer.EXACT
                    assert problem(question.wish, found, expected, exact) is None, (precision, way)
                    assert (
                        scored
                        or precision == "int8"
                        or tokens(found)
                        == tokens(answers(subject.ways(question.wish, scored=True)[way], question))
                    )
        if name == "headway":
            assert subject.engine_seconds() > 0  # type: ignore[operator]


def tokens(found: Sequence[Found]) -> list[list[list[list[int]]]]:
    return [[[h.tokens for h in hypotheses] for hypotheses in request] for request in found]


def test_weights_of_a_step(checkpoint: Path) -> None:
    model = generate.opened(checkpoint)
    biases = {"t5": 0, "bart": 1, "gpt2": 1}[model.config.model_type]
    square, wide = 32 * (32 + biases), 32 * 48 * 2 + biases * (32 + 48)
    layer = {"t5": 6 * square + wide, "bart": 6 * square + wide, "gpt2": 4 * square + 32 * 128 * 2 + 32 + 128}
    norms = {"t5": 3 * 32, "bart": 6 * 32, "gpt2": 4 * 32}[model.config.model_type]
    outside = {"t5": 32, "bart": 64, "gpt2": 64}[model.config.model_type]
    expected = 2 * (layer[model.config.model_type] + norms) + outside + 90 * 32
    assert generate.step_weights(model) == expected


GOOD = [[[Hypothesis([5, 6], -1.0), Hypothesis([5, 7], -1.1)]]]
WISH = Wish(beams=2, returned=2, new=2, least=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[[Hypothesis([5, 6], -1.0)]]], "gave 1 hypotheses, not 2"),
        ([[[Hypothesis([5], -1.0), Hypothesis([5, 7], -1.1)]]], "wrote 1 tokens, not 2 to 2"),
        ([[[Hypothesis([5, 6], -1.0), Hypothesis([5, 7], float("nan"))]]], "gave a score of nan"),
        ([[[Hypothesis([5, 6], -1.0), Hypothesis([5, 8], -1.2)]]], "wrote other tokens than generate()"),
    ],
)
def test_what_was_not_asked_for_is_no_answer(given: list[Found], said: str) -> None:
    assert problem(WISH, GOOD, GOOD, exact=True) is None
    wrong = problem(WISH, given, GOOD, exact=True)
    assert wrong is not None
    assert wrong.startswith(said)


def test_hypotheses_of_equal_scores_may_change_places() -> None:
    other: list[Found] = [[[Hypothesis([5, 6], -1.00001), Hypothesis([5, 9], -1.10001)]]]
    assert problem(WISH, other, GOOD, exact=True) is None
    other = [[[Hypothesis([5, 6], -1.0), Hypothesis([5, 9], -1.2)]]]
    assert problem(WISH, other, GOOD, exact=False) is None


class Fixed:
    """A subject that always says the same, one way slower than the other."""

    def __init__(self, said: Found) -> None:
        self.said, self.asked = said, 0

    def ways(self, wish: Wish, scored: bool) -> dict[str, Any]:
        return {"slow": lambda request: sorted(range(200_000)) and self.say(request), "fast": self.say}

    def say(self, request: Ids) -> Found:
        self.asked += 1
        return self.said

    def engine_seconds(self) -> None:
        return None


def test_the_fastest_way_is_timed() -> None:
    subject, question = Fixed(GOOD[0]), Question("q", WISH, [[[5]]], repeats=4)
    found = timed(subject, question, GOOD, exact=True)
    assert (found.way, len(found.ms), found.same, found.engine_ms) == ("fast", 4, 1.0, None)
    assert subject.asked == 2 + 2 * 2 + 4  # checked, tried twice, timed


def test_other_tokens_are_not_timed() -> None:
    subject = Fixed([[Hypothesis([9, 9], -7.0), Hypothesis([9, 8], -8.0)]])
    with pytest.raises(MeasurementError, match="^measuring q slow failed: wrote other tokens than generate"):
        timed(subject, Question("q", WISH, [[[5]]], repeats=4), GOOD, exact=True)
    assert subject.asked == 1


def test_an_engine_that_nobody_sees_is_not_told_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Fixed(GOOD[0])
    monkeypatch.setattr(subject, "engine_seconds", lambda: 0.5)
    with pytest.raises(MeasurementError, match="no run of the engine was seen"):
        timed(subject, Question("q", WISH, [[[5]]], repeats=1), GOOD, exact=True)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """In fresh processes: headway, and a peer that cannot be opened."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWAY_OPTIMUM_PYTHON", sys.executable)  # which has it not
        patch.setattr(bandwidth, "BYTES", 1 << 20)
        subjects = [Name("headway", "fp32"), Name("optimum-onnx", "fp32"), Name("generate", "fp32")]
        return compare("gpt2", [BEAMS, NEXT], subjects, work, threads=1, rounds=1)


def test_a_comparison_has_sane_figures(record: Record) -> None:
    assert [(r.subject, r.question) for r in record.rows] == [
        (subject, question) for question in ("beams", "next") for subject in ("headway fp32", "generate fp32")
    ]
    for row in record.rows:
        assert 0 < row.ms.least <= row.ms.median <= row.ms.most
        assert row.ms.median <= row.p99_ms.median
        assert row.same == 1
        assert row.subject == "generate fp32" if row.between is None else 0 < row.between < 1
    assert record.bytes_per_second.least > 0
    assert record.step_weights > 90 * 32


def test_a_peer_that_fails_is_told_in_its_place(record: Record) -> None:
    assert list(record.problems) == ["optimum-onnx fp32"]
    assert record.problems["optimum-onnx fp32"].startswith("cannot be prepared: ")
    assert "| optimum-onnx fp32 | cannot be prepared: " in suggestions.report(record)


def test_headways_own_failure_ends_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(MeasurementError, match="^measuring generate fp32 failed: "):
        compare("gpt2", [NEXT], [Name("headway", "fp32")], tmp_path, threads=1, rounds=1)


def test_reports(record: Record) -> None:
    text = suggestions.report(record)
    assert (
        "| subject | question | median, ms | p99, ms | between runs | best peer ÷ it | same | way |" in text
    )
    assert "| headway fp32 | next | " in text
    assert "| generate fp32 | next | " in text
    assert "1.00×" in text
    assert "Shape of gpt2, random weights, 1 threads, 1 rounds" in text


def test_beams_are_told_by_tokens_and_memory(record: Record) -> None:
    asked = beams.questions("t5")
    assert [len(q.requests[0]) for q in asked] == [1, 8]
    assert all(len(source) == beams.SOURCE for q in asked for r in q.requests for source in r)
    assert asked[1].requests[0][:1] == asked[0].requests[0]
    second = msgspec.structs.replace(record.rows[0].ms, median=1000.0)
    row = msgspec.structs.replace(record.rows[0], question="8 sources", ms=second)
    speed = msgspec.structs.replace(record.bytes_per_second, median=4.0 * 64 * record.step_weights * 2)
    told = beams.report(msgspec.structs.replace(record, rows=[row], bytes_per_second=speed))
    assert "| 512 | 50% |" in told  # 8 × 64 tokens in a second, 64 readings of all weights in fp32


def test_suggestions_ask_the_same_of_both() -> None:
    following, further = suggestions.questions("gpt2")
    assert following.requests == further.requests
    assert (following.wish.new, further.wish.new) == (1, 3)
    assert len(following.requests) == suggestions.REQUESTS


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("SHAPES", ("gpt2",)), ("REQUESTS", 2), ("PREFIX", 5)):
        monkeypatch.setattr(suggestions, name, value)
    monkeypatch.setattr(bandwidth, "BYTES", 1 << 20)
    options = ["--work", tmp_path, "--output", tmp_path / "out.json", "--rounds", 1, "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["suggestions", *map(str, options), "--against", "headway/int8"])
    suggestions.main()
    written = json.loads((tmp_path / "out.json").read_text())
    said = capsys.readouterr()
    assert [row["subject"] for row in written["rows"]] == ["headway int8"] * 2
    assert "| headway int8 | continuations |" in said.out
    assert "measuring 1/1: headway int8" in said.err


def test_names_of_subjects() -> None:
    assert names("ctranslate2/int8,headway") == [
        Name("headway", "fp32"),
        Name("headway", "int8"),
        Name("headway", "int8-weights"),
        Name("ctranslate2", "int8"),
    ]
    every = {"ctranslate2", "generate", "headway", "optimum-intel", "optimum-onnx"}
    assert {name.writer for name in names(None)} == every
    with pytest.raises(UsageError, match="^--against: generate has no 'int3'; it has fp32, bf16"):
        names("generate/int3")
    with pytest.raises(UsageError, match="^--against: unknown 'snails'"):
        names("snails")


def test_what_follows_an_end_is_padding() -> None:
    assert up_to_end([5, 1, 2, 2], 1) == [5, 1]
    assert up_to_end([5, 6], 1) == [5, 6]
    assert up_to_end([5, 6], None) == [5, 6]


def test_reading_memory() -> None:
    assert bandwidth.reading(2, 1 << 20) > 0


class Texts:
    """A pipeline that counts what it is asked."""

    def __init__(self) -> None:
        self.settings: list[dict[str, Any]] = []
        self.closed = 0

    def __call__(self, texts: list[str], **settings: Any) -> list[str]:
        self.settings.append(settings)
        return texts

    def write(self, text: str, **settings: Any) -> Iterator[str]:
        try:
            yield from [text] * settings["max_new_tokens"]
        finally:
            self.closed += 1


def test_a_soak_mixes_everything() -> None:
    pipe = Texts()
    found = list(sizes(pipe, ["where", "is", "it"], generations=200, threads=2))
    assert [size.requests for size in found] == list(range(0, 201, 20))
    assert found[-1].texts > 200
    assert pipe.closed > 30
    for kind in KINDS:
        assert any(kind.items() <= settings.items() for settings in pipe.settings)
    assert all(s["min_new_tokens"] <= s["max_new_tokens"] for s in pipe.settings)


def test_growth() -> None:
    def of(*megabytes: float) -> list[Size]:
        return [Size(i, i, mb) for i, mb in enumerate(megabytes)]

    assert growth(of(50, 70, 80, 80, 80, 80)) == 0
    assert growth(of(50, 70, 80, 80, 80, 88)) == pytest.approx(0.1)
    assert growth(of(50, 99, 80, 80, 80, 80)) == 0
