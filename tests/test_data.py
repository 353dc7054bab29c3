"""Readers of labelled data: three formats, the same records; every bad thing is a DataError with its place."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import data, tasks
from headway.core.errors import DataError, UsageError

ROWS = [
    {"text": 'a "quoted", text', "label": "x"},
    {"text": "two\nlines", "label": "y"},
    {"text": "漢字 😀 ", "label": "x"},
]
TASK = tasks.load("text-classification")

usable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda text: text != "" and not text.isspace()
)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def refused(path: Path, content: bytes | None) -> DataError:
    """The error that reading a file as labelled data for text-classification ends with."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        for record in data.read(path):
            TASK.read(record, labelled=True)
    assert caught.value.file == str(path)
    return caught.value


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_same_records(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"data.{kind}", ROWS)
    found = list(data.read(path))
    assert [dict(r.fields) for r in found] == ROWS
    assert {r.file for r in found} == {str(path)}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_lines_count_from_one(kind: str, tmp_path: Path) -> None:
    assert [r.line for r in data.read(write(tmp_path / f"data.{kind}", ROWS))] == [1, 2, 3]


def test_csv_lines_are_those_of_the_file(tmp_path: Path) -> None:
    lines = [r.line for r in data.read(write(tmp_path / "data.csv", ROWS))]
    assert lines == [2, 4, 5]  # a header first; the second record ends on line 4


GOOD = b'{"text": "fine", "label": "x"}\n'


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        (b'{"label": "x"}', "text", "missing; the record has \\['label'\\]"),
        (b'{"text": "fine"}', "label", "missing"),
        (b'{"text": "fine", "label": "x"', None, "invalid JSON"),
        (b'["fine", "x"]', None, "must be a JSON object, not list"),
        (b"\0", None, "invalid JSON"),
        (b"[" * 100_000, None, "invalid JSON: more than 100 lists and objects"),
        (b"[" * 100_000 + b"]" * 100_000, None, "invalid JSON: more than 100 lists and objects"),
        (
            b'{"text": "fine", "label": "x", "meta": ' + b"[" * 500 + b"]" * 500 + b"}",
            None,
            "more than 100 lists",
        ),
        (b'{"label": "x", "text": ' + b'{"a": ' * 900 + b"1" + b"}" * 901, None, "more than 100 lists"),
        (b'{"text": "caf\xe9", "label": "x"}', None, "not UTF-8 at byte 13"),
        (b'{"text": "  \\t\\u3000 ", "label": "x"}', "text", "is empty or only white space"),
        (b'{"text": "", "label": "x"}', "text", "is empty or only white space"),
        (b'{"text": "a\\u0000b", "label": "x"}', "text", "holds a NUL byte at character 1"),
        (b'{"text": 5, "label": "x"}', "text", "must be a text, not int"),
        (b'{"text": null, "label": "x"}', "text", "must be a text, not NoneType"),
        (b'{"text": "fine", "label": 1.0}', "label", "must be a text or a whole number, not float"),
        (b'{"text": "fine", "label": true}', "label", "must be a text or a whole number, not bool"),
        (b'{"text": "fine", "label": null}', "label", "must be a text or a whole number, not NoneType"),
        (b'{"text": "fine", "text": "gone", "label": "x"}', "text", "occurs twice in the object"),
        (b'{"text": "fine", "label": "x", "meta": {"a": 1, "a": 2}}', "a", "occurs twice in the object"),
        (b'{"text": "fine", "label": " "}', "label", "is empty or only white space"),
        (
            b'{"text": "fine", "deep": ' + b"[" * 9999 + b"]" * 9999 + b"}",
            None,
            "lists and objects in each other",
        ),
        (
            b'{"text": "fine", "text": 1, "deep": ' + b'{"a":' * 990 + b"1" + b"}" * 991,
            None,
            "lists and objects in each other",
        ),
    ],
)
def test_bad_json_lines(line: bytes, field: str | None, problem: str, tmp_path: Path) -> None:
    error = refused(tmp_path / "data.jsonl", GOOD + line + b"\n" + GOOD)
    assert (error.line, error.field) == (2, field)
    with pytest.raises(DataError, match=problem):
        raise error


