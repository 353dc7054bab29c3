"""What a bundle generates without any setting in the call is what `generate()` does, whatever form the files have."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from headway.core.errors import (
    CheckpointError,
    EndToEndError,
    GateError,
    InputError,
    UnavailableError,
    UsageError,
)
from headway.core.manifest import Bundle
from headway.export import generation_settings
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import Pipeline, load
from headway.train import checkpoint
from tests.test_architectures import DECODERS, ENCODER_DECODERS, model_of

TEXTS = ["Where is my parcel?", "refund", "I want my money back, and soon.", "It does not work."]
AUTO = dict.fromkeys(ENCODER_DECODERS, transformers.AutoModelForSeq2SeqLM) | dict.fromkeys(
    DECODERS, transformers.AutoModelForCausalLM
)
OF_ARTICLES: dict[str, Any] = {"num_beams": 4, "max_length": 28, "min_length": 6, "length_penalty": 2.0,
    "no_repeat_ngram_size": 3, "early_stopping": True}  # fmt: skip
"""as BART's of CNN articles has them"""


def folder_of(kind: str, form: str, settings: dict[str, Any], folder: Path) -> Path:
    """A tiny model whose settings lie in generation_config.json ("new"), or in config.json ("old")."""
    torch.manual_seed(0)
    made = model_of(kind, AUTO[kind], folder)
    if kind == "qwen2":  # its class of tokenizer adds a token
        model = AUTO[kind].from_pretrained(made)
        model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(made)))
        model.save_pretrained(made)
    new, old = made / "generation_config.json", made / "config.json"
    if form == "new":
        new.write_text(json.dumps(json.loads(new.read_text()) | settings))
        return made
    if new.exists():
        new.unlink()
    old.write_text(json.dumps(json.loads(old.read_text()) | settings))
    return made


QUICK = ("bart", "t5", "gpt2", "llama")
"""kinds of which the suite always runs all"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=() if kind in QUICK else pytest.mark.grid)
        for kind in (*ENCODER_DECODERS, *DECODERS)
    ],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Of each kind a folder with settings in generation_config.json, and its bundle."""
    return Made.of(request.param, tmp_path_factory.mktemp(request.param))


@dataclass(frozen=True)
class Made:
    kind: str
    folder: Path
    bundle: Path

    @staticmethod
    def of(kind: str, folder: Path) -> Made:
        model = folder_of(kind, "new", OF_ARTICLES, folder / "model")
        export(model, ExportOptions(output=folder / "bundle", precision="fp32", threads=1))
        return Made(kind, model, folder / "bundle")

    def opened(self, folder: Path, out: Path) -> tuple[Any, Any, Pipeline]:
        """The model and tokenizer of a folder as Transformers opens them, and a bundle with the folder's settings.

        Only what a manifest has of them is made again: the graphs are the same.
        """
        shutil.copytree(self.bundle, out, copy_function=os.link)
        declared = Bundle.read(out)
        opened = checkpoint.open_foreign(folder, declared.task, [])
        found = (generation_settings.read(opened), opened.spec.settings)
        search, settings = (msgspec.to_builtins(part) for part in found)
        (out / "headway.json").unlink()
        msgspec.structs.replace(declared, search=search, settings=settings).write(out)
        model = AUTO[self.kind].from_pretrained(folder).eval()
        return model, AutoTokenizer.from_pretrained(folder), load(out, threads=1)


def generated(model: Any, tokenizer: Any, text: str, **settings: Any) -> list[int]:
    given = tokenizer(text, return_tensors="pt")
    given.pop("token_type_ids", None)
    with torch.no_grad():
        found = model.generate(**given, **settings)
    return list(found[0, 1 if model.config.is_encoder_decoder else given["input_ids"].shape[1] :].tolist())


def tokens(pipe: Any, text: str, **settings: Any) -> list[int]:
    return list(pipe(text, **settings).hypotheses[0].tokens)


@pytest.mark.parametrize("form", ["new", "old"])
def test_defaults_are_those_of_generate(form: str, made: Made, tmp_path: Path) -> None:
    folder = folder_of(made.kind, form, OF_ARTICLES, tmp_path / "model")
    model, tokenizer, pipe = made.opened(folder, tmp_path / "bundle")
    if form == "new":
        pipe = load(made.bundle, threads=1)
    expected = [generated(model, tokenizer, text) for text in TEXTS]
    assert [tokens(pipe, text) for text in TEXTS] == expected
    assert max(map(len, expected)) <= 28 - (1 if model.config.is_encoder_decoder else 0)
    other = {"num_beams": 1, "max_length": 24, "min_length": 0, "no_repeat_ngram_size": 0}
    plain = [generated(model, tokenizer, text, **other) for text in TEXTS]
    assert expected != plain  # so that the settings make a difference
    assert [tokens(pipe, text, **other) for text in TEXTS] == plain


