"""What a bundle generates without any setting in the call is what `generate()` does, whatever form the files have."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from headway.core.errors import CheckpointError, EndToEndError, UnavailableError, UsageError
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
    new, old = made / "generation_config.json", made / "config.json"
    if form == "new":
        new.write_text(json.dumps(json.loads(new.read_text()) | settings))
        return made
    if new.exists():
        new.unlink()
    old.write_text(json.dumps(json.loads(old.read_text()) | settings))
    return made


@pytest.fixture(scope="module", params=[*ENCODER_DECODERS, *DECODERS])
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
    "bad_words_ids": [],
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