@pytest.mark.parametrize("blank", [b"\n", b"  \t\n", b"\r\n", b" \n\n\r\n"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_blank_lines_are_skipped_and_counted(blank: bytes, end: bytes, tmp_path: Path) -> None:
    path, lines = tmp_path / "data.jsonl", blank.count(b"\n")
    path.write_bytes(b"\xef\xbb\xbf" + blank + GOOD + blank + GOOD + blank + end)
    assert [record.line for record in data.read(path)] == [1 + lines, 2 + 2 * lines]
    assert refused(path, blank + GOOD + blank + b"{}\n").line == 2 + 2 * lines


@pytest.mark.parametrize("blank", [b"\n", b" \n\t\n", b"\xef\xbb\xbf\n", b"  "])
def test_blank_lines_alone_are_no_records(blank: bytes, tmp_path: Path) -> None:
    assert refused(tmp_path / "data.jsonl", blank).problem == "holds no records"


def test_many_brackets_that_are_not_deep(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "' + b"[{" * 500 + b'", "label": "x", "meta": [' + b"[[]]," * 500 + b"[]]}\n")
    assert len(list(data.read(path))) == 1


def test_lone_surrogate(tmp_path: Path) -> None:
    error = refused(tmp_path / "data.jsonl", GOOD + b'{"text": "ab\\ud800", "label": "x"}\n')
    assert error.line == 2


def test_lone_surrogate_in_memory() -> None:
    with pytest.raises(DataError, match="a:1: field 'text': holds half of a surrogate pair at character 2"):
        data.Record({"text": "ab\ud800"}, "a", 1).text("text")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_empty_file(content: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "data.jsonl", content)
    refused(tmp_path / "data.csv", content)


def test_header_alone_holds_no_records(tmp_path: Path) -> None:
    assert refused(tmp_path / "data.csv", b"text,label\n").problem == "holds no records"


def test_empty_parquet(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([], pyarrow.schema([("text", pyarrow.string())]))
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    assert refused(tmp_path / "data.parquet", None).problem == "holds no records"


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"text,label\nfine,x\nfine\n", 3, "has not as many columns as the header"),
        (b"text,label\nfine,x\nfine,x,y\n", 3, "has not as many columns as the header"),
        (b'text,label\nfine,x\n"fine"s,x\n', 3, "invalid CSV"),
        (b"text,label\nfine,x\n ,x\n", 3, "is empty or only white space"),
        (b"text,label\nfine,x\ncaf\xe9,x\n", 3, "not UTF-8 at byte 3"),
        (b"body,label\nfine,x\n", 2, "missing"),
    ],
)
def test_bad_csv(content: bytes, line: int, problem: str, tmp_path: Path) -> None:
    error = refused(tmp_path / "data.csv", content)
    assert error.line == line
    assert error.problem.startswith(problem)


def test_bad_parquet(tmp_path: Path) -> None:
    assert refused(tmp_path / "data.parquet", b"no parquet at all").problem.startswith("invalid Parquet")


@pytest.mark.parametrize("kind", [pyarrow.timestamp("ms"), pyarrow.duration("ms"), pyarrow.date64()])
def test_a_time_in_parquet_that_python_cannot_have(kind: Any, tmp_path: Path) -> None:
    times = pyarrow.array([86_400_000 * 10**9 * 50], pyarrow.int64()).cast(kind)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "time": times}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"data.parquet:1: invalid Parquet: "):
        list(data.read(tmp_path / "data.parquet"))


def test_null_in_parquet(tmp_path: Path) -> None:
    rows = [{"text": "fine", "label": "x"}, {"text": None, "label": "x"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    error = refused(tmp_path / "data.parquet", None)
    assert (error.line, error.field, error.problem) == (2, "text", "must be a text, not NoneType")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_byte_order_mark_is_no_part_of_the_data(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"data.{kind}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [dict(r.fields) for r in data.read(path)] == ROWS


def test_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD.replace(b"\n", b"\r\n") * 2)
    assert [r.fields["text"] for r in data.read(path)] == ["fine", "fine"]


def test_unknown_kind_of_file(tmp_path: Path) -> None:
    error = refused(tmp_path / "data.xlsx", b"")
    assert error.problem == "unknown kind of file '.xlsx'; known: .jsonl, .json, .csv, .parquet, .txt"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.jsonl", None).problem == "No such file or directory"
    (tmp_path / "folder.jsonl").mkdir()
    assert refused(tmp_path / "folder.jsonl", None).problem.startswith("no data set that can be read: ")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD + b"{")))
    rows = data.read("-")
    assert next(rows).file == "standard input"
    with pytest.raises(DataError, match="^standard input:2: invalid JSON"):
        next(rows)


def test_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"body": "fine", "topic": "x"}])
    (record,) = data.read(path, data.parse_columns("text=body,label=topic"))
    assert (record.text("text"), record.text("label")) == ("fine", "x")