@pytest.mark.parametrize(
    "settings", [{}, {"max_length": 16}, {"max_new_tokens": 9}, {"max_new_tokens": 9, "max_length": 5},
                 {"max_length": 12, "min_new_tokens": 2}, {"max_length": 24, "forced_eos_token_id": 2}]
)  # fmt: skip
def test_lengths(made: Made, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(made.kind, "new", settings, tmp_path / "model")
    model, tokenizer, pipe = made.opened(folder, tmp_path / "bundle")
    texts = TEXTS if model.config.is_encoder_decoder else ["hi", "pay"]
    for text in texts:
        assert tokens(pipe, text) == generated(model, tokenizer, text)
    own = {
        "max_new_tokens": None
    }  # generate() alone would let its own max_new_tokens go before a call's max_length
    for length in (8, 11):
        expected = generated(model, tokenizer, texts[0], max_length=length, min_new_tokens=0, **own)
        assert tokens(pipe, texts[0], max_length=length, min_new_tokens=0) == expected
    with pytest.raises(UsageError, match="max_length: 1 leaves no room after a prompt of .* max_new_tokens"):
        pipe(texts[0], max_length=1, min_new_tokens=0)


def test_prompts_near_the_last_position_are_read_whole(made: Made, tmp_path: Path) -> None:
    """`generate()` without any length writes as many tokens as there are positions for, 20 at most."""
    if made.kind in ENCODER_DECODERS:
        return
    folder = folder_of(made.kind, "new", {}, tmp_path / "model")
    model, tokenizer, pipe = made.opened(folder, tmp_path / "bundle")
    words = ("where is my parcel and when does it come " * 40).split()
    texts = (" ".join(words[:n]) for n in range(len(words)))
    text = next(t for t in texts if 115 <= len(tokenizer(t)["input_ids"]) < 128)
    answer: Any = pipe(text)
    assert answer.hypotheses[0].tokens == generated(model, tokenizer, text)
    assert not answer.truncated


def test_a_bundle_that_ignores_a_length_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("bart", "new", {"max_length": 9}, tmp_path / "model")
    real = generation_settings.read
    monkeypatch.setattr(generation_settings, "read", lambda opened: real(opened).changed(max_length=None))
    with pytest.raises(EndToEndError, match="it ignores max_length"):
        export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))


ACCEPTED: dict[str, Any] = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_attentions": False,
    "use_cache": False,
    "cache_implementation": "static",
    "prompt_lookup_num_tokens": 3,
    "num_assistant_tokens": 5,
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.9,
    "pad_token_id": -1,
}
"""values that change nothing of a text that is not sampled"""


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_settings_that_change_no_token_do_not_end_an_export(kind: str, tmp_path: Path) -> None:
    plain = folder_of(kind, "new", {"max_new_tokens": 9}, tmp_path / "plain")
    given = ACCEPTED if kind == "gpt2" else {k: v for k, v in ACCEPTED.items() if k != "pad_token_id"}
    folder = folder_of(kind, "new", given | {"max_new_tokens": 9}, tmp_path / "model")
    export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    model = AUTO[kind].from_pretrained(plain).eval()
    tokenizer, pipe = AutoTokenizer.from_pretrained(plain), load(tmp_path / "bundle", threads=1)
    assert [tokens(pipe, text) for text in TEXTS] == [generated(model, tokenizer, text) for text in TEXTS]


def test_groups_of_beams_are_a_bundles_own(tmp_path: Path) -> None:
    """Transformers 5 has them no more, so that the proof is without them."""
    groups = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "max_new_tokens": 9}
    folder = folder_of("t5", "new", groups, tmp_path / "model")
    export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    pipe: Any = load(tmp_path / "bundle", threads=1)
    assert (pipe.search.num_beam_groups, pipe.search.diversity_penalty) == (2, 0.5)
    assert len(pipe(TEXTS[0], num_return_sequences=4).hypotheses) == 4


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"epsilon_cutoff": 0.1}, UnavailableError),
        ({"top_h": 0.4}, UnavailableError),
        ({"encoder_repetition_penalty": 1.2}, UnavailableError),
        ({"guidance_scale": 1.5}, UnavailableError),
        ({"dola_layers": "high"}, UnavailableError),
        ({"remove_invalid_values": True}, UnavailableError),
        ({"num_return_sequences": 3, "do_sample": True}, CheckpointError),
        ({"length_penalty": 99.0}, CheckpointError),
        ({"max_length": 0}, CheckpointError),
        ({"num_beams": 0}, CheckpointError),
    ],
)
def test_other_settings_are_refused_by_name(
    settings: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    folder = folder_of("t5", "new", settings, tmp_path / "model")
    with pytest.raises(error, match=next(iter(settings))):
        generation_settings.read(checkpoint.open_foreign(folder, "text2text-generation", []))


def test_every_setting_of_generate_is_known_or_refused() -> None:
    """A new release's settings are refused until somebody has looked at them: these have been."""
    refused = {"exponential_decay_length_penalty", "sequence_bias", "watermarking_config", "dola_layers",
               "constraints", "top_h"}  # fmt: skip
    kinds = generation_settings
    seen = {*kinds.KNOWN, *kinds.NEUTRAL, *kinds.NO_EFFECT, *kinds.OF_A_CALL, *refused, "do_sample"}
    assert set(transformers.GenerationConfig().__dict__) - {"_original_object_hash", "_commit_hash"} <= seen


def test_values_that_generate_refuses_are_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    folder = folder_of("t5", "new", {"bad_words_ids": []}, tmp_path / "model")
    with pytest.raises(CheckpointError, match="generate.. refuses its generation settings.*bad_words_ids"):
        export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))


