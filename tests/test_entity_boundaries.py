"""Where entities of texts without tokens of their own begin and end: planted logits of a perfect model."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from headway.core import tasks
from headway.core.scripts import cluster_end
from headway.core.tasks import Output, token_classification
from headway.runtime.tasks import token_classification as decoder
from tests.task_examples import spec_of

LABELS = ["O", "B-x", "I-x"]


def unigram(pieces: str, *others: str) -> Tokenizer:
    """As XLM-RoBERTa's: Unigram with Metaspace, all pieces of a text in the vocabulary, other signs alone."""
    found = dict.fromkeys([*pieces.split("|"), *others])
    signs = dict.fromkeys(c for piece in found for c in piece.replace(" ", "▁"))
    vocabulary = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece.replace(" ", "▁"), -1.0) for piece in found if piece]
    vocabulary += [(c, -20.0) for c in ["▁", *signs] if c not in dict(vocabulary)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    return with_ends(made, "<s>", "</s>")


def word_piece(pieces: str) -> Tokenizer:
    """As the BERTs for Korean: WordPiece, the further tokens of a word with ##."""
    vocabulary = {piece: i for i, piece in enumerate(["[CLS]", "[SEP]", "[UNK]", *pieces.split("|")])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)  # type: ignore[assignment]
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    return with_ends(made, "[CLS]", "[SEP]")


def with_ends(made: Tokenizer, first: str, last: str) -> Tokenizer:
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{first} $A {last}",
        special_tokens=[(t, made.token_to_id(t)) for t in (first, last)],
    )
    return made


def perfect(
    tokenizer: Tokenizer, text: str, entities: list[str], max_length: int = 64, **call: Any
) -> list[str]:
    """What is found where each token's logits are those of the entity that it lies in."""
    task: Any = token_classification
    example, spec = tasks.read_input(task, text, 0), spec_of(task, LABELS, max_length, stride=8)
    starts = [(text.index(entity), text.index(entity) + len(entity)) for entity in entities]
    outputs = []
    for row in task.rows([example], tokenizer, spec):
        logits = np.zeros((len(row.ids), 3), np.float32)
        for place, (begin, end) in enumerate(row.marks.characters):
            begin += len(text[begin:end]) - len(text[begin:end].lstrip())
            inside = next((first for first, after in starts if first <= begin < after and begin < end), None)
            logits[place, 0 if inside is None else 1 if begin == inside else 2] = 20
        outputs.append(Output(row, logits))
    (result,) = decoder.decode([example], outputs, spec, decoder.Call(**call))
    (plain,) = task.decode([example], outputs, spec, **call)
    assert result.entities == plain.entities
    assert all(text[e.start : e.end] == e.text for e in result.entities)
    return [e.text for e in result.entities]


@pytest.mark.parametrize(
    ("pieces", "entities"),
    [
        (" トヨタ|は|大きい|会社|です|。", ["トヨタ"]),
        (" 私|は|東京|都|の|トヨタ|自動車|で|働|く", ["東京", "トヨタ自動車"]),
        (" サーバー|を|ソニー|が|作る", ["ソニー"]),
        (" ｿﾆｰ|ﾊﾞｯｸﾞ|は", ["ｿﾆｰ"]),
        (" iPhone|を|Apple|が|売る", ["iPhone", "Apple"]),
        (" 我|在|北京|大学|学习", ["北京大学"]),
        (" 서울|에서| 김민수|는| 일한다|.", ["서울", "김민수"]),
        (
            " 서울|에서| 왔다".replace("서울", "\u1109\u1165\u110b\u116e\u11af"),
            ["\u1109\u1165\u110b\u116e\u11af"],
        ),
        (" ฉันอยู่|กรุงเทพ|และ|ทำงาน", ["กรุงเทพ"]),
        (" ไป|น้ำ|พอง|ครับ", ["น้ำพอง"]),
        (" ຂ້ອຍ|ຢູ່|ວຽງຈັນ|ກັບ", ["ວຽງຈັນ"]),
        (" ខ្ញុំ|រស់នៅ|ភ្នំពេញ|ជាមួយ", ["ភ្នំពេញ"]),
        (" ကျွန်တော်|ရန်ကုန်|မှာ|နေတယ်", ["ရန်ကုန်"]),
        (" ང་|ལྷ་ས|ལ་|སྡོད", ["ལྷ་ས"]),
        (" Anna| in| Graz|.", ["Anna", "Graz"]),
        (" Вот| Анна", ["Анна"]),
    ],
)
def test_entities_end_where_the_tokens_do(pieces: str, entities: list[str]) -> None:
    tokenizer, text = unigram(pieces), pieces.replace("|", "").strip()
    assert perfect(tokenizer, text, entities) == entities
    assert perfect(tokenizer, text, entities, boundaries="token") == entities
    long = " ".join([text] * 9) if " " in text else text * 9
    assert perfect(tokenizer, long, entities, max_length=16) == entities