def test_columns_can_be_swapped(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"text": "a", "label": "b"}])
    (record,) = data.read(path, {"text": "label", "label": "text"})
    assert (record.text("text"), record.text("label")) == ("b", "a")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"body": "fine"}])
    with pytest.raises(DataError, match=":1: field 'boddy': missing") as caught:
        list(data.read(path, {"text": "boddy"}))
    assert caught.value.field == "boddy"


@pytest.mark.parametrize("option", ["text", "text=", "=body", "text=body,", ","])
def test_malformed_columns(option: str) -> None:
    with pytest.raises(UsageError, match=r"^--columns: wants name=column"):
        data.parse_columns(option)


@given(st.lists(usable, min_size=1), st.sampled_from(["jsonl", "parquet"]))
def test_round_trip(texts: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"data.{kind}", [{"text": text} for text in texts])
        assert [r.text("text") for r in data.read(path)] == texts


@given(st.lists(usable.filter(lambda text: "\r" not in text), min_size=1))
def test_round_trip_csv(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "data.csv", [{"text": text} for text in texts])
        assert [r.text("text") for r in data.read(path)] == texts


@given(st.text(st.characters() | st.sampled_from("\0 \ud800")))
def test_a_usable_text_has_content_and_is_utf8(text: str) -> None:
    surrogate = any("\ud800" <= c <= "\udfff" for c in text)
    assert (data.text_problem(text) is None) == (bool(text.strip()) and "\0" not in text and not surrogate)


@pytest.mark.parametrize("content", ["one\ntwo\n\nthree", " 漢字 😀", "\n", "a\r\nb"])
def test_plain_text_is_one_record(content: str, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(content.encode())
    (record,) = data.read(path)
    assert (dict(record.fields), record.file, record.line) == ({"text": content}, str(path), 1)


def test_byte_order_mark_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_bytes(b"\xef\xbb\xbfone\n")
    (record,) = data.read(tmp_path / "data.txt")
    assert record.fields["text"] == "one\n"


def test_bad_plain_text(tmp_path: Path) -> None:
    assert refused(tmp_path / "data.txt", b"").problem == "holds no records"
    error = refused(tmp_path / "data.txt", b"one\ncaf\xe9\n")
    assert (error.line, error.problem) == (2, "not UTF-8 at byte 3")
    error = refused(tmp_path / "data.txt", b" \n\t\n")
    assert (error.line, error.field, error.problem) == (1, "text", "is empty or only white space")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            "source=question: {q} context: {c},target=a",
            {"source": "question: {q} context: {c}", "target": "a"},
        ),
        ("source={q}, then {c},target=a", {"source": "{q}, then {c}", "target": "a"}),
        ("target=a,source=summarize, briefly: {c}", {"target": "a", "source": "summarize, briefly: {c}"}),
        ("source=x = {c}", {"source": "x = {c}"}),
        ("text=body,label=topic", {"text": "body", "label": "topic"}),
        (None, {}),
        ("", {}),
    ],
)
def test_templates_in_the_option(option: str | None, expected: dict[str, str]) -> None:
    assert data.parse_columns(option) == expected


@pytest.mark.parametrize("option", ["source=", "{q}", "={q}", "source={q},target="])
def test_malformed_templates(option: str) -> None:
    with pytest.raises(UsageError, match=r"^--columns: wants name=column"):
        data.parse_columns(option)


def test_templates_are_filled(tmp_path: Path) -> None:
    rows = [{"q": "who?", "c": "a {q} b", "a": "x"}, {"q": "when?", "c": "\\1 {0}", "a": "y"}]
    path = write(tmp_path / "data.jsonl", rows)
    columns = data.parse_columns("source=question: {q}, context: {c} {c},target=a")
    found = [(r.text("source"), r.text("target"), r.text("q"), r.line) for r in data.read(path, columns)]
    assert found == [
        ("question: who?, context: a {q} b a {q} b", "x", "who?", 1),  # what is put in is no template
        ("question: when?, context: \\1 {0} \\1 {0}", "y", "when?", 2),
    ]


