"""Trimmed vocabularies: the same tokens and the same answers as before, whatever the tokenizer and the model."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from headway.core.errors import CheckpointError, DataError, GateError, UsageError
from headway.core.manifest import Checkpoint
from headway.core.tasks import Spec
from headway.export import encoders, vocabulary
from headway.export.vocabulary import Trimmed, trim
from headway.train.checkpoint import Opened
from tests import corpora
from tests.tolerance import MODEL

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
EXTRA = [f"<extra_id_{i}>" for i in range(9, -1, -1)]
POSITIONS = 96


@functools.cache
def known() -> list[str]:
    """What tokenizers are trained on: English messages, and texts in many scripts."""
    return [row["text"] for row in corpora.texts("train")[:150]] + encoders.shipped()


@functools.cache
def needed() -> list[str]:
    """What the corpus is: some of the messages, and one in another script."""
    return [*(row["text"] for row in corpora.texts("train")[:40]), "Посылка ещё не пришла."]


def word_piece() -> Tokenizer:
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.train_from_iterator(known(), trainers.WordPieceTrainer(vocab_size=1500, special_tokens=BERT_SPECIAL))
    content = json.loads(raw.to_str())
    vocab = content["model"]["vocab"]
    letters = sorted({letter for piece in vocab if piece not in BERT_SPECIAL for letter in piece})
    every = [piece for letter in letters for piece in (letter, f"##{letter}") if piece not in vocab]
    vocab |= {piece: i for i, piece in enumerate(every, start=len(vocab))}  # as in BERT's vocabulary
    raw = Tokenizer.from_str(json.dumps(content))
    ends = [(name, raw.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    raw.post_processor = processors.BertProcessing(*ends)
    return raw


def unigram() -> Tokenizer:
    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=1300, special_tokens=SPECIAL, unk_token="<unk>")
    raw.train_from_iterator(known(), trainer)
    raw.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    ends = [(name, raw.token_to_id(name)) for name in ("<s>", "</s>")]
    raw.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    return raw


def t5() -> Tokenizer:
    """Unigram, with tokens for spans that are added after it, and bytes for what is unknown."""
    raw = unigram()
    model = json.loads(raw.to_str())
    model["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    model["model"]["byte_fallback"] = True
    model["added_tokens"] = model["added_tokens"][:4]
    raw = Tokenizer.from_str(json.dumps(model))
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    raw.add_special_tokens(EXTRA)
    raw.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    return raw


def byte_level() -> Tokenizer:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(known(), trainer)
    raw.add_special_tokens(["<mask>"])
    sep, cls = ((name, raw.token_to_id(name)) for name in ("</s>", "<s>"))
    raw.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), processors.RobertaProcessing(sep, cls)]
    )
    return raw


def whole_words_first() -> Tokenizer:
    """Byte-level, as Llama 3 has it: a word that is a token needs no merges."""
    content = json.loads(byte_level().to_str())
    content["model"]["ignore_merges"] = True
    words = sorted({f"Ġ{w}" for text in known() for w in text.split() if w.isascii() and w.isalpha()})
    new = [word for word in words if word not in content["model"]["vocab"]]
    mask = content["added_tokens"].pop()["content"]
    content["model"]["vocab"] |= {w: i for i, w in enumerate(new, start=len(content["model"]["vocab"]))}
    raw = Tokenizer.from_str(json.dumps(content))
    raw.add_special_tokens([mask])
    return raw


def marked_ends() -> Tokenizer:
    """BPE over characters, with marks inside and at the ends of words."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [decoders.Replace("##", ""), decoders.Replace("</w>", " ")]
    raw.decoder = decoders.Sequence([*marks, decoders.Fuse()])
    raw.train_from_iterator(
        known(),
        trainers.BpeTrainer(
            vocab_size=2000,
            special_tokens=SPECIAL,
            continuing_subword_prefix="##",
            end_of_word_suffix="</w>",
        ),
    )
    return raw


