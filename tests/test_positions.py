"""The longest input of a model, and its token types: what it takes runs, one more is refused before the first step."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers.processors import BertProcessing, TemplateProcessing
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, EncoderDecoderConfig

from headway.core import tasks
from headway.core.errors import CheckpointError, UsageError
from headway.core.tasks import text_classification
from headway.export import bundle
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.train import checkpoint, encoder, fit
from headway.train.options import TrainOptions
from headway.train.positions import max_positions, max_target_positions
from tests.conftest import write_jsonl
from tests.test_architectures import ENCODERS, model_of
from tests.tolerance import TOLERANCE

ROWS = 20
"""in the table of positions, or what is said of it"""
PADDING = 3
"""id of the padding token"""
COMMON = {"vocab_size": 60, "pad_token_id": PADDING}
SIZES: dict[str, Any] = COMMON | {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": ROWS,
}
HALVES: dict[str, Any] = COMMON | {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": ROWS,
}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
XLM: dict[str, Any] = {"emb_dim": 32, "n_layers": 1, "n_heads": 2}
DISTILBERT: dict[str, Any] = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
LIMITED: dict[str, tuple[int, dict[str, Any]]] = {
    "bert": (ROWS, SIZES),
    "distilbert": (ROWS, SIZES | DISTILBERT),
    "electra": (ROWS, SIZES | {"embedding_size": 16}),
    "albert": (ROWS, SIZES | {"embedding_size": 16}),
    "deberta-v2": (ROWS, SIZES | RELATIVE | {"position_biased_input": True}),
    "big_bird": (ROWS, SIZES),
    "nystromformer": (ROWS, SIZES),
    "xlm": (ROWS, SIZES | XLM),
    "flaubert": (ROWS, SIZES | XLM),
    "roberta": (ROWS - PADDING - 1, SIZES),
    "xlm-roberta": (ROWS - PADDING - 1, SIZES),
    "xlm-roberta-xl": (ROWS - PADDING - 1, SIZES),
    "camembert": (ROWS - PADDING - 1, SIZES),
    "roberta-prelayernorm": (ROWS - PADDING - 1, SIZES),
    "data2vec-text": (ROWS - PADDING - 1, SIZES),
    "ibert": (ROWS - PADDING - 1, SIZES),
    "xmod": (ROWS - PADDING - 1, SIZES | {"default_language": "en_XX"}),
    "longformer": (ROWS - PADDING - 1, SIZES | {"attention_window": 4}),
    "luke": (ROWS - PADDING - 1, SIZES | {"entity_vocab_size": 10, "entity_emb_size": 8}),
    "markuplm": (ROWS - PADDING - 1, SIZES),
    "esm": (ROWS - PADDING - 1, SIZES),
    "mpnet": (ROWS - 2, SIZES),  # its padding is 1, whatever the configuration says
    "gpt2": (ROWS, COMMON | {"n_positions": ROWS, "n_embd": 32, "n_layer": 1, "n_head": 2}),
    "opt": (ROWS, SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32}),
}
"""model types with a table of positions: tokens they take, and a small configuration"""
ROTARY: dict[str, dict[str, Any]] = {
    "llama": SIZES | {"num_key_value_heads": 2},
    "qwen2": SIZES | {"num_key_value_heads": 2},
    "modernbert": SIZES | {"cls_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "bos_token_id": 1},
    "nomic_bert": SIZES,
}
"""model types that say what they are made for, and compute whatever comes"""
ENDLESS: dict[str, dict[str, Any]] = {
    "deberta": SIZES | RELATIVE | {"position_biased_input": False},
    "deberta-v2": SIZES | RELATIVE | {"position_biased_input": False},
    "xlnet": COMMON | {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 64},
    "funnel": COMMON
    | {"block_sizes": [1], "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64}
    | {"architectures": ["FunnelModel"]},
}
"""model types with relative positions alone"""
TWO_HALVES: dict[str, tuple[int | None, int | None, dict[str, Any]]] = {
    **dict.fromkeys(("bart", "mbart", "marian", "pegasus", "plbart", "blenderbot"), (ROWS, ROWS, HALVES)),
    "led": (
        ROWS,
        12,
        HALVES
        | {"max_encoder_position_embeddings": ROWS, "max_decoder_position_embeddings": 12}
        | {"attention_window": 4},
    ),
    "t5": (
        None,
        None,
        COMMON
        | {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
        | {"decoder_start_token_id": PADDING},
    ),
}
"""tokens that the encoder and the decoder take"""
LONG = 40
"""tokens, for models without a limit"""


def model_with(kind: str, sizes: dict[str, Any]) -> Any:
    return AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()


def ids(length: int) -> torch.Tensor:
    return torch.full((1, length), 7)


def runs(model: Any, length: int, target: int | None = None) -> None:
    more = {} if target is None else {"decoder_input_ids": ids(target)}
    with torch.inference_mode():
        model(input_ids=ids(length), attention_mask=torch.ones_like(ids(length)), **more)


@pytest.mark.parametrize("kind", LIMITED)
def test_tables_of_positions(kind: str) -> None:
    expected, sizes = LIMITED[kind]
    model = model_with(kind, sizes)
    assert max_positions(model.config) == expected
    runs(model, expected)
    with pytest.raises((IndexError, RuntimeError)):
        runs(model, expected + 1)


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_positions(kind: str) -> None:
    model = model_with(kind, ROTARY[kind])
    assert max_positions(model.config) == ROWS
    runs(model, ROWS)


@pytest.mark.parametrize("kind", ENDLESS)
def test_relative_positions(kind: str) -> None:
    model = model_with(kind, ENDLESS[kind])
    assert max_positions(model.config) is None
    runs(model, LONG)


@pytest.mark.parametrize("kind", TWO_HALVES)
def test_encoder_decoders(kind: str) -> None:
    source, target, sizes = TWO_HALVES[kind]
    model = model_with(kind, sizes)
    assert (max_positions(model.config), max_target_positions(model.config)) == (source, target)
    runs(model, source or LONG, target or LONG)
    if source is not None and target is not None:
        with pytest.raises(IndexError):
            runs(model, source + 1, target)
        with pytest.raises(IndexError):
            runs(model, source, target + 1)


def test_two_encoders_as_one_encoder_decoder() -> None:
    halves = [BertConfig(**SIZES | {"max_position_embeddings": rows}) for rows in (ROWS, 12)]
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*halves)
    assert (max_positions(config), max_target_positions(config)) == (ROWS, 12)


@pytest.mark.parametrize("said", [-1, 0, None, "512"])
def test_odd_limits(said: Any) -> None:
    config = BertConfig(**SIZES)
    object.__setattr__(config, "max_position_embeddings", said)
    assert max_positions(config) is None


def test_every_type_that_counts_from_padding_is_known() -> None:
    """Those of transformers with a text encoder whose code does so."""
    from headway.train.positions import AFTER_PADDING

    found = set()
    for path in (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        source = path.read_text("utf-8")
        if "create_position_ids_from_input_ids" in source and "padding_idx=self.padding_idx" in source:
            found.add(path.stem.removeprefix("modeling_").replace("_", "-"))
    others = {
        "altclip",
        "bridgetower",
        "clap",
        "evolla",
        "pp-doclayout-v2",
        "seamless-m4t",
        "seamless-m4t-v2",
    }  # of images, sounds and proteins
    assert {name.removesuffix("-text") for name in found} - others == {
        name.removesuffix("-text") for name in AFTER_PADDING
    }


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    return TrainOptions(
        model=str(tmp_path / "model"),
        train=tmp_path / "train.jsonl",
        output=tmp_path / "checkpoint",
        epochs=1,
        batch_size=4,
        precision="fp32",
        threads=1,
    )


@pytest.mark.parametrize("kind", ENCODERS)
def test_training_on_the_longest_texts(kind: str, options: TrainOptions, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(model_of(kind, AutoModel, tmp_path / "model"))
    longest = max_positions(config)
    assert longest is not None
    text = " ".join(["the parcel is late"] * 60)
    write_jsonl(options.train, [{"text": text, "label": label} for label in ("a", "b")])
    with pytest.raises(UsageError, match=f"^--max-length: is {longest + 1}, .* ends at {longest} tokens"):
        fit.train("text-classification", replace(options, max_length=longest + 1))
    trained = fit.train("text-classification", replace(options, max_length=longest))
    assert trained.counts == {"cut at the model's longest input": 2}


def test_targets_longer_than_the_decoder(options: TrainOptions, tmp_path: Path) -> None:
    model_of("bart", transformers.AutoModelForSeq2SeqLM, tmp_path / "model")
    write_jsonl(options.train, [{"source": "a late parcel " * 80, "target": "late " * 200}])
    message = r"^--max-target-length: is 129, but the decoder of .* ends at 128 tokens"
    with pytest.raises(UsageError, match=message):
        fit.train("text2text-generation", replace(options, max_length=128, max_target_length=129))
    fit.train("text2text-generation", replace(options, max_length=128, max_target_length=128))


def one_segment(folder: Path, processor: str) -> Path:
    """A RoBERTa, which has one segment, with a tokenizer that tells two apart."""
    model_of("roberta", transformers.AutoModelForSequenceClassification, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"type_vocab_size": 1, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    made = transformers.AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    made.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cls, sep = tokenizer.convert_tokens_to_ids(["<cls>", "</s>"])
    raw = tokenizer.backend_tokenizer
    if processor == "bert":
        raw.post_processor = BertProcessing(("</s>", sep), ("<cls>", cls))
    else:
        raw.post_processor = TemplateProcessing(
            single="<cls>:0 $A:0 </s>:0",
            pair="<cls>:0 $A:0 </s>:0 $B:1 </s>:1",
            special_tokens=[("<cls>", cls), ("</s>", sep)],
        )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    tokenizer.save_pretrained(folder)
    return folder


PAIRS = [("where is my parcel", "it is late"), ("a refund please", "the screen is broken and nobody answers")]


@pytest.mark.parametrize("processor", ["bert", "template"])
def test_one_segment(processor: str, options: TrainOptions, tmp_path: Path) -> None:
    """Trained and exported, it answers as transformers does where a RoBERTa's tokenizer makes no token types."""
    folder = one_segment(tmp_path / "model", processor)
    assert "token_type_ids" in AutoTokenizer.from_pretrained(folder).model_input_names
    rows = [{"text1": a, "text2": b, "label": label} for (a, b), label in zip(PAIRS, "ny", strict=True)]
    write_jsonl(options.train, rows)
    trained = fit.train("text-classification", options).checkpoint
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert "token_type_ids" not in tokenizer.model_input_names
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained).eval()
    with torch.inference_mode():
        batch = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
        expected = model(**batch).logits.softmax(-1).numpy()
    bundle.export(trained, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
    found: Any = load(tmp_path / "bundle", threads=1)(PAIRS)
    np.testing.assert_allclose(
        [list(r.scores.values()) for r in found], expected, rtol=1e-3, atol=TOLERANCE["float32"][1]
    )


def test_a_tokenizer_by_whose_class_there_are_types(pretrained: Path, tmp_path: Path) -> None:
    """BERT's own class makes types without saying so in its files; that it makes none here must be said there."""
    folder = shutil.copytree(pretrained, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text()) | {"tokenizer_class": "BertTokenizer"}
    del said["model_input_names"]
    path.write_text(json.dumps(said))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert "token_type_ids" in tokenizer.model_input_names
    config = AutoConfig.for_model("bert", **SIZES | {"type_vocab_size": 1})
    spec = tasks.Spec(["a", "b"], 32, text_classification.Settings(kind="single", pair=True))
    encoder.match_token_types(AutoModel.from_config(config), tokenizer, "model", "text-classification", spec)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert list(saved("a", "b")) == ["input_ids", "attention_mask"]


def test_one_segment_of_another_maker(tmp_path: Path) -> None:
    """A folder that headway did not train is opened and answers as transformers does."""
    folder = one_segment(tmp_path / "model", "template")
    examples = [tasks.read_input(tasks.load("text-classification"), pair, i) for i, pair in enumerate(PAIRS)]
    opened = checkpoint.open_foreign(folder, "text-classification", examples)
    rows = tasks.load("text-classification").rows(examples, opened.tokenizer.backend_tokenizer, opened.spec)
    found = checkpoint.outputs(opened, rows)["logits"]
    tokenizer = AutoTokenizer.from_pretrained(folder, model_input_names=["input_ids", "attention_mask"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        batch = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
        expected = model(**batch).logits.numpy()
    np.testing.assert_allclose(found, expected, *TOLERANCE["float32"])


@pytest.mark.parametrize(("pair", "kind"), [(True, "pair"), (False, "single")])
def test_more_types_than_rows(pair: bool, kind: str, pretrained: Path, tmp_path: Path) -> None:
    """As XLNet's, whose class token is of type 2, beside a BERT of two rows."""
    folder = shutil.copytree(pretrained, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    wrong = {kind: "[CLS]:2 $A:0 [SEP]:0" + " $B:1 [SEP]:1" * (kind == "pair")}
    right = {"single": "[CLS]:0 $A:0 [SEP]:0", "pair": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(**right | wrong, special_tokens=special)
    spec = tasks.Spec(["a", "b"], 32, text_classification.Settings(kind="single", pair=pair))
    model = AutoModel.from_pretrained(folder)
    message = r"checkpoint m: its tokenizer has token types up to 2, but the model has 2 \(type_vocab_size\)"
    with pytest.raises(CheckpointError, match=message):
        encoder.match_token_types(model, tokenizer, "m", "text-classification", spec)
    if kind == "pair":
        alone = replace(spec, settings=text_classification.Settings(kind="single", pair=False))
        encoder.match_token_types(model, tokenizer, "m", "text-classification", alone)
        assert "token_type_ids" in tokenizer.model_input_names
