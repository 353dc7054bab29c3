"""The kinds of tokenizer that pretrained models have, with tiny vocabularies."""

from __future__ import annotations

import copy
import functools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.support import texts

LENGTH = 64
"""tokens a text of every tokenizer, as its model_max_length says"""
BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
"""special tokens in the order of their ids: those of RoBERTa and XLM-RoBERTa have the padding at 1"""
ADDED = (
    AddedToken("<ticket>", special=True),
    AddedToken("[ORDER]", special=False, normalized=False),
    AddedToken("parcelbox", special=False, normalized=True),
    AddedToken("<left>", special=False, lstrip=True),
    AddedToken("<right>", special=False, rstrip=True),
    AddedToken("qrx", special=False, single_word=True),
)
"""one of each kind of token that users add to a vocabulary"""
ADDED_TEXTS = (
    "see <ticket> 5",
    "the [ORDER] is late",
    "the [order] is late",
    "my parcelbox, my PARCELBOX",
    "come   <left>   back",
    "come   <right>   back",
    "a qrx and qrxs",
)
"""texts that each of them stands in, and texts that only look so"""


def wordpiece(
    lowercase: bool, strip_accents: bool | None = None, learnt: Sequence[str] | None = None
) -> Tokenizer:
    """BERT's tokenizer with the letters and short words of some texts, by default of `texts.vocabulary()`."""
    given = " ".join(learnt or texts.vocabulary())
    given = given.lower() if lowercase else given
    if strip_accents or (strip_accents is None and lowercase):
        decomposed = unicodedata.normalize("NFD", given)
        given = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    words = re.findall(r"\w+|[^\w\s]", given)
    letters = sorted(set("".join(words)))
    common = sorted({word for word in words if 1 < len(word) < 8})
    pieces = list(dict.fromkeys([*BERT.values(), *letters, *(f"##{c}" for c in letters), *common]))
    made: Any = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token=BERT["unk"]))  # type: ignore[call-arg]
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    _close(made, BERT["cls"], BERT["sep"], "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    return made


def _close(made: Any, first: str, last: str, single: str, pair: str) -> None:
    special = [(token, made.token_to_id(token)) for token in (first, last)]
    made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _roberta(made: Any) -> Tokenizer:
    _close(made, "<s>", "</s>", "<s>:0 $A:0 </s>:0", "<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0")
    return made


def _byte_level(pre_tokenizer: Any, normalizer: Any = None, tokens: int = 700) -> Tokenizer:
    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens,
        special_tokens=list(ROBERTA.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts.vocabulary(), trainer)
    return _roberta(made)


def _robbert() -> Any:
    steps: Sequence[Any] = [
        pre_tokenizers.Whitespace(),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Punctuation(),
    ]
    return pre_tokenizers.Sequence(list(steps))


def _unigram(scheme: Any = "always", byte_fallback: bool = False, split: bool = True) -> Tokenizer:
    made: Any = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), spaces])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    special = [*ROBERTA.values(), *(f"<0x{byte:02X}>" for byte in range(256) if byte_fallback)]
    learnt = [t for t in texts.vocabulary() if not byte_fallback or t.isascii()]
    trainer = trainers.UnigramTrainer(
        vocab_size=900 if byte_fallback else 1200,
        special_tokens=special,
        unk_token="<unk>",
        show_progress=False,
    )
    made.train_from_iterator(learnt, trainer)
    if byte_fallback:
        made.model = models.Unigram(_pieces(made), made.token_to_id("<unk>"), byte_fallback=True)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)
    return _roberta(made)


def _pieces(made: Any) -> list[tuple[str, float]]:
    return [(piece, score) for piece, score in json.loads(made.to_str())["model"]["vocab"]]


def _without_unk() -> Tokenizer:
    """BPE of characters that drops what it does not know."""
    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [token for token in BERT.values() if token != BERT["unk"]]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    made.train_from_iterator([t for t in texts.vocabulary() if t.isascii()], trainer)
    _close(made, "[CLS]", "[SEP]", "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    return made


def _without_post_processor() -> Tokenizer:
    made: Any = wordpiece(lowercase=True)
    raw = Tokenizer(made.model)
    raw.normalizer, raw.pre_tokenizer, raw.decoder = made.normalizer, made.pre_tokenizer, made.decoder
    return raw


def _byte_level_plain(prefix: bool) -> Tokenizer:
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=prefix))


RAW: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "wordpiece-uncased": (lambda: wordpiece(lowercase=True), BERT),
    "wordpiece-cased": (lambda: wordpiece(lowercase=False), BERT),
    "wordpiece-uncased-accents": (lambda: wordpiece(lowercase=True, strip_accents=False), BERT),
    "wordpiece-cased-no-accents": (lambda: wordpiece(lowercase=False, strip_accents=True), BERT),
    "byte-level": (lambda: _byte_level_plain(prefix=False), ROBERTA),
    "byte-level-prefix-space": (lambda: _byte_level_plain(prefix=True), ROBERTA),
    "byte-level-nfc": (
        lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()),
        ROBERTA,
    ),
    "byte-level-robbert": (lambda: _byte_level(_robbert()), ROBERTA),
    "unigram-nfkc": (_unigram, ROBERTA),
    "unigram-nfkc-byte-fallback": (lambda: _unigram(byte_fallback=True), ROBERTA),
    "metaspace-first": (lambda: _unigram("first"), ROBERTA),
    "metaspace-never": (lambda: _unigram("never"), ROBERTA),
    "metaspace-unsplit": (lambda: _unigram("always", split=False), ROBERTA),
    "no-unk": (_without_unk, {k: v for k, v in BERT.items() if k != "unk"}),
    "no-pad": (lambda: wordpiece(lowercase=True), {k: v for k, v in BERT.items() if k != "pad"}),
    "no-post-processor": (_without_post_processor, BERT),
}
"""the tokenizer of each kind, and the names of its special tokens"""
KINDS = [*RAW, "added-tokens"]
"""every kind whose tokens all have an embedding"""


@functools.cache
def raw(kind: str) -> Tokenizer:
    """The tokenizer of a kind, made once in a process. Do not change it."""
    return RAW[kind][0]()


def make(kind: str, length: Any = LENGTH, types: bool = True, **settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind as transformers wraps it.

    `types`: it gives token_type_ids. `settings` go to tokenizer_config.json, as truncation_side does.
    "added-tokens" is the uncased WordPiece one with one of each of `ADDED`.
    """
    base = "wordpiece-uncased" if kind == "added-tokens" else kind
    special = {f"{name}_token": token for name, token in RAW[base][1].items()}
    if RAW[base][1].get("bos"):
        special |= {"cls_token": "<s>", "sep_token": "</s>"}
    wrap: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = wrap(
        tokenizer_object=copy.deepcopy(raw(base)),
        model_max_length=length,
        model_input_names=["input_ids", *(["token_type_ids"] if types else []), "attention_mask"],
        **special,
        **settings,
    )
    if kind == "added-tokens":
        made.add_tokens(list(ADDED))
    return made