def sentencepiece_bpe() -> Tokenizer:
    """As Llama 2 has it: no words, every way to make a token is a merge, bytes for what is unknown."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    raw.train_from_iterator(known(), trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL))
    content = json.loads(raw.to_str())
    vocab = content["model"]["vocab"]
    pieces = [p for p in vocab if p not in SPECIAL]
    ways = ((p[:i], p[i:]) for p in sorted(pieces, key=vocab.__getitem__) for i in range(1, len(p)))
    content["model"]["merges"] = [way for way in ways if way[0] in vocab and way[1] in vocab]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    content["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    raw = Tokenizer.from_str(json.dumps(content))
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return raw


def word_level() -> Tokenizer:
    raw = Tokenizer(models.WordLevel(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.train_from_iterator(known(), trainers.WordLevelTrainer(special_tokens=SPECIAL))
    return raw


TOKENIZERS = {
    make.__name__: make
    for make in (
        word_piece, unigram, t5, byte_level, whole_words_first, marked_ends, sentencepiece_bpe, word_level,
    )
}  # fmt: skip


@functools.cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    special = BERT_SPECIAL if name == "word_piece" else SPECIAL
    roles = ["pad", "unk", "cls", "sep", "mask"] if name == "word_piece" else ["bos", "pad", "eos", "unk"]
    named = {f"{role}_token": token for role, token in zip(roles, special, strict=True)}
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(tokenizer_object=TOKENIZERS[name](), **named)
    return made


SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": POSITIONS, "embedding_size": 16, "num_key_value_heads": 2,
    "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS,
    "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2,
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "initializer_range": 0.3, "init_std": 0.3,
}  # fmt: skip
CLASSIFIES = transformers.AutoModelForSequenceClassification
REWRITES = transformers.AutoModelForSeq2SeqLM
CONTINUES = transformers.AutoModelForCausalLM
MODELS: dict[str, tuple[str, Any]] = {
    "bert": ("word_piece", CLASSIFIES),
    "electra": ("word_piece", CLASSIFIES),
    "distilbert": ("word_piece", transformers.AutoModelForQuestionAnswering),
    "xlm-roberta": ("unigram", CLASSIFIES),
    "albert": ("unigram", CLASSIFIES),
    "deberta-v2": ("unigram", transformers.AutoModelForTokenClassification),
    "roberta": ("byte_level", CLASSIFIES),
    "mpnet": ("word_piece", CLASSIFIES),
    "modernbert": ("byte_level", CLASSIFIES),
    "gpt2": ("byte_level", CONTINUES),
    "llama": ("sentencepiece_bpe", CONTINUES),
    "qwen2": ("whole_words_first", CONTINUES),
    "opt": ("byte_level", CONTINUES),
    "t5": ("t5", REWRITES),
    "mt5": ("t5", REWRITES),
    "bart": ("byte_level", REWRITES),
    "mbart": ("unigram", REWRITES),
    "marian": ("unigram", REWRITES),
    "pegasus": ("unigram", REWRITES),
}


def model_of(kind: str, auto: Any, tokens: Any, rows: int, **changes: Any) -> Any:
    """A tiny model with random weights and biases; a few rows are for no token, as in many models."""
    special = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id, "vocab_size": rows}
    special |= {"bos_token_id": tokens.bos_token_id, "decoder_start_token_id": tokens.pad_token_id}
    special |= {"cls_token_id": tokens.cls_token_id, "sep_token_id": tokens.sep_token_id}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(SIZES | special | changes))
    return filled(auto.from_config(config))


def filled(model: Any) -> Any:
    """Rows of padding and biases too are random."""
    with torch.no_grad():
        tensors = [*model.named_parameters(), *model.named_buffers()]
        for name, tensor in tensors:
            if name.endswith(("bias", "tokens.weight", "word_embeddings.weight", "shared.weight")):
                tensor.copy_(torch.randn(tensor.shape))
    model.train(False)
    return model


def opened(model: Any, tokens: Any) -> Opened:
    manifest = Checkpoint(
        task="text-classification", labels=[], max_length=64, model="tiny", training_data={}, options={}, metrics={}
    )  # fmt: skip
    return Opened(Path("tiny"), manifest, Spec([], 64, None), model, tokens)


def of_kind(kind: str, **changes: Any) -> Opened:
    name, auto = MODELS[kind]
    tokens = tokenizer(name)
    return opened(model_of(kind, auto, tokens, len(tokens) + 13, **changes), tokens)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(needed()), encoding="utf-8")
    return path


@functools.cache
def smaller(name: str, folder: Path) -> Trimmed:
    """A tokenizer trimmed for the corpus, with a model of one table."""
    path = folder / f"{name}.txt"
    path.write_text("\n".join(needed()), encoding="utf-8")
    tokens = tokenizer(name)
    kind, auto = ("bert", CLASSIFIES) if name == "word_piece" else ("gpt2", CONTINUES)
    return trim(opened(model_of(kind, auto, tokens, len(tokens) + 13), tokens), path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabulary")


def ids(tokens: Any, text: str) -> list[int]:
    found: list[int] = tokens.backend_tokenizer.encode(text).ids
    return found


def mapped(trimmed: Trimmed, text: str) -> list[int]:
    """Tokens of the smaller tokenizer by their numbers in the whole one."""
    return [int(trimmed.rows[token]) for token in ids(trimmed.opened.tokenizer, text)]


WORDS = sorted({word for text in needed() for word in text.split()})


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40)
@given(words=st.lists(st.sampled_from(WORDS), max_size=12), join=st.sampled_from([" ", "", "-", "  "]))
def test_texts_of_the_corpus_words_are_split_as_before(
    name: str, folder: Path, words: list[str], join: str
) -> None:
    trimmed, text = smaller(name, folder), join.join(words)
    expected = ids(tokenizer(name), text)
    if set(expected) <= set(trimmed.rows.tolist()):
        assert mapped(trimmed, text) == expected
    elif name != "word_level":
        unknown = tokenizer(name).unk_token_id
        assert (unknown in mapped(trimmed, text)) == (unknown in expected)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40)
@given(data=st.data())
def test_texts_of_kept_tokens_are_split_as_before(name: str, folder: Path, data: st.DataObject) -> None:
    """Tokens in any order make words that no text of the corpus has."""
    trimmed, tokens = smaller(name, folder), tokenizer(name)
    drawn = data.draw(st.lists(st.sampled_from(trimmed.rows.tolist()), max_size=8))
    text = tokens.backend_tokenizer.decode([t for t in drawn if t < len(tokens)])
    expected = ids(tokens, text)
    if set(expected) <= set(trimmed.rows.tolist()):
        assert mapped(trimmed, text) == expected


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"word_level"}))
@settings(max_examples=40)
@given(text=st.text(max_size=20))
def test_no_text_becomes_unknown(name: str, folder: Path, text: str) -> None:
    unknown, trimmed = tokenizer(name).unk_token_id, smaller(name, folder)
    assert (unknown in mapped(trimmed, text)) == (unknown in ids(tokenizer(name), text))
    assert trimmed.opened.tokenizer.backend_tokenizer.decode(
        ids(trimmed.opened.tokenizer, text)
    ) == tokenizer(name).backend_tokenizer.decode(ids(tokenizer(name), text))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_goes_and_what_stays(name: str, folder: Path) -> None:
    trimmed, tokens = smaller(name, folder), tokenizer(name)
    before, after = tokens.get_vocab(), trimmed.opened.tokenizer.get_vocab()
    assert {t for text in needed() for t in ids(tokens, text)} <= set(trimmed.rows.tolist())
    assert after == {token: trimmed.rows.tolist().index(before[token]) for token in after}
    assert set(tokens.get_added_vocab()) <= after.keys()
    assert sorted(after.values()) == list(range(len(after)))
    assert len(after) < len(before)
    assert trimmed.before == len(before) + 13


def test_tokens_that_lead_to_others_stay(tmp_path: Path) -> None:
    """Of abcd only what is merged on the way to it: ab and abc, not cd or bcd."""
    merges = [("a", "b"), ("ab", "c"), ("c", "d"), ("b", "cd"), ("abc", "d"), ("a", "bcd")]
    pieces = ["a", "b", "c", "d", *("".join(pair) for pair in merges[:5])]
    raw = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    make: Any = PreTrainedTokenizerFast
    tokens = make(tokenizer_object=raw, pad_token="<pad>")
    (tmp_path / "corpus.txt").write_text("abcd")
    model = model_of("gpt2", CONTINUES, tokens, len(tokens))
    found = trim(opened(model, tokens), tmp_path / "corpus.txt").opened.tokenizer
    assert set(found.get_vocab()) == {"a", "b", "c", "d", "ab", "abc", "abcd", "<pad>"}


def test_words_stay_known_where_a_letter_stands_in_longer_pieces_only(tmp_path: Path) -> None:
    pieces = ["[UNK]", "a", "##b", "ab", "##dc", "abb"]
    raw = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))  # type: ignore[call-arg]
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    make: Any = PreTrainedTokenizerFast
    tokens = make(tokenizer_object=raw, pad_token="[PAD]")
    (tmp_path / "corpus.txt").write_text("a")
    model = model_of("bert", CLASSIFIES, tokens, len(tokens))
    found = trim(opened(model, tokens), tmp_path / "corpus.txt").opened.tokenizer
    assert set(found.get_vocab()) == {"[UNK]", "a", "##b", "##dc", "[PAD]"}
    assert tokens.tokenize("abdc") == ["ab", "##dc"]
    assert found.tokenize("abdc") == ["a", "##b", "##dc"]


def test_unknown_characters_cost_what_they_did(tmp_path: Path) -> None:
    """10 more than the least score, that of zz: without it, pqr and an unknown x would win."""
    scores = [
        ("<unk>", 0.0),
        ("p", -9.0),
        ("q", -9.0),
        ("rx", -9.0),
        ("pqr", -1.0),
        ("yy", -9.0),
        ("zz", -20.0),
    ]
    make: Any = PreTrainedTokenizerFast
    tokens = make(tokenizer_object=Tokenizer(models.Unigram(scores, 0, False)), pad_token="<pad>")
    (tmp_path / "corpus.txt").write_text("pqr")
    model = model_of("gpt2", CONTINUES, tokens, len(tokens))
    found = trim(opened(model, tokens), tmp_path / "corpus.txt").opened.tokenizer
    assert set(found.get_vocab()) == {"<unk>", "p", "q", "pqr", "zz", "<pad>"}
    (tmp_path / "corpus.txt").write_text("pqr\npqrx")
    found = trim(opened(model, tokens), tmp_path / "corpus.txt").opened.tokenizer
    assert found.tokenize("pqrx") == tokens.tokenize("pqrx") == ["p", "q", "rx"]


def answers(model: Any, ids: Sequence[int]) -> list[torch.Tensor]:
    given: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = given["input_ids"]
    with torch.inference_mode():
        said = model(**given)
    return [value for name, value in said.items() if name.endswith("logits")]


@pytest.mark.parametrize("kind", MODELS)
def test_answers_are_the_same(kind: str, corpus: Path) -> None:
    whole = of_kind(kind)
    state = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    told = whole.model.config.to_json_string()
    trimmed = trim(whole, corpus)
    writes = MODELS[kind][1] in (REWRITES, CONTINUES)
    for text in needed()[:8]:
        expected = answers(whole.model, ids(whole.tokenizer, text))
        if writes:
            expected = [logits[..., trimmed.rows] for logits in expected]
        found = answers(trimmed.opened.model, ids(trimmed.opened.tokenizer, text))
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
    assert trimmed.worst == 0
    assert whole.model.config.to_json_string() == told
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("kind", MODELS)
def test_the_smaller_model_can_be_saved_and_opened(kind: str, corpus: Path, tmp_path: Path) -> None:
    """Tables, configurations and tokenizer agree with one another."""
    trimmed = trim(of_kind(kind), corpus)
    model, tokens = trimmed.opened.model, trimmed.opened.tokenizer
    assert model.config.vocab_size == len(trimmed.rows)
    assert model.get_input_embeddings().num_embeddings == len(trimmed.rows)
    head = model.get_output_embeddings()
    assert head is None or head.out_features == len(trimmed.rows)
    model.save_pretrained(tmp_path / "model")
    tokens.save_pretrained(tmp_path / "model")
    again = MODELS[kind][1].from_pretrained(tmp_path / "model")
    again.train(False)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == tokens.get_vocab()
    found, expected = (answers(m, ids(tokens, needed()[0])) for m in (again, model))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, *MODEL["fp32"])


def test_bytes_saved(corpus: Path) -> None:
    for kind in ("bert", "t5", "mt5", "marian"):
        whole = of_kind(kind)
        trimmed = trim(whole, corpus)
        sizes = [
            sum(t.nbytes for t in [*m.parameters(), *m.buffers()])
            for m in (whole.model, trimmed.opened.model)
        ]
        assert trimmed.saved == sizes[0] - sizes[1] > 0
        assert f"{len(trimmed.rows):,} of {trimmed.before:,} tokens" in trimmed.describe()


@pytest.mark.parametrize("kind", [k for k, (_, auto) in MODELS.items() if auto in (REWRITES, CONTINUES)])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_is_written(kind: str, beams: int, corpus: Path) -> None:
    """Where the whole model, too, may write the kept tokens only, and gives the others no probability."""
    whole = of_kind(kind)
    trimmed = trim(whole, corpus)
    gone = sorted(set(range(trimmed.before)) - set(trimmed.rows.tolist()))
    search = {"num_beams": beams, "do_sample": False, "max_new_tokens": 12, "renormalize_logits": True}
    for text in needed()[:4]:
        source, same = (torch.tensor([ids(o.tokenizer, text)]) for o in (whole, trimmed.opened))
        expected = whole.model.generate(source, suppress_tokens=gone, **search)
        found = trimmed.opened.model.generate(same, **search)
        assert trimmed.rows[found.numpy()].tolist() == expected.tolist()


def test_tokens_in_settings(corpus: Path) -> None:
    whole = of_kind("mbart")
    tokens, model = whole.tokenizer, whole.model
    first = trim(whole, corpus)
    gone = sorted(set(range(len(tokens))) - set(first.rows.tolist()))
    forced, forbidden = gone[0], gone[1]
    a, b = ids(tokens, needed()[0])[1:3]
    spare = first.before - 1  # a row of no token
    told = model.generation_config
    told.forced_bos_token_id, told.eos_token_id = forced, [2, spare]
    told.suppress_tokens, told.begin_suppress_tokens = [a, forbidden], [b]
    told.bad_words_ids = [[a, b], [a, forbidden], [spare]]
    trimmed = trim(whole, corpus)
    rows, found = trimmed.rows.tolist(), trimmed.opened.model.generation_config
    assert forced in rows
    assert forbidden not in rows
    assert rows[found.forced_bos_token_id] == forced
    assert [rows[i] for i in found.eos_token_id] == [2, spare]
    assert [rows[i] for i in found.suppress_tokens] == [a]
    assert [rows[i] for i in found.begin_suppress_tokens] == [b]
    assert [[rows[i] for i in word] for word in found.bad_words_ids] == [[a, b], [spare]]
    assert (told.forced_bos_token_id, told.suppress_tokens) == (forced, [a, forbidden])


def test_bert_to_bert(corpus: Path) -> None:
    """An encoder and a decoder with settings of their own, and two tables."""
    tokens = tokenizer("word_piece")
    halves = [model_of("bert", transformers.AutoModel, tokens, len(tokens))]
    crossed = {"is_decoder": True, "add_cross_attention": True}
    halves += [model_of("bert", CONTINUES, tokens, len(tokens), **crossed)]
    model = transformers.EncoderDecoderModel(encoder=halves[0], decoder=halves[1])
    model.config.decoder_start_token_id = tokens.cls_token_id
    model.config.pad_token_id = tokens.pad_token_id
    trimmed = trim(opened(filled(model), tokens), corpus)
    found = trimmed.opened.model
    assert found.config.encoder.vocab_size == found.config.decoder.vocab_size == len(trimmed.rows)
    assert trimmed.worst == 0
    assert found.decoder.cls.predictions.bias.shape == (len(trimmed.rows),)


@pytest.mark.parametrize("kind", ["xlm-roberta", "roberta", "marian"])
def test_padding_keeps_its_number_or_is_told(kind: str, corpus: Path) -> None:
    """Models of RoBERTa's kind count positions from the padding's number."""
    name, auto = MODELS[kind]
    tokens = tokenizer(name)
    late = len(tokens) - 1 if kind == "marian" else 40
    changes = {"pad_token_id": late, "max_position_embeddings": 140, "decoder_start_token_id": late}
    trimmed = trim(opened(model_of(kind, auto, tokens, len(tokens), **changes), tokens), corpus)
    found = trimmed.opened.model
    assert trimmed.rows[found.config.pad_token_id] == late
    assert (found.config.pad_token_id == 40) == (kind != "marian")
    assert found.get_input_embeddings().padding_idx == found.config.pad_token_id
    assert trimmed.worst == 0


def test_a_wrong_table_is_found(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = vocabulary._smaller_model
    monkeypatch.setattr(vocabulary, "_smaller_model", lambda m, t, rows: plain(m, t, rows[::-1]))
    with pytest.raises(GateError, match="parity gate: variant trimmed vocabulary: worst"):
        trim(of_kind("bert"), corpus)


def test_another_split_is_found(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what merges go through."""
    monkeypatch.setattr(vocabulary, "_merged_on_the_way", lambda *_: set())
    with pytest.raises(GateError, match="texts split into other tokens"):
        trim(of_kind("gpt2"), corpus)


