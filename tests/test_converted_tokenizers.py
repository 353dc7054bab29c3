"""Checkpoints whose tokenizer is a sentencepiece file, as the hub's Marian, M2M100, T5 and DeBERTa-v3 ones are."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from headway.core.errors import CheckpointError, UnavailableError, UsageError
from headway.export import encoders
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.train import checkpoint, converted_tokenizers
from tests import corpora

ENGLISH = [row["text"] for row in corpora.texts("train")]
TEXTS = [
    *ENGLISH[:60],
    *encoders.shipped(),
    "  two  spaces ",
    "a\tb\nc",
    "\ue000x",
    "a </s> b",
    "",
    "▁ a",
    "Üñ Ü 漢字 漢",
]


def pieces(path: Path, texts: list[str], size: int = 400, kind: str = "unigram") -> list[str]:
    """Train a sentencepiece model; returns its pieces."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, vocab_size=size, model_type=kind,
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    path.write_bytes(out.getvalue())
    made = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [made.id_to_piece(i) for i in range(len(made))]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), "utf-8")


def marian_tokenizer(folder: Path, codes: tuple[str, ...] = (">>fra<<", ">>deu<<")) -> dict[str, int]:
    """As an opus-mt repository has it: two models, and a vocabulary over the pieces of both, pad token last."""
    source = pieces(folder / "source.spm", ENGLISH[:80] + encoders.shipped()[:20])
    target = pieces(folder / "target.spm", encoders.shipped()[20:])
    tokens = ["</s>", "<unk>", *sorted({*source, *target} - {"<s>", "</s>", "<unk>"}), *codes, "<pad>"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    write_json(folder / "vocab.json", vocabulary)
    told = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": "en",
        "target_lang": "fr",
        "model_max_length": 64,
    }
    write_json(folder / "tokenizer_config.json", told)
    return vocabulary


def m2m100_tokenizer(folder: Path, kind: str = "bpe") -> dict[str, int]:
    found = pieces(folder / "sentencepiece.bpe.model", ENGLISH + encoders.shipped(), 700, kind)
    vocabulary = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", *found[3:]])}
    write_json(folder / "vocab.json", vocabulary)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "M2M100Tokenizer", "src_lang": "de"})
    return vocabulary


MADE = {
    "marian": (marian_tokenizer, transformers.MarianTokenizer),
    "m2m100-bpe": (m2m100_tokenizer, transformers.M2M100Tokenizer),
    "m2m100-unigram": (lambda folder: m2m100_tokenizer(folder, "unigram"), transformers.M2M100Tokenizer),
}


@pytest.fixture(scope="module", params=MADE)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Transformers' tokenizer, and the converted one."""
    make, kind = MADE[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    make(folder)
    slow = kind.from_pretrained(folder)
    return slow, converted_tokenizers.convert(str(folder), slow)


def same(slow: Any, converted: Any, text: str) -> None:
    ids = slow(text)["input_ids"]
    assert converted(text)["input_ids"] == ids, text
    assert converted.backend_tokenizer.decode(ids) == slow.decode(ids, skip_special_tokens=True), text


def test_real_texts_are_split_and_joined_alike(both: tuple[Any, Any]) -> None:
    for text in TEXTS:
        same(*both, text)


@given(st.text(st.sampled_from("abcdeéüßñłź漢字.,!?  '🙂\t"), max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_texts_are_split_and_joined_alike(both: tuple[Any, Any], text: str) -> None:
    same(*both, text)


def test_language_codes(tmp_path: Path) -> None:
    marian_tokenizer(tmp_path)
    slow = transformers.MarianTokenizer.from_pretrained(tmp_path)
    for text in (">>fra<< Where is it?", ">>deu<<Where is it?"):
        same(slow, converted_tokenizers.convert("", slow), text)


def marian(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    vocabulary = marian_tokenizer(folder)
    pad = vocabulary["<pad>"]
    shape = transformers.MarianConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.MarianMTModel(shape).save_pretrained(folder)
    # as opus-mt has them: the pad token, which begins texts, never comes again
    said = {"bad_words_ids": [[pad]], "num_beams": 4, "max_length": 24, "forced_eos_token_id": 0,
            "decoder_start_token_id": pad, "eos_token_id": 0, "pad_token_id": pad}  # fmt: skip
    write_json(folder / "generation_config.json", said)
    return folder


def m2m100(folder: Path) -> Path:
    folder.mkdir()
    vocabulary = m2m100_tokenizer(folder)
    tokenizer = transformers.M2M100Tokenizer.from_pretrained(folder)
    shape = transformers.M2M100Config(
        vocab_size=len(vocabulary) + 108, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.M2M100ForConditionalGeneration(shape).save_pretrained(folder)
    said = {"num_beams": 3, "max_length": 20, "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
            "forced_bos_token_id": tokenizer.get_lang_id("fr")}  # fmt: skip
    write_json(folder / "generation_config.json", said)
    return folder


@pytest.mark.parametrize("make", [marian, m2m100])
def test_a_bundle_translates_as_transformers_does(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    pipe: Any = load(tmp_path / "bundle", threads=1)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in [
        "Where is my parcel?",
        "Pourquoi le réseau est-il si lent ?",
        *(text[:50] for text in ENGLISH[:4]),
    ]:
        given = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = model.generate(**given)[0]
        (answer,) = pipe([text])
        assert answer.hypotheses[0].tokens == expected[1:].tolist()
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
    if make is marian:
        with pytest.raises(UsageError, match=r"target\.spm"):
            pipe.score([("Where is it?", "Où est-il ?")])
    else:
        assert pipe.score([("Where is it?", "Where")])[0].tokens


def test_targets_of_another_model_are_not_trained_on(tmp_path: Path) -> None:
    marian_tokenizer(tmp_path)
    tokenizer = checkpoint.open_tokenizer(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"target\.spm"):
        tokenizer(text_target=["Où est-il ?"])


def test_what_cannot_be_converted_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = marian(tmp_path / "model")
    before = converted_tokenizers._tokenizer

    def other(*given: Any) -> Any:
        from tokenizers import normalizers

        raw = before(*given)
        raw.normalizer = normalizers.Sequence([raw.normalizer, normalizers.Lowercase()])
        return raw

    monkeypatch.setattr(converted_tokenizers, "_tokenizer", other)
    with pytest.raises(
        CheckpointError, match=r"tokenizer \(MarianTokenizer\) has no tokenizer.json form that reads"
    ):
        export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))


@pytest.mark.parametrize(
    ("kind", "file"),
    [("t5", "spiece.model"), ("deberta-v2", "spm.model"), ("rembert", "sentencepiece.model"),
     ("xlm-roberta", "sentencepiece.bpe.model"), ("llama", "tokenizer.model"),],
)  # fmt: skip
def test_sentencepiece_files_alone(
    kind: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces(tmp_path / file, ENGLISH, 300, "bpe" if kind == "llama" else "unigram")
    write_json(tmp_path / "config.json", {"model_type": kind})
    opened = checkpoint.open_tokenizer(str(tmp_path))
    assert opened.is_fast
    (text,) = opened.batch_decode([opened("Where is my parcel?")["input_ids"]], skip_special_tokens=True)
    assert text.lower().strip() == "where is my parcel?"
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    assert importlib.util.find_spec("sentencepiece")
    with pytest.raises(UnavailableError, match=rf"sentencepiece, which reads {file}.*headway\[export\]"):
        checkpoint.open_tokenizer(str(tmp_path))