def test_a_template_of_one_field_is_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"q": "who?"}])
    (record,) = data.read(path, {"source": "{q}"})
    assert record.text("source") == "who?"


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ('{"q": "x"}', "c", "missing (named by --columns); the record has ['q']"),
        ('{"q": "x", "c": 5}', "c", "must be a text, not int"),
        ('{"q": " ", "c": "x"}', "q", "is empty or only white space"),
    ],
)
def test_templates_over_bad_fields(row: str, field: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"q": "x", "c": "y"}\n' + row + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(data.read(path, {"source": "question: {q} context: {c}"}))
    assert str(caught.value) == f"{path}:2: field '{field}': {problem}"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "missing; the record has []"),
        ({"x": "a"}, "must be a list, not str"),
        ({"x": None}, "must be a list, not NoneType"),
        ({"x": ["a"]}, "has 1 entries, fewer than 2"),
        ({"x": ["a", 5]}, "entry 1 must be a text, not int"),
        ({"x": [None, "a"]}, "entry 0 must be a text, not NoneType"),
        ({"x": ["a", "b", "\t"]}, "entry 2 is empty or only white space"),
        ({"x": ["a", "b\0"]}, "entry 1 holds a NUL byte at character 1"),
        ({"x": ["\ud800", "b"]}, "entry 0 holds half of a surrogate pair at character 0"),
    ],
)
def test_bad_lists_of_texts(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        data.Record(fields, "a", 3).texts("x", least=2)
    assert str(caught.value) == f"a:3: field 'x': {problem}"


def test_lists() -> None:
    record = data.Record({"x": ["a", "b"], "empty": [], "mixed": [1, None, "a"]}, "a", 1)
    assert record.texts("x") == ("a", "b")
    assert record.texts("empty", least=0) == ()
    assert record.list("mixed") == [1, None, "a"]
    with pytest.raises(DataError, match="^a:1: field 'empty': has 0 entries, fewer than 1$"):
        record.texts("empty")


@pytest.mark.parametrize(
    "value", [True, False, None, "", "x", "1,5", [1], {}, "nan", "inf", float("-inf"), 10**400]
)
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(DataError) as caught:
        data.Record({"x": value}, "a", 3).number("x")
    assert str(caught.value) == f"a:3: field 'x': must be a number, not {value!r}"


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9))
def test_numbers_also_as_texts(value: float) -> None:
    record = data.Record({"x": value, "text": str(value)}, "a", 1)
    assert record.number("x") == record.number("text") == value
    assert isinstance(record.number("x"), float)


@pytest.fixture
def dataset() -> Any:
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-x"])),
        }
    )
    rows = {"text": ["a", "b"], "label": [1, 0], "tags": [[0, 1], [0]]}
    one = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict({"train": one, "validation": one.select([1])})


def test_a_saved_data_set_with_names_for_its_numbers(dataset: Any, tmp_path: Path) -> None:
    dataset.save_to_disk(str(tmp_path / "saved"))
    found = [(r.fields, r.line) for r in data.read(tmp_path / "saved", split="train")]
    assert found == [
        ({"text": "a", "label": "good", "tags": ["O", "B-x"]}, 1),
        ({"text": "b", "label": "bad", "tags": ["O"]}, 2),
    ]
    assert [r.fields["text"] for r in data.read(tmp_path / "saved", split="dev")] == ["b"]
    with pytest.raises(DataError, match="saved: has no split test; it has train, validation"):
        list(data.read(tmp_path / "saved", split="test"))
    dataset["train"].save_to_disk(str(tmp_path / "one"))
    assert [r.fields["label"] for r in data.read(tmp_path / "one", split="test")] == ["good", "bad"]


