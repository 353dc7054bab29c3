"""Records with several kinds of gold answer: the option, or the model's settings, decide which field is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from headway.core import gold, tasks
from headway.core.data import Record
from headway.core.errors import DataError, UsageError
from headway.core.manifest import Bundle, Checkpoint
from headway.train.options import TrainOptions
from headway.train.tasks import base
from tests.conftest import Run

CLASSIFY, EMBED, RANK = (tasks.load(n) for n in ("text-classification", "sentence-embedding", "text-ranking"))
RELATIONS = ("entailment", "neutral", "contradiction")


def sick(count: int = 12) -> list[dict[str, Any]]:
    """As SICK: pairs with a relation and a score."""
    return [
        {
            "text1": f"A parcel is number {i}.",
            "text2": f"A box is number {i}.",
            "label": RELATIONS[i % 3],
            "score": 1 + 4 * (i % 7) / 6,
        }
        for i in range(count)
    ]


def rated(count: int = 12) -> list[dict[str, Any]]:
    """Texts with a label, labels and a score."""
    return [
        {
            "text": f"the parcel is {word} {i}",
            "label": word,
            "labels": [word, "any"],
            "score": i / count,
        }
        for i in range(count)
        for word in [("late", "great")[i % 2]]
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def records(rows: list[dict[str, Any]]) -> list[Record]:
    return [Record(row, "data.jsonl", line) for line, row in enumerate(rows, start=1)]


def options(**changes: Any) -> TrainOptions:
    return TrainOptions(model="m", train=Path("t"), output=Path("o"), **changes)


def read_for(name: str, rows: list[dict[str, Any]], chosen: TrainOptions) -> list[Any]:
    wanted = base.load(name).wanted_gold(chosen, ())  # type: ignore[attr-defined]
    return tasks.labelled(tasks.load(name), records(rows), wanted=wanted)


@pytest.mark.parametrize(
    ("loss", "form"),
    [("auto", "score"), ("cosine", "score"), ("contrastive", "label"), ("softmax", "label")],
)
def test_the_loss_decides_which_field_of_a_pair_is_read(loss: Any, form: str) -> None:
    examples = read_for("sentence-embedding", sick(), options(loss=loss))
    assert {e.form for e in examples} == {form}
    assert [e.gold for e in examples] == [row[form] for row in sick()]


@pytest.mark.parametrize(
    ("loss", "bad"),
    [
        ("cosine", {"label": None}),
        ("cosine", {"label": 2.5}),
        ("softmax", {"score": None}),
        ("softmax", {"score": "n/a"}),
        ("auto", {"label": None}),
        ("auto", {"score": None}),
    ],
)
def test_a_field_that_is_not_read_is_no_reason_to_fail(loss: Any, bad: dict[str, Any]) -> None:
    for place in (0, 5):
        rows = sick()
        rows[place] |= bad
        other = "label" if "score" in bad else "score"
        examples = read_for("sentence-embedding", rows, options(loss=loss))
        assert [e.gold for e in examples] == [row[other] for row in rows]


def test_the_field_that_is_read_is_checked() -> None:
    rows = sick()
    rows[3]["score"] = "n/a"
    with pytest.raises(DataError, match=r"data.jsonl:4: field 'score': must be a number, not 'n/a'"):
        read_for("sentence-embedding", rows, options(loss="cosine"))
    rows[5]["label"] = None
    with pytest.raises(DataError, match=r"data.jsonl:4: field 'score'"):
        read_for("sentence-embedding", rows, options(loss="auto"))


def test_a_loss_for_another_field_is_refused(pretrained: Path) -> None:
    rows = [{"text1": "a", "text2": "b", "label": "neutral"}] * 2
    chosen = options(loss="cosine")
    examples = read_for("sentence-embedding", rows, chosen)
    with pytest.raises(UsageError, match="'cosine' is not for this data: contrastive or softmax is"):
        base.load("sentence-embedding").describe(examples, [], None, chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "form"), [("auto", "pair"), ("mnr", "pair"), ("cosine", "score"), ("softmax", "label")]
)
def test_anchors_and_positives_may_have_a_score_and_a_label(loss: Any, form: str) -> None:
    rows = [{"anchor": "a", "positive": "b", "score": 0.5, "label": "x"}]
    assert read_for("sentence-embedding", rows, options(loss=loss))[0].form == form
    rows = [row | {"negative": "c"} for row in rows]
    (example,) = read_for("sentence-embedding", rows, options(loss=loss))
    assert example.form == ("triplet" if form == "pair" else form)
    assert len(example.texts) == (3 if form == "pair" else 2)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ("auto", "label"),
        ("single_label_classification", "label"),
        ("multi_label_classification", "labels"),
        ("regression", "score"),
    ],
)
def test_the_problem_type_decides_which_field_of_a_text_is_read(asked: Any, field: str) -> None:
    chosen = options(problem_type=asked)
    examples = read_for("text-classification", rated(), chosen)
    assert [e.gold for e in examples] == [
        tuple(sorted(row["labels"])) if field == "labels" else row[field] for row in rated()
    ]
    spec = base.load("text-classification").describe(examples, [], None, chosen)  # type: ignore[arg-type]
    again = tasks.labelled(CLASSIFY, records(rated()), spec)  # as `headway evaluate` reads
    assert again == examples


def test_a_problem_type_that_the_data_has_not(pretrained: Path) -> None:
    chosen = options(problem_type="regression")
    examples = read_for("text-classification", [{"text": "a", "label": "x"}], chosen)
    with pytest.raises(
        UsageError, match="--problem-type: 'regression' is not for this data, which has 'label'"
    ):
        base.load("text-classification").describe(examples, [], None, chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figure", "form"), [("spearman", "score"), ("average_precision", "label"), ("mrr_at_10", "score")]
)
def test_the_settings_decide_by_which_field_an_embedder_is_judged(figure: str, form: str) -> None:
    spec = tasks.Spec([], 16, EMBED.Settings(figure=figure))
    assert {e.form for e in tasks.labelled(EMBED, records(sick()), spec)} == {form}  # type: ignore[attr-defined]


def test_held_out_pairs_are_read_by_the_field_of_training() -> None:
    of_pairs, of_texts = (base.load(n) for n in ("sentence-embedding", "text-classification"))
    for loss, forms in {
        "cosine": ("score",),
        "contrastive": ("label",),
        "softmax": ("score", "label"),
    }.items():
        chosen = options(loss=loss)  # type: ignore[arg-type]
        examples = read_for("sentence-embedding", sick(), chosen)
        assert of_pairs.wanted_gold(chosen, examples) == forms  # type: ignore[attr-defined]
    chosen = options(problem_type="regression")
    examples = read_for("text-classification", rated(), chosen)
    assert of_texts.wanted_gold(chosen, examples) == ("regression",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("loss", "passages"),
    [("auto", ("p", "n")), ("listwise", ("p", "n")), ("binary", ("x",))],
)
def test_the_loss_decides_which_form_is_ranked(loss: Any, passages: tuple[str, ...]) -> None:
    row = {"query": "q", "positive": "p", "negatives": ["n"], "passage": "x", "label": 0.5}
    (example,) = read_for("text-ranking", [row], options(loss=loss))
    assert example.passages == passages
    broken = row | ({"negatives": None} if loss == "binary" else {"label": None})
    assert read_for("text-ranking", [broken], options(loss=loss))[0].passages == passages
    (example,) = tasks.labelled(RANK, records([row | {"positive": None}]))
    assert (example.passages, example.gold) == (("x",), (0.5,))  # type: ignore[attr-defined]


def test_a_continuation_goes_before_a_text() -> None:
    task: Any = tasks.load("text-generation")
    both = {"text": "all of it", "source": "all", "target": "of it"}
    (example,) = tasks.labelled(task, records([both]))
    assert (example.source, example.target) == ("all", "of it")  # type: ignore[attr-defined]
    assert gold.unread(task, [example], "continuation", "x") == {
        "their 'target' was read, not their 'text' (x)": 1
    }
    for other in (both | {"target": None}, {"text": "all of it", "source": "a web page"}):
        (example,) = tasks.labelled(task, records([other]))
        assert (example.source, example.target) == ("", "all of it")  # type: ignore[attr-defined]


def test_what_was_not_read_is_counted() -> None:
    examples = read_for("sentence-embedding", sick(5), options())
    assert gold.unread(EMBED, examples, "score", "--loss decides") == {
        "their 'score' was read, not their 'label' (--loss decides)": 5
    }
    assert gold.unread(
        CLASSIFY, read_for("text-classification", rated(4), options()), "single", "x decides"
    ) == {
        "their 'label' was read, not their 'labels' (x decides)": 4,
        "their 'label' was read, not their 'score' (x decides)": 4,
    }


@pytest.fixture
def trainer(run: Run, pretrained: Path, tmp_path: Path) -> Any:
    def train(task: str, rows: list[dict[str, Any]], *more: object) -> Any:
        data = write(tmp_path / "data.jsonl", rows)
        return run(
            "train", task, "--model", pretrained, "--train", data, "--eval", data, "--output", tmp_path / "out",
            "--epochs", 1, "--batch-size", 8, "--max-length", 24, "--threads", 1, "--precision", "fp32",
            "--overwrite", *more,
        )  # fmt: skip

    return train


def test_sick_is_trained_by_its_score_and_by_its_label(trainer: Any, tmp_path: Path) -> None:
    told = "12 training examples: their 'score' was read, not their 'label' (--loss decides)"
    for loss, code, word in [
        ("auto", 0, told),
        ("cosine", 0, ""),
        ("softmax", 0, ""),
        ("contrastive", 3, "must be 0 or 1"),
    ]:
        ran = trainer("sentence-embedding", sick(), "--loss", loss)
        assert ran.code == code, ran.err
        assert word in ran.err
        assert (told in ran.err) == (loss == "auto")
        if code == 0:
            assert Checkpoint.read(tmp_path / "out").settings["figure"] == "spearman"


def test_a_regression_is_exported_and_evaluated_by_its_score(trainer: Any, run: Run, tmp_path: Path) -> None:
    ran = trainer("text-classification", rated(), "--problem-type", "regression")
    assert ran.code == 0, ran.err
    assert "was read" not in ran.err
    data = tmp_path / "data.jsonl"
    made = run(
        "export",
        tmp_path / "out",
        "--output",
        tmp_path / "b",
        "--precision",
        "fp32",
        "--eval",
        data,
        "--threads",
        1,
    )
    assert made.code == 0, made.err
    assert Bundle.read(tmp_path / "b").settings["kind"] == "regression"
    for model in ("out", "b"):
        measured = run("evaluate", tmp_path / model, "--data", data, "--threads", 1)
        assert "spearman" in measured.err, measured.err


def test_an_option_of_another_task(trainer: Any) -> None:
    ran = trainer("sentence-embedding", sick(), "--problem-type", "regression")
    assert (ran.code, "--problem-type: has no meaning for sentence-embedding" in ran.err) == (2, True)