def test_by_words_an_entity_is_the_run_of_letters() -> None:
    """As before there was a choice: a run whose first token is O has no entity."""
    japanese = unigram(" トヨタ|は|大きい")
    assert perfect(japanese, "トヨタは大きい", ["トヨタ"], boundaries="word") == ["トヨタは"]
    assert perfect(unigram(" 서울|에서"), "서울에서", ["서울"], boundaries="word") == ["서울에서"]
    thai = unigram(" ฉันอยู่|กรุงเทพ|และ")
    assert perfect(thai, "ฉันอยู่กรุงเทพและ", ["กรุงเทพ"], boundaries="word") == []


def test_korean_word_pieces() -> None:
    tokenizer = word_piece("서울|##에서|김|##민수|##는|왔다")
    text, entities = "서울에서 김민수는 왔다", ["서울", "김민수"]
    assert perfect(tokenizer, text, entities) == entities


def test_latin_words_are_not_parted_but_by_a_setting() -> None:
    tokenizer = unigram(" Graz|er| Luft")
    assert perfect(tokenizer, "Grazer Luft", ["Graz"]) == ["Grazer"]
    assert perfect(tokenizer, "Grazer Luft", ["Graz"], boundaries="token") == ["Graz"]


def test_the_bundle_may_say_where_entities_end() -> None:
    task: Any = token_classification
    tokenizer = unigram(" Graz|er")
    spec = spec_of(task, LABELS, boundaries="token")
    example = tasks.read_input(task, "Grazer", 0)
    (row,) = task.rows([example], tokenizer, spec)
    outputs = [Output(row, np.array([[9, 0, 0], [0, 9, 0], [9, 0, 0], [9, 0, 0]], np.float32))]
    found = [decoder.decode([example], outputs, spec, decoder.Call(boundaries=b))[0] for b in (None, "auto")]
    assert [[e.text for e in r.entities] for r in found] == [["Graz"], ["Grazer"]]


def test_tokens_of_a_record_stay_its_words() -> None:
    task: Any = token_classification
    tokenizer, spec = unigram(" トヨタ|は| 社"), spec_of(task, LABELS)
    example = tasks.read_input(task, {"tokens": ["トヨタは", "社"]}, 0)
    (row,) = task.rows([example], tokenizer, spec)
    logits = np.array([[9, 0, 0], [0, 9, 0], [9, 0, 0], [9, 0, 0], [9, 0, 0]], np.float32)
    for boundaries in ("auto", "word", "token"):
        call: Any = decoder.Call(boundaries=boundaries)
        (result,) = decoder.decode([example], [Output(row, logits)], spec, call)
        assert (result.tags, [e.text for e in result.entities]) == (["B-x", "O"], ["トヨタは"])


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("❤\ufe0f b", "❤\ufe0f"),
        ("cafe\u0301 b", "cafe\u0301"),
        ("か\u3099は", "か\u3099"),
        ("葛\U000e0100は", "葛\U000e0100"),  # a variant of the ideograph
        ("บุรี b", "บุรี"),
        ("น้ำ b", "น้ำ"),
        ("அவன்\u200d b", "அவன்\u200d"),
        ("می\u200c b", "می\u200c"),
        ("👩\u200d💻 b", "👩\u200d💻"),
        ("🏴\U000e0067\U000e0062\U000e007f b", "🏴\U000e0067\U000e0062\U000e007f"),
        ("ភ្នំ b", "ភ្នំ"),
        ("서울b", "서울"),
        ("Anna\u200b b", "Anna"),
        ("Anna\u00ad b", "Anna"),
        ("Anna\ufeff b", "Anna"),
    ],
)
def test_an_entity_has_the_marks_of_its_last_character(text: str, entity: str) -> None:
    """Whatever the tokenizer keeps of them."""
    task: Any = token_classification
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFD(), normalizers.Replace(r"\p{M}|\p{C}", "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    example = tasks.read_input(task, text, 0)
    (row,) = task.rows([example], tokenizer, spec_of(task, LABELS, 32))
    inside = [begin < len(entity) for begin, _ in row.marks.characters]
    logits = np.array([[0, 0, 20] if i else [20, 0, 0] for i in inside], np.float32)
    spec = spec_of(task, LABELS, 32, scheme="lenient")
    (result,) = task.decode([example], [Output(row, logits)], spec)
    assert [e.text for e in result.entities] == [entity]


def test_boundaries_of_random_pieces() -> None:
    """Runs of kana in random pieces: each piece that is an entity of its own is found as it is."""
    chance = random.Random(0)
    for _ in range(30):
        pieces = ["".join(chance.choices("あいうえおかき\u3099ー", k=chance.randint(1, 4))) for _ in range(8)]
        pieces = ["ん" + piece for piece in pieces]  # so that none begins with a mark
        tokenizer, text = unigram("|".join(pieces)), "".join(pieces)
        example = tasks.read_input(token_classification, text, 0)
        (row,) = token_classification.rows([example], tokenizer, spec_of(token_classification, LABELS, 64))
        tokens = tokenizer.encode(text).tokens
        begin, end = chance.choice(
            [s for s, t in zip(row.marks.characters, tokens, strict=True) if t[0] in "ん▁"][1:]
        )
        if text.index(text[begin:end]) == begin:
            assert perfect(tokenizer, text, [text[begin:end]]) == [text[begin : cluster_end(text, end)]]
