"""Characters of answers and entities: the right value is the gold text itself, whatever a tokenizer makes of it."""

import functools
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from headway.core import offsets
from headway.core.data import Record
from headway.core.errors import CheckpointError
from headway.core.tasks import Output, question_answering, token_classification
from headway.export import encoders
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime.tasks.question_answering import best_spans
from tests.task_examples import read, spec_of
from tests.test_foreign import with_head


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
    "byte-level NFC untrimmed": lambda: _byte_level(
        prefix=False, trim=False, normalizer=normalizers.NFC()
    ),  # ModernBERT, Qwen
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


@pytest.mark.parametrize("kind", KINDS)
def test_answers_in_further_windows(kind: str) -> None:
    """The first token of a window is looked at with what is in the windows before."""
    tokenizer = tokenizer_of(kind)
    for answer in (nfd("café"), nfd("서울"), "5", "u", "Amsterdam", "தமிழ்நாடு", "Anna\u200b"):
        for words in range(0, 40, 5):
            before = "the painter u was 5 " * 10
            before = before[: before.index(" ", words * 3) + 1]
            context = f"{before}{answer} was born here. " + "He is 5, u is " * 12
            tokenizer.no_truncation()
            if len(tokenizer.encode(answer).tokens) - 2 > 32 // 8:
                continue  # more than what neighbouring windows share
            example = squad(context, answer, len(before))
            result = predicted(example, tokenizer, 32)
            assert (result.answer, result.start) == (answer, len(before))


clusters = st.sampled_from(
    [*"abexu15çß漢ｶ½é", "é", "ö̈", "서", "த", "मि", "मे", "بَ", "שׁ", "e\u0323\u0302", "x\u20d7", "a\u200db"]
).map(nfd)
tails = st.sampled_from(["", "", "", "\u00ad", "\ufeff", "\u200b", "\u200f", "\ufe0f"])
some_words = st.tuples(st.lists(clusters, min_size=1, max_size=5).map("".join), tails).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(
    words=st.lists(some_words, min_size=1, max_size=20),
    spaces=st.sampled_from([" ", "  ", "\n", " , ", " ("]),
    data=st.data(),
)
def test_words_of_any_script_are_answers(
    kind: str, words: list[str], spaces: str, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    start = sum(len(word) + len(spaces) for word in words[:first])
    answer = spaces.join(words[first : last + 1])
    example = squad(spaces.join(words), answer, start)
    result = predicted(example, tokenizer_of(kind), 512)
    assert (result.answer, result.start, result.end) == (answer, start, start + len(answer))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_spans_are_of_the_text_and_cover_it(kind: str, text: str) -> None:
    """The words of ordinary characters are covered whole, whatever is around them."""
    tokenizer = tokenizer_of(kind)
    tokenizer.no_truncation()
    text = f"Amsterdam {text} 5 u"
    (spans,) = offsets.token_spans(text, [tokenizer.encode(text)])
    own = spans[spans[:, 0] >= 0]
    assert (own[:, 0] <= own[:, 1]).all()
    assert (own[:, 1] <= len(text)).all()
    covered = {place for begin, end in own.tolist() for place in range(begin, end)}
    assert {*range(9), len(text) - 3, len(text) - 1} <= covered


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "byte-level" in kind or "RobBERT" in kind])
def test_words_of_one_character_have_their_token(kind: str) -> None:
    text = "u 5 Amsterdam 7 x , . u"
    example = token_classification.read(_record(text=text), labelled=False)
    spec = spec_of(token_classification, ["O", "B-X"], 64)
    (row,) = token_classification.rows([example], tokenizer_of(kind), spec)
    tokens = tokenizer_of(kind).encode(text).tokens
    assert [word for word, _ in row.marks] == list(range(8))
    heads = ["".join(t for t, w in zip(tokens, row.marks.words, strict=True) if w == n) for n in range(8)]
    assert [head.strip("Ġ") for head in heads] == text.split()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["\u200bAnna", "\ufeffAnna", nfd("René"), "x\u200b", "\u2066Anna\u2069"])
