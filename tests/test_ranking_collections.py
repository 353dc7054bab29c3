"""Ranking on collections that are small, or written without spaces: every query counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core import retrieval, tasks
from headway.core.errors import DataError, UsageError
from headway.core.tasks import Output, text_ranking

Texts = dict[str, str]


def collection(
    folder: Path, documents: Texts, queries: Texts, qrels: list[tuple[str, str]], **more: Any
) -> Path:
    """`more`: the split of queries, by id."""
    folder.mkdir(exist_ok=True)
    files = {
        "corpus": [{"id": i, "text": t} for i, t in documents.items()],
        "queries": [
            {"id": i, "text": t} | ({"split": more[i]} if i in more else {}) for i, t in queries.items()
        ],
        "qrels": [{"query_id": q, "doc_id": d, "relevance": 1} for q, d in qrels],
    }
    for name, rows in files.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


LANGUAGES: dict[str, list[tuple[str, str]]] = {
    "Chinese": [
        ("退款需要多长时间？", "我们收到退回的商品后，退款将在五个工作日内到账。"),
        ("電池保固", "筆記型電腦的電池保固期為一年，人為損壞除外。"),
        ("如何修改收货地址", "包裹发出之前，您可以在订单页面修改收货地址。"),
        ("猫", "本店不允许携带猫狗等宠物入内。"),
    ],
    "Japanese": [
        ("返金はいつですか", "商品が届いてから五日以内に返金いたします。"),
        ("バッテリーの保証", "ノートパソコンのﾊﾞｯﾃﾘｰは一年間の保証が付いています。"),
        ("住所を変更したい", "発送前であれば、注文ページから住所の変更ができます。"),
    ],
    "Thai": [
        ("คืนเงินเมื่อไหร่", "เราจะคืนเงินภายในห้าวันหลังจากได้รับสินค้า"),
        ("ประกันแบตเตอรี่", "แบตเตอรี่ของโน้ตบุ๊กมีประกันหนึ่งปี"),
        ("เปลี่ยนที่อยู่จัดส่ง", "คุณสามารถแก้ไขที่อยู่จัดส่งได้ก่อนส่งพัสดุ"),
    ],
    "Korean": [
        ("환불 기간", "환불은 상품을 받은 뒤 닷새 안에 처리됩니다."),
        ("배터리 보증", "노트북 배터리는 일년간 보증됩니다."),
        ("주소 변경", "발송 전에는 주문 페이지에서 주소를 변경할 수 있습니다."),
    ],
    "Khmer": [
        ("សងប្រាក់វិញ", "យើងនឹងសងប្រាក់វិញក្នុងរយៈពេលប្រាំថ្ងៃ"),
        ("ការធានាថ្ម", "ថ្មកុំព្យូទ័រមានការធានាមួយឆ្នាំ"),
    ],
    "Lao": [
        ("ຄືນເງິນ", "ພວກເຮົາຈະຄືນເງິນພາຍໃນຫ້າວັນ"),
        ("ຮັບປະກັນ", "ແບດເຕີຣີມີການຮັບປະກັນໜຶ່ງປີ"),
    ],
    "Burmese": [
        ("ငွေပြန်အမ်း", "ငါးရက်အတွင်း ငွေပြန်အမ်းပါမည်။"),
        ("အာမခံ", "ဘက်ထရီသည် တစ်နှစ်အာမခံပါရှိသည်။"),
    ],
    "Hindi": [
        ("पैसे वापस", "पाँच दिनों में पैसे वापस मिल जाएंगे।"),
        ("बैटरी की वारंटी", "बैटरी पर एक साल की वारंटी है।"),
    ],
    "English": [("Refunds", "refunds take five days"), ("BATTERIES", "Batteries aren't covered.")],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_relevant_documents_are_candidates(language: str, tmp_path: Path) -> None:
    """Each query's own document is BM25's first, so that a ranker that keeps the order finds all."""
    pairs = LANGUAGES[language]
    folder = collection(
        tmp_path / "c",
        {f"d{i}": d for i, (_, d) in enumerate(pairs)},
        {f"q{i}": q for i, (q, _) in enumerate(pairs)},
        [(f"q{i}", f"d{i}") for i in range(len(pairs))],
    )
    examples = text_ranking.read_folder(folder, "dev")
    assert [e.passages[0] for e in examples] == [d for _, d in pairs]
    results = [text_ranking.Ranked([-float(i) for i in range(len(e.passages))]) for e in examples]
    figures = text_ranking.metrics(examples, results)
    assert figures == {"recall_at_10": 1.0, "mrr_at_10": 1.0, "ndcg_at_10": 1.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red apples, don't!", ["red", "apples", "don", "t"]),
        ("ＡＢＣ ﾊﾛ", ["abc", "ハ", "ロ", "ハロ"]),
        ("2024年のiPhone手机", ["2024", "年", "の", "年の", "iphone", "手", "机", "手机"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are marks, which \w has not
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("ที่ดี", ["ที่", "ดี", "ที่ดี"]),
        ("葛\U000e0100城", ["葛\U000e0100", "城", "葛\U000e0100城"]),
        ("𠮷野", ["𠮷", "野", "𠮷野"]),
        ("한국", ["한", "국", "한국"]),
        ("\u1112\u1161\u11ab", ["한"]),
        ("。？ 😀 \u0301", []),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert retrieval.terms(text) == expected


def test_punctuation_alone(tmp_path: Path) -> None:
    folder = collection(
        tmp_path / "c", {"d": "...", "e": "?!"}, {"q": "—", "r": "."}, [("q", "d"), ("r", "e")]
    )
    assert retrieval.candidates(retrieval.read(folder, "dev"), 5) == {"q": [], "r": []}


SMALL = {
    "d1": "red apples are sweet",
    "d2": "green apples are sour",
    "d3": "batteries",
    "d4": "ships sail the sea",
}
ASKED = {"q1": "sweet apples", "q2": "sour apples", "q3": "batteries", "q4": "vessels", "t1": "apples"}
RELEVANT = [("q1", "d1"), ("q2", "d2"), ("q3", "d3"), ("q4", "d4"), ("t1", "d1"), ("t1", "d2")]


def small(folder: Path) -> Path:
    """Dev queries with two candidates, one and none."""
    return collection(folder, SMALL, ASKED, RELEVANT, q1="dev", q2="dev", q3="dev", q4="dev", t1="train")


def test_queries_without_candidates_count(tmp_path: Path) -> None:
    task = text_ranking
    examples = task.read_folder(small(tmp_path / "c"), "dev")
    assert [len(e.passages) for e in examples] == [2, 2, 1, 0]
    task.uniform(examples)
    outputs = [
        Output(tasks.Row(i, [1], [0]), -row[None])
        for i, e in enumerate(examples)
        for row in np.arange(len(e.passages), dtype=np.float32)
    ]
    results = task.decode(examples, outputs, tasks.Spec([], 48, task.Settings()))
    assert task.metrics(examples, results) == pytest.approx(
        {"recall_at_10": 3 / 4, "mrr_at_10": 3 / 4, "ndcg_at_10": 3 / 4}
    )


def test_queries_of_the_same_text_are_not_one(tmp_path: Path) -> None:
    folder = collection(tmp_path / "c", SMALL, {"a": "apples", "b": "apples"}, [("a", "d1"), ("b", "d2")])
    examples = text_ranking.read_folder(folder, "dev")
    results = [text_ranking.Ranked([0.9, 0.1]) for _ in examples]
    assert text_ranking.metrics(examples, results)["mrr_at_10"] == pytest.approx((1 + 1 / 2) / 2)


def test_records_of_two_forms_are_refused() -> None:
    examples = [
        text_ranking.read(tasks.data.Record(fields, "f.jsonl", line), labelled=True)
        for line, fields in enumerate(
            [{"query": "q", "passage": "p", "label": 1}, {"query": "q", "positive": "p", "negatives": ["n"]}],
            1,
        )
    ]
    with pytest.raises(DataError, match=r"f.jsonl:2: field 'passage': missing; the other records have it"):
        text_ranking.uniform(examples)


def trained(pretrained: Path, folder: Path, data: Path, **changes: Any) -> Any:
    from headway.train import fit
    from headway.train.options import TrainOptions

    given: dict[str, Any] = {"train": data, "eval": data, "epochs": 1, "batch_size": 2, "max_length": 32}
    options = TrainOptions(
        model=str(pretrained), output=folder / "ranker", precision="fp32", threads=1, **given | changes
    )
    return fit.train("text-ranking", options)


@pytest.mark.parametrize("loss", ["binary", "listwise"])
def test_training_on_a_small_collection(loss: str, pretrained: Path, tmp_path: Path) -> None:
    from headway.train import checkpoint

    data = small(tmp_path / "c")
    came = trained(pretrained, tmp_path, data, loss=loss)
    assert came.metrics["recall_at_10"] == pytest.approx(3 / 4)
    assert came.counts == {}
    opened = checkpoint.open_checkpoint(came.checkpoint)
    examples = text_ranking.read_folder(data, "dev")
    assert text_ranking.metrics(examples, checkpoint.predict(opened, examples)) == pytest.approx(came.metrics)


def test_no_query_has_a_candidate(pretrained: Path, tmp_path: Path) -> None:
    queries = {"q1": "vessels", "t1": "apples"}
    data = collection(tmp_path / "c", SMALL, queries, [("q1", "d4"), ("t1", "d1")], q1="dev", t1="train")
    assert trained(pretrained, tmp_path, data).metrics == {
        "recall_at_10": 0.0,
        "mrr_at_10": 0.0,
        "ndcg_at_10": 0.0,
    }


def test_passages_without_others_are_told(pretrained: Path, tmp_path: Path) -> None:
    """Of a collection whose documents are all relevant nothing is left to compare with."""
    data = collection(
        tmp_path / "c", {"d1": "apples", "d2": "red apples"}, {"q": "apples"}, [("q", "d1"), ("q", "d2")]
    )
    assert trained(pretrained, tmp_path, data).counts == {"without a passage that is not relevant": 2}
    with pytest.raises(UsageError, match="listwise wants lists"):
        trained(pretrained, tmp_path, data, loss="listwise", overwrite=True)
