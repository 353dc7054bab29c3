"""Characters of answers and entities: the right value is the gold text itself, whatever a tokenizer makes of it."""

import functools
import unicodedata
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from headway.core import offsets
from headway.core.errors import CheckpointError
from headway.core.tasks import Output, question_answering, token_classification
from headway.runtime.tasks.question_answering import best_spans
from tests.task_examples import read, spec_of


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
ANSWERS = {
    "one letter": "u",
    "one digit": "5",
    "a word": "Amsterdam",
    "two words": "half past",
    "a quoted word": '"Anna"',
    "é in NFD": nfd("café"),
    "é in the middle, NFD": nfd("Renée"),
    "Vietnamese in NFD": nfd("Việt Nam Huế"),
    "Hangul in NFD": nfd("서울"),
    "Hangul with final consonants in NFD": nfd("한글"),
    "Tamil": "தமிழ்நாடு",
    "Devanagari": "हिन्दी में",
    "Thai": "บุรี",
    "Khmer": "ភាសាខ្មែរ",
    "Arabic with harakat": "مَدِينَةُ",
    "Hebrew with niqqud": "שָׁלוֹם",
    "Hebrew with a mark of direction": "שלום\u200f",
    "a heart with a variation selector": "❤️",
    "a family": "👩‍👩‍👧",
    "a skin tone": "👍🏽",
    "a flag": "🇩🇪",
    "a keycap": "1️⃣",
    "a fraction": "½",
    "a ligature": "ﬁne",
    "full width": "ＡＢＣ",
    "half-width sound marks": "ｶﾞｷﾞ",
    "a square of four": "㍿",
    "a capital that lower-casing makes two": "İstanbul",
    "sharp s": "Straße",
    "a superscript": "x²",
    "a zero-width space at the end": "Anna\u200b",
    "a zero-width space at the begin": "\u200bAnna",
    "a soft hyphen at the end": "Anna\u00ad",
    "a soft hyphen inside": "An\u00adna",
    "a byte order mark at the begin": "\ufeffAnna",
    "a byte order mark at the end": "Anna\ufeff",
    "isolates around": "\u2066Anna\u2069",
    "a non-joiner inside": "می\u200cخواهم",
    "an Arabic number sign": "\u060012",
}
PLACES = {
    "alone": ("", ""),
    "first": ("", " was born here."),
    "last": ("He is", ""),
    "between words": ("The painter", " was born here."),
    "before punctuation": ("It is", "."),
    "in parentheses": ("The painter (", ") was born here."),
    "between commas": ("Born,", ", here."),
}


def _bert_like(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )


def _trained(model: Any, normalizer: Any, splitter: Any, trainer: Any) -> Tokenizer:
    made: Any = Tokenizer(model)
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = splitter
    texts = [*ANSWERS.values(), "The painter was born here", "He is It is ( ) , . \" '"] * 3
    made.train_from_iterator([*texts, *map(nfd, texts)], trainer)
    _bert_like(made)
    return made  # type: ignore[no-any-return]


def _word_piece(lowercase: bool) -> Tokenizer:
    return _trained(
        models.WordPiece(unk_token="[UNK]"),
        normalizers.BertNormalizer(lowercase=lowercase),
        pre_tokenizers.BertPreTokenizer(),
        trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False),
    )


def _unigram(normalizer: Any) -> Tokenizer:
    return _trained(
        models.Unigram(),
        normalizer,
        pre_tokenizers.Metaspace(),
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
        ),
    )


def _bpe(normalizer: Any, unknown: str | None) -> Tokenizer:
    return _trained(
        models.BPE(unk_token=unknown),
        normalizer,
        pre_tokenizers.Whitespace(),
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False),
    )