def test_words_with_format_characters_have_their_token(kind: str, answer: str) -> None:
    """Every word has a token, also in windows of a few tokens."""
    text = " ".join(["the painter", answer, "was"] * 6)
    example = token_classification.read(_record(text=text), labelled=False)
    for max_length in (16, 256):
        spec = spec_of(token_classification, ["O", "B-X"], max_length, stride=4)
        rows = token_classification.rows([example], tokenizer_of(kind), spec)
        seen = {word for row in rows for word, _ in row.marks}
        named = {i for i, (a, b) in enumerate(example.words) if any(c.isalpha() for c in text[a:b])}
        assert named <= seen


def _record(**fields: Any) -> Any:
    return Record(fields, "data.jsonl", 1)


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("ភាសា\u200bខ្មែរ", "ភាសា"),  # a zero-width space parts two words
        ("ភាសា\u200bខ្មែរ", "ខ្មែរ"),
        ("Anna\u0301 , x", "Anna\u0301"),
        ("Anna , \u0301x", "Anna"),
    ],
)
@pytest.mark.parametrize("kind", ["Unigram with zero-width spaces as spaces", "BPE NFC", "byte-level"])
def test_what_belongs_to_neighbours_is_left_out(kind: str, context: str, answer: str) -> None:
    example = squad(context, answer, context.index(answer))
    assert predicted(example, tokenizer_of(kind)).answer == answer


def test_format_characters_around_an_answer_are_not_compared() -> None:
    """A model cannot tell whether one that stands at the answer belongs to it."""
    example = squad("Anna\u200b was born.", "Anna", 0)
    result = predicted(example, tokenizer_of("WordPiece uncased"))
    assert result.answer == "Anna\u200b"
    assert question_answering.metrics([example], [result]) == {"exact_match": 1.0, "f1": 1.0}


class _Broken:
    """A tokenizer whose offsets end at the first word."""

    normalizer = post_processor = None
    pre_tokenizer, model = pre_tokenizers.Whitespace(), models.BPE()

    def no_padding(self) -> None: ...

    def no_truncation(self) -> None: ...

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        encoding = tokenizer_of("BPE NFC").encode(text, add_special_tokens=add_special_tokens)
        return SimpleNamespace(
            ids=encoding.ids,
            tokens=encoding.tokens,
            offsets=[(0, min(end, 3)) for _, end in encoding.offsets],
            sequence_ids=encoding.sequence_ids,
        )


BROKEN = _Broken()


def test_offsets_that_stay_wrong_are_refused() -> None:
    with pytest.raises(CheckpointError) as caught:
        offsets.check("question-answering", "model", BROKEN, texts=["the half past"])
    assert str(caught.value) == (
        "checkpoint model: its tokenizer (Whitespace, BPE) gives wrong offsets: no token covers 'h', "
        "character 4 of 'the half past'"
    )
    example = squad("the half past", "half", 4)
    with pytest.raises(CheckpointError, match="no token covers 'h'"):
        offsets.check("question-answering", "model", BROKEN, [example])
    offsets.check("text-classification", "model", BROKEN, [example])


@pytest.mark.parametrize("kind", KINDS)
def test_known_tokenizers_pass(kind: str) -> None:
    texts = [*encoders.shipped(), *(f"The {answer} is" for answer in ANSWERS.values())]
    offsets.check("question-answering", "model", tokenizer_of(kind), texts=texts)


@pytest.mark.parametrize("task", offsets.TEXTS)
def test_export_refuses_wrong_offsets(task: str, pretrained: Path, tmp_path: Path) -> None:
    """Here a word that the tokenizer has tokens for is in none, which one of the shipped texts shows."""
    folder = with_head(task, pretrained, tmp_path / "model")
    path = folder / "tokenizer.json"
    saved = json.loads(path.read_text("utf-8"))
    replace = {"type": "Replace", "pattern": {"String": "quick"}, "content": ""}
    saved["normalizer"] = {"type": "Sequence", "normalizers": [saved["normalizer"], replace]}
    path.write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match="gives wrong offsets: no token covers 'q', character 4 of 'The q"
    ):
        export(folder, ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1))