def test_which_split_is_read(dataset: Any, tmp_path: Path) -> None:
    """One is read whatever its name; of several the user says which."""
    import datasets

    one = dataset["train"]
    one.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"prod": one}).save_to_disk(str(tmp_path / "prod"))
    datasets.DatasetDict({"prod": one, "test": one.select([1])}).save_to_disk(str(tmp_path / "two"))
    for name in ("plain", "prod"):
        assert [r.fields["text"] for r in data.read_split(tmp_path / name)] == ["a", "b"]
    assert [r.fields["text"] for r in data.read_split(tmp_path / "two", split="test")] == ["b"]
    assert [r.fields["text"] for r in data.read_split(tmp_path / "two", split="prod")] == ["a", "b"]
    with pytest.raises(UsageError, match="^--split: say which split of .*two is meant: prod, test$"):
        data.read_split(tmp_path / "two")
    with pytest.raises(DataError, match="two: has no split train; it has prod, test$"):
        data.read_split(tmp_path / "two", split="train")
    with pytest.raises(UsageError, match="^--split: is 'x', but .*plain is one data set without splits$"):
        data.read_split(tmp_path / "plain", split="x")
    rows = write(tmp_path / "data.jsonl", ROWS)
    with pytest.raises(
        UsageError, match="^--split: is for folders of the datasets library; .*data.jsonl is none$"
    ):
        data.read_split(rows, split="test")


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """A saved data set with ClassLabels of many forms, of which the second row's are -1 and the third's null."""
    import datasets

    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "label": names,
            "labels": datasets.List(names),
            "nested": {"label": names, "deep": datasets.List(datasets.List(names))},
        }
    )
    rows = {
        "text": ["a", "b", "c"],
        "tokens": [["a"], ["b"], ["c"]],
        "label": [1, -1, None],
        "labels": [[1, 0], [0, -1], None],
        "nested": [
            {"label": 1, "deep": [[0], [1, 1]]},
            {"label": -1, "deep": [[-1]]},
            {"label": None, "deep": None},
        ],
    }
    one = datasets.Dataset.from_dict(rows, features=features)
    one.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_class_label_of_minus_one_is_no_label(unlabelled: Path) -> None:
    first, second, third = data.read(unlabelled)
    assert first.fields["nested"] == {"label": "good", "deep": [["bad"], ["good", "good"]]}
    assert second.fields["nested"] == {"label": data.UNLABELLED, "deep": [[data.UNLABELLED]]}
    assert third.fields["label"] is None
    for name, field, entry in [
        ("text-classification", "label", ""),
        ("sequential-sentence-classification", "labels", "entry 1 "),
    ]:
        task, rename = tasks.load(name), {"sentences": second.fields["tokens"] * 2}
        record = data.Record(second.fields | rename, second.file, second.line)
        assert task.read(record, labelled=False).id is None
        with pytest.raises(DataError) as caught:
            task.read(record, labelled=True)
        assert (caught.value.file, caught.value.line, caught.value.field) == (str(unlabelled), 2, field)
        assert caught.value.problem == f"{entry}must be a text or a whole number, but it is -1: has no label"
    with pytest.raises(DataError, match=":3: field 'label': must be a text or a whole number, not NoneType"):
        TASK.read(third, labelled=True)
    tags = tasks.load("token-classification")
    with pytest.raises(
        DataError, match=":2: field 'tags': entry 0 must be a text, but it is -1: has no label"
    ):
        tags.read(data.Record({"tokens": ["b"], "tags": [data.UNLABELLED]}, "f", 2), labelled=True)


def test_a_number_that_is_no_class(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa

    features = datasets.Features({"label": datasets.ClassLabel(names=["bad", "good"])})
    table = pa.table({"label": pa.array([1, 7])})
    datasets.Dataset(
        datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=features)
    ).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="saved:2: field 'label': .*7"):
        list(data.read(tmp_path / "saved"))