def test_unusable_corpora(tmp_path: Path) -> None:
    whole, path = of_kind("bert"), tmp_path / "corpus.txt"
    with pytest.raises(UsageError, match=r"--trim-vocabulary: .*corpus.txt cannot be read: No such file"):
        trim(whole, path)
    with pytest.raises(UsageError, match="--trim-vocabulary: .* cannot be read: Is a directory"):
        trim(whole, tmp_path)
    path.write_text("\n  \n")
    with pytest.raises(UsageError, match="--trim-vocabulary: .* holds no texts"):
        trim(whole, path)
    path.write_bytes(b"\xef\xbb\xbfgood\nb\xffd\n")
    with pytest.raises(DataError, match="not UTF-8 at byte 1") as caught:
        trim(whole, path)
    assert caught.value.line == 2


def test_lines_are_read_as_texts(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(needed()).encode())
    found, expected = (trim(of_kind("gpt2"), path) for path in (other, corpus))
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.texts == len(needed())
    assert found.tokens == sum(len(ids(tokenizer("byte_level"), text)) for text in needed())


def test_unusable_models(corpus: Path) -> None:
    whole = of_kind("bert")
    slow = transformers.ByT5Tokenizer()
    with pytest.raises(CheckpointError, match=r"its tokenizer has no tokenizer\.json form"):
        trim(opened(whole.model, slow), corpus)
    tokens = tokenizer("word_piece")
    short = model_of("bert", CLASSIFIES, tokens, 20)
    with pytest.raises(CheckpointError, match=r"its tokenizer gives token \d+, the model has 20"):
        trim(opened(short, tokens), corpus)
    halves = [model_of("bert", transformers.AutoModel, tokens, len(tokens) + n) for n in (0, 1)]
    two = torch.nn.ModuleList(halves)
    with pytest.raises(CheckpointError, match="only one can be trimmed"):
        trim(opened(two, tokens), corpus)