# --- scores, parts and numbers of the same models


def test_scores_are_those_of_the_model_up_to_its_last_position(made: Made) -> None:
    pipe: Any = load(made.bundle, threads=1)
    model, tokenizer = (
        AUTO[made.kind].from_pretrained(made.folder).eval(),
        AutoTokenizer.from_pretrained(made.folder),
    )
    crossed, short, long = model.config.is_encoder_decoder, "where is my parcel ", "where is my parcel " * 60
    longest = pipe.manifest.longest
    room = min(pipe.spec.max_length, longest or pipe.spec.max_length)
    if longest is None:
        assert len(pipe.score([(short, long)])[0].tokens) > 128
        return
    with pytest.raises(
        InputError, match=rf"^input 1: its target has \d+ tokens; the model has positions for {longest - 1}$"
    ):
        pipe.score([(short, short), (short, long)])
    target = "where is my parcel " * 9
    (scored,) = pipe.score([(long, target)])
    assert scored.truncated
    wanted = torch.tensor([scored.tokens])
    with torch.no_grad():
        if crossed:
            ids = tokenizer(long, truncation=True, max_length=room, return_tensors="pt")["input_ids"]
            begin = torch.tensor([[model.generation_config.decoder_start_token_id]])
            logits = model(input_ids=ids, decoder_input_ids=torch.cat([begin, wanted[:, :-1]], 1)).logits
        else:
            ids = torch.tensor([tokenizer(long, verbose=False)["input_ids"][-(room - len(scored.tokens)) :]])
            logits = model(input_ids=torch.cat([ids, wanted], 1)).logits[:, ids.shape[1] - 1 : -1]
    logs = logits.log_softmax(-1).gather(-1, wanted[..., None])[0, :, 0]
    np.testing.assert_allclose(scored.log_probabilities, logs.numpy(), atol=1e-4)


@pytest.mark.parametrize("blank", ["\n", "\u00a0"])
def test_runs_of_white_space_are_no_part_of_a_long_source(blank: str, made: Made) -> None:
    if made.kind in DECODERS:
        return
    pipe: Any = load(made.bundle, threads=1)
    text = "Dear team. Where is it?" + blank * 400 + "Thanks. " * 60
    parts = pipe._parts(text)
    assert len(parts) > 1
    assert all(parts)
    assert pipe(text, long_sources="join", max_new_tokens=3).text == " ".join(
        stripped for part in parts if (stripped := pipe(part, max_new_tokens=3).text.strip())
    )


def test_logits_that_are_no_numbers_are_an_error_of_their_input(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe: Any = load(made.bundle, threads=1)
    begin, bad = pipe._engine.begin, pipe.sources(pipe._read([TEXTS[2]]), pipe.search)[0][0]

    def broken(sources: Any, start: int) -> Any:
        decoding, logits = begin(sources, start)
        logits[[list(source) == list(bad) for source in sources], 5] = np.nan
        return decoding, logits

    monkeypatch.setattr(pipe._engine, "begin", broken)
    with pytest.raises(
        InputError, match="^input 2: the model's scores of the tokens after it are not finite"
    ):
        pipe([TEXTS[0], TEXTS[1], TEXTS[2]], max_new_tokens=30)
    assert len(pipe([TEXTS[0], TEXTS[1]], max_new_tokens=30)) == 2
    with pytest.raises(InputError, match="^input 1: the model's scores"):
        pipe.score([(TEXTS[0], "a parcel"), (TEXTS[2], "a parcel")])


@pytest.mark.parametrize(("kind", "value"), [("gpt2", float("nan")), ("t5", float("inf"))])
def test_weights_that_are_no_numbers_do_not_pass_the_gate(kind: str, value: float, tmp_path: Path) -> None:
    folder = folder_of(kind, "new", {}, tmp_path / "model")
    model = AUTO[kind].from_pretrained(folder)
    with torch.no_grad():
        model.get_decoder().get_input_embeddings().weight[7, 3] = value
    model.save_pretrained(folder)
    with pytest.raises(GateError, match="nan") as raised:
        export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    assert raised.value.exit_code == 4