def _byte_level(*before: Any, prefix: bool = True, trim: bool = True, normalizer: Any = None) -> Tokenizer:
    parts = [*before, pre_tokenizers.ByteLevel(add_prefix_space=prefix)]
    if before and isinstance(before[0], pre_tokenizers.Whitespace):
        parts.append(pre_tokenizers.Punctuation())  # RobBERT's chain
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made: Any = _trained(models.BPE(), normalizer, pre_tokenizers.Sequence(parts), trainer)
    if trim:
        made.post_processor = processors.RobertaProcessing(
            ("[SEP]", 3), ("[CLS]", 2), add_prefix_space=prefix
        )
    return made  # type: ignore[no-any-return]


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece uncased": lambda: _word_piece(True),
    "WordPiece cased": lambda: _word_piece(False),
    "Unigram NFKC": lambda: _unigram(normalizers.NFKC()),
    "Unigram with zero-width spaces as spaces": lambda: _unigram(
        normalizers.Sequence(
            [normalizers.Replace(Regex("[\u200b\u200e\u200f\ufeff]"), " "), normalizers.NFKC()]
        )
    ),
    "BPE NFC": lambda: _bpe(normalizers.NFC(), "[UNK]"),
    "BPE NFKC": lambda: _bpe(normalizers.NFKC(), "[UNK]"),
    "byte-level": lambda: _byte_level(prefix=False),
    "byte-level with prefix space": lambda: _byte_level(),
    "byte-level untrimmed": lambda: _byte_level(trim=False),
    "byte-level NFC": lambda: _byte_level(normalizer=normalizers.NFC()),
    "RobBERT": lambda: _byte_level(pre_tokenizers.Whitespace()),
    "RobBERT NFC": lambda: _byte_level(pre_tokenizers.Whitespace(), normalizer=normalizers.NFC()),
    "byte-level behind digits": lambda: _byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "byte-level behind punctuation": lambda: _byte_level(pre_tokenizers.Punctuation()),
    "byte-level behind white space": lambda: _byte_level(pre_tokenizers.WhitespaceSplit()),
    "byte-level behind scripts": lambda: _byte_level(pre_tokenizers.UnicodeScripts()),
}


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    return KINDS[kind]()


def squad(context: str, answer: str, start: int) -> Any:
    answers = {"text": [answer], "answer_start": [start]}
    return read("question-answering", question="Who?", context=context, answers=answers)


def predicted(example: Any, tokenizer: Tokenizer, max_length: int = 128) -> Any:
    """What a perfect model says: the logits of the target are high, in every window."""
    task = question_answering
    spec = spec_of(task, [], max_length, max_answer_tokens=100)
    rows = task.rows([example], tokenizer, spec)
    random = np.random.default_rng(0)
    outputs = [Output(row, random.normal(size=(len(row.ids), 2)).astype(np.float32)) for row in rows]
    targets = [task.target(example, row) for row in rows]
    assert any(t != (0, 0) for t in targets), "no window has the answer"
    for output, (first, last) in zip(outputs, targets, strict=True):
        output.logits[first, 0] = output.logits[last, 1] = 50
    (result,) = task.decode([example], outputs, spec, search=best_spans)
    assert task.decode([example], outputs, spec) == [result]
    return result


def placed(answer: str, place: str) -> tuple[str, int] | None:
    """A context and where the answer begins in it; None where another word would take its first sign."""
    before, behind = PLACES[place]
    starts_with_extension = unicodedata.category(answer[0]) == "Cf" and answer[0] not in offsets.OPENING
    if before.endswith("("):
        return None if starts_with_extension else (before + answer + behind, len(before))
    before += " " * bool(before)
    return before + answer + behind, len(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_perfect_model_says_the_gold_answer(kind: str, answer: str) -> None:
    for place in PLACES:
        at = placed(answer, place)
        if at is None:
            continue
        context, start = at
        example = squad(context, answer, start)
        result = predicted(example, tokenizer_of(kind))
        assert (result.answer, result.start, result.end) == (answer, start, start + len(answer)), place
        figures = question_answering.metrics([example], [result])
        assert figures["f1" if not question_answering.normalized(answer) else "exact_match"] == 1.0