def test_a_folder_of_files_as_the_hub_has_them(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for split, name in (("train", "train"), ("validation", "validation")):
        dataset[split].to_parquet(str(tmp_path / "set" / f"{name}-00000-of-00001.parquet"))
    assert [r.fields["label"] for r in data.read(tmp_path / "set", split="train")] == ["good", "bad"]
    assert [r.fields["tags"] for r in data.read(tmp_path / "set", split="dev")] == [["O"]]


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set that can be read: "):
        list(data.read(tmp_path))


@pytest.mark.parametrize("length", [131_072, 131_073, 200_000])
def test_long_csv_fields(length: int, tmp_path: Path) -> None:
    """The limit is the process's, and stays what it was for others."""
    text = 'a, "b"\n' * (length // 8) + "c" * (length % 8)
    path = write(tmp_path / "data.csv", [{"text": text, "label": "x"}, {"text": "short", "label": "y"}])
    limit = csv.field_size_limit()
    reading = data.read(path)
    assert next(reading).fields == {"text": text, "label": "x"}
    assert csv.field_size_limit() == limit
    assert [r.fields["text"] for r in reading] == ["short"]


def test_a_long_name_of_a_csv_column(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("n" * 200_000 + ",text\n1,fine\n")
    assert next(data.read(path)).fields["text"] == "fine"


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b"text,label,text\na,x,b\n", (1, "text"), "occurs twice in the header"),
        (b"\xef\xbb\xbftext,label,label\r\na,x,b\r\n", (1, "label"), "occurs twice in the header"),
        (b'text,label\n"a\0b",x\n', (2, "text"), "holds a NUL byte at character 1"),
        (b'text,label\n"a,x\n', (2, None), "invalid CSV: unexpected end of data"),
        (b'text,label\n"a"b,x\n', (2, None), "invalid CSV: "),
        (b"text,label\na\n", (2, None), "has not as many columns as the header"),
        (b"text,label\r\n", (None, None), "holds no records"),
        (b"\r\n\r\n", (None, None), "holds no records"),
    ],
)
def test_bad_csv_headers_and_quotes(
    content: bytes, place: tuple[int | None, str | None], problem: str, tmp_path: Path
) -> None:
    error = refused(tmp_path / "data.csv", content)
    assert (error.line, error.field) == place
    assert error.problem.startswith(problem)


def test_columns_without_a_name_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,,\nfine,1,2\n")
    assert [r.fields["text"] for r in data.read(path)] == ["fine"]


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    table = pyarrow.table([["a"], ["b"], ["c"]], names=["text", "label", "text"])
    pyarrow.parquet.write_table(table, path)
    error = refused(path, None)
    assert (error.field, error.problem) == ("text", "occurs twice among the columns")


def test_parquet_that_holds_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    texts = pyarrow.array([b"good", b"caf\xe9"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table([texts], names=["text"]), path)
    assert refused(path, None).problem.startswith("invalid Parquet: 'utf-8' codec can't decode")


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    for name in ("none.jsonl", "none"):
        assert refused(tmp_path / name, None).problem == "No such file or directory"


def test_keys_that_only_look_repeated(tmp_path: Path) -> None:
    rows = [{"text": 'the "label"', "label": "text"}, {"text": "label", "label": "label"}]
    rows.append({"text": "a", "label": "x", "list": [{"text": 1}, {"text": 2}]})
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [dict(r.fields) for r in data.read(path)] == rows


@pytest.mark.parametrize("field", ["label", "labels"])
def test_whole_numbers_are_names_of_labels(field: str, tmp_path: Path) -> None:
    """As texts, so that 1 in JSON, Parquet or a data set is the same label as 1 in CSV."""
    rows: Any = [{"text": "a", field: 1}, {"text": "b", field: -2}]
    if field == "labels":
        rows = [row | {field: [row[field]]} for row in rows]
    expected: list[Any] = ["1", "-2"] if field == "label" else [("1",), ("-2",)]
    for kind in ("jsonl", "parquet"):
        examples = tasks.read_labelled(TASK, write(tmp_path / f"data.{kind}", rows))
        assert [e.gold for e in examples] == expected  # type: ignore[attr-defined]


def test_columns_that_would_be_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"text": "raw", "clean": "fine"}])
    with pytest.raises(DataError, match="data.jsonl:1: field 'text': the data has a field of this name"):
        list(data.read(path, data.parse_columns("text=clean")))
    (record,) = data.read(path, data.parse_columns("text=clean,unused=text"))
    assert record.fields == {"text": "fine", "unused": "raw"}
    (record,) = data.read(path, data.parse_columns("text={clean}: {text}"))
    assert record.fields == {"text": "fine: raw", "clean": "fine"}
    (record,) = data.read(path, data.parse_columns("text=text"))
    assert record.fields == {"text": "raw", "clean": "fine"}
    with pytest.raises(UsageError, match="--columns: names 'text' twice"):
        data.parse_columns("text=clean,text=raw")


def test_a_renamed_field_is_not_read_by_its_old_name(tmp_path: Path) -> None:
    """Numbers that are called score by --columns are no labels, too."""
    path = write(tmp_path / "data.jsonl", [{"text": "a", "label": 3}, {"text": "b", "label": 4}])  # type: ignore[list-item]
    examples = tasks.read_labelled(TASK, path, data.parse_columns("score=label"))
    assert [e.gold for e in examples] == [3.0, 4.0]  # type: ignore[attr-defined]
