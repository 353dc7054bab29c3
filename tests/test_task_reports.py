"""Every task's tables and reports, against scikit-learn's."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from headway.core import generation, report, tasks
from headway.core.data import Record
from headway.core.tasks import (
    question_answering,
    sentence_embedding,
    sequential_sentence_classification,
    text2text_generation,
    text_classification,
    text_generation,
    text_ranking,
    token_classification,
)
from tests.task_examples import (
    read,
    record,
)

label = st.sampled_from(["a", "b", "c", "é 漢"])


def table_of(tables: list[report.Table], title: str) -> report.Table:
    (found,) = (t for t in tables if t.title.startswith(title))
    return found


def check_per_label(found: report.Table, gold: list[str], said: list[str]) -> None:
    names = sorted({*gold, *said})
    expected = precision_recall_fscore_support(gold, said, labels=names, zero_division=0)
    assert [row[0] for row in found.rows] == names
    for row, precision, recall, f1, support in zip(found.rows, *expected, strict=True):
        assert row[1:5] == pytest.approx([precision, recall, f1, support])
        assert row[5] == said.count(row[0])


def check_confusion(found: report.Table, gold: list[str], said: list[str]) -> None:
    names = sorted({*gold, *said})
    assert found.head == ["", *names]
    assert [row[0] for row in found.rows] == names
    assert [row[1:] for row in found.rows] == confusion_matrix(gold, said, labels=[*names, "-"])[
        :-1, :-1
    ].tolist()


@given(st.lists(st.tuples(label, label), min_size=1, max_size=40))
def test_tables_of_one_label_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    task = text_classification
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    examples = [task.Example(f"text {i}", None, g, None, Record({}, "f", i)) for i, g in enumerate(gold)]
    results = [task.Result(s, 1 / (2 + i), {}) for i, s in enumerate(said)]
    tables = task.tables(examples, results)
    check_per_label(table_of(tables, "Per label"), gold, said)
    check_confusion(table_of(tables, "Confusion"), gold, said)
    wrong = [i for i, (g, s) in enumerate(pairs) if g != s]  # the surest first
    assert [row[0] for row in table_of(tables, "Worst").rows] == wrong[: report.WORST]


@given(st.lists(st.tuples(st.sets(label), st.sets(label)), min_size=1, max_size=20))
def test_tables_of_many_labels_equal_scikit_learn(pairs: list[tuple[set[str], set[str]]]) -> None:
    task = text_classification
    examples = [task.Example("t", None, tuple(sorted(g)), None, record()) for g, _ in pairs]
    results = [task.Labels(sorted(s), dict.fromkeys("abc", 0.5)) for _, s in pairs]
    tables = task.tables(examples, results)
    names = sorted(set().union(*(g | s for g, s in pairs)))
    rows = table_of(tables, "Per label").rows
    assert [row[0] for row in rows] == names
    for name, *figures in rows:
        gold, said = ([name in pair[side] for pair in pairs] for side in (0, 1))
        precision, recall, f1, _ = precision_recall_fscore_support(
            gold, said, average="binary", zero_division=0
        )
        assert figures == pytest.approx([precision, recall, f1, sum(gold), sum(said)])
    assert len(table_of(tables, "Worst").rows) == min(report.WORST, sum(g != s for g, s in pairs))


@given(st.lists(st.lists(st.tuples(label, label), min_size=1, max_size=6), min_size=1, max_size=6))
def test_tables_of_sentences_equal_scikit_learn(documents: list[list[tuple[str, str]]]) -> None:
    task = sequential_sentence_classification
    examples = [task.Example(("s",) * len(d), tuple(g for g, _ in d), None, record()) for d in documents]
    results = [task.Result([s for _, s in d], [0.5] * len(d)) for d in documents]
    gold, said = ([pair[side] for d in documents for pair in d] for side in (0, 1))
    tables = task.tables(examples, results)
    check_per_label(table_of(tables, "Per label"), gold, said)
    check_confusion(table_of(tables, "Confusion"), gold, said)


def test_the_surest_wrong_sentence_is_first() -> None:
    task = sequential_sentence_classification
    example = task.Example(("s0", "s1", "s2"), ("a", "a", "a"), None, record())
    tables = task.tables([example], [task.Result(["b", "a", "b"], [0.6, 1.0, 0.999])])
    assert table_of(tables, "Worst").rows == [[7, 2, "a", "b (0.999)", "s2"], [7, 0, "a", "b (0.600)", "s0"]]


def test_certainty_of_tags() -> None:
    task = token_classification
    example = read("token-classification", tokens=["w0", "w1"], tags=["B-x", "O"])
    confidence, right = task.certainty([example], [task.Result([], ["B-x", "B-x"], [0.9, 0.6])])
    assert (confidence.tolist(), right.tolist()) == ([0.9, 0.6], [True, False])


def test_tables_of_entities() -> None:
    task = token_classification
    example = read("token-classification", tokens=["w0", "w1", "w2", "w3"], tags=["B-x", "I-x", "O", "B-y"])
    result = task.Result([], ["B-x", "I-x", "B-x", "O"], [0.9, 0.9, 0.8, 0.7])
    tables = task.tables([example], [result])
    assert table_of(tables, "Per label").rows == [
        ["x", 0.5, 1.0, pytest.approx(2 / 3), 1, 2],
        ["y", 0.0, 0.0, 0.0, 1, 0],
    ]
    check_confusion(table_of(tables, "Confusion"), list(example.tags), result.tags or [])
    assert table_of(tables, "Worst").rows == [
        [7, 2, "w2", "O", "B-x (0.800)"],
        [7, 3, "w3", "B-y", "O (0.700)"],
    ]


@given(st.lists(st.tuples(label, label), min_size=1, max_size=20))
def test_tables_of_plain_tags_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    task = token_classification
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    example = read("token-classification", tokens=["w"] * len(pairs), tags=gold)
    tables = task.tables([example], [task.Result([], said, [0.5] * len(said))])
    check_per_label(table_of(tables, "Per label"), gold, said)
    check_confusion(table_of(tables, "Confusion"), gold, said)


def test_rare_labels_are_counted_together() -> None:
    gold = [f"l{i:02}" for i in range(40) for _ in range(50 - i)]
    found = report.confusion(gold, gold)
    assert found.head == ["", *(f"l{i:02}" for i in range(30)), "(others)"]
    assert found.rows[-1][-1] == sum(50 - i for i in range(30, 40))
    assert sum(sum(row[1:]) for row in found.rows) == len(gold)


SCRIPT = "<script>alert('&')</script>"


def every_table() -> list[tuple[str, list[Any], list[Any]]]:
    """Of each task an example and a result that is wrong, with a text that a page must not run."""
    rank = text_ranking.Example(SCRIPT, (SCRIPT,), (1.0,), (1.0,), None, record())
    source = text2text_generation.Example(SCRIPT, (SCRIPT,), None, record())
    answered = question_answering.Example(SCRIPT, SCRIPT, ((SCRIPT, 0),), None, record())
    compare = sentence_embedding.Compared([], [0.1, 0.9])
    return [
        (
            "text-classification",
            [text_classification.Example(SCRIPT, SCRIPT, SCRIPT, None, record())],
            [text_classification.Result("x", 0.5, {})],
        ),
        (
            "text-classification",
            [text_classification.Example(SCRIPT, None, (SCRIPT,), None, record())],
            [text_classification.Labels(["x"], {"x": 0.5})],
        ),
        (
            "text-classification",
            [text_classification.Example(SCRIPT, None, 1.0, None, record())],
            [text_classification.Score(2.0)],
        ),
        (
            "token-classification",
            [read("token-classification", tokens=[SCRIPT], tags=[SCRIPT])],
            [token_classification.Result([], ["x"], [0.5])],
        ),
        (
            "sequential-sentence-classification",
            [read("sequential-sentence-classification", sentences=[SCRIPT], labels=[SCRIPT])],
            [sequential_sentence_classification.Result(["x"], [0.5])],
        ),
        ("question-answering", [answered], [question_answering.Result("no", 0, 2, 0.5, [])]),
        ("sentence-embedding", [read("sentence-embedding", text1=SCRIPT, text2="b", score=1)], [compare]),
        (
            "sentence-embedding",
            [read("sentence-embedding", anchor=SCRIPT, positive="b", negative="c")],
            [compare],
        ),
        ("text-ranking", [rank], [text_ranking.Result(0.1)]),
        ("text2text-generation", [source], [generation.Result("no", 0.0, [])]),
        (
            "text-generation",
            [text_generation.Example("", SCRIPT, None, record())],
            [text_generation.Result(1.0, 1, 1)],
        ),
    ]


@pytest.mark.parametrize("place", range(len(every_table())))
def test_reports_of_every_task(place: int, tmp_path: Path) -> None:
    name, examples, results = every_table()[place]
    tables = tasks.load(name).tables(examples, results)
    assert any(table.rows for table in tables)
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
    report.Report(task=name, n=1, metrics={"f1": 0.5}, tables=tables).write(tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
    told = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert told["tables"] == [{"title": t.title, "head": t.head, "rows": t.rows} for t in tables]


def test_a_report(tmp_path: Path) -> None:
    shown = report.Report(
        task="<b>",
        n=3,
        metrics={"f1": 0.123456},
        calibration={"temperature": 1.5},
        counts={"cut": 2},
        tables=[report.Table("<i>", ["<u>"], [["é 漢"]]), report.Table("empty", ["x"], [])],
    )
    shown.write(tmp_path)
    content = (tmp_path / "report.json").read_bytes()
    assert msgspec.json.decode(content, type=report.Report) == shown
    page = (tmp_path / "report.html").read_text("utf-8")
    for piece in ("0.1235", "1.5000", ">2<", "é 漢", "&lt;b&gt;: 3 examples", "&lt;i&gt;", "&lt;u&gt;"):
        assert piece in page
    for piece in ("<b>", "<i>", "<u>", "empty"):
        assert piece not in page


def test_no_more_errors_are_shown_than_a_page_holds() -> None:
    found = report.worst(["n"], ([n] for n in range(report.WORST + 5)))
    assert [row[0] for row in found.rows] == list(range(report.WORST))
