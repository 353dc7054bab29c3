"""The command line: the whole chain, and every bad input with its message, its exit code, and nothing left behind."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.cli.needs import needs
from headway.core.errors import UnavailableError
from tests.conftest import MAX_LENGTH, Ran, Run, records, write_jsonl
from tests.tolerance import MODEL

GOOD = '{"text": "Where is my parcel?", "label": "delivery"}\n'


def lines(text: str | Path) -> list[Any]:
    content = text.read_text("utf-8") if isinstance(text, Path) else text
    return [json.loads(line) for line in content.splitlines()]


def refused(ran: Ran, code: int, *parts: str) -> None:
    """A clear word on standard error, the exit code, no traceback."""
    assert ran.code == code, ran.err
    for part in ("headway: ", *parts):
        assert part in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return shutil.copytree(bundle, tmp_path / "bundle")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "good.jsonl").write_text(GOOD * 2)
    return tmp_path / "good.jsonl"


def test_from_data_to_predictions(run: Run, pretrained: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", records("train", 40))
    dev = write_jsonl(tmp_path / "dev.jsonl", records("dev", 20))
    made, out = tmp_path / "checkpoint", tmp_path / "bundle"
    trained = run(
        "train", "text-classification", "--model", pretrained, "--train", train, "--eval", dev, "--output", made,
        "--epochs", 1, "--batch-size", 20, "--max-length", 32, "--threads", 1, "--precision", "fp32",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert trained.out == ""
    assert f"checkpoint: {made} (accuracy " in trained.err
    assert run("evaluate", made, "--data", dev, "--json", tmp_path / "pytorch.json").code == 0
    exported = run("export", made, "--output", out, "--precision", "fp32,int8", "--eval", dev, "--threads", 1)
    assert exported.code == 0, exported.err
    assert "fp32: worst difference" in exported.err
    assert "int8: worst difference" in exported.err
    assert (
        run("evaluate", out, "--data", dev, "--precision", "fp32", "--json", tmp_path / "fp32.json").code == 0
    )
    assert (tmp_path / "fp32.json").read_text() == (tmp_path / "pytorch.json").read_text()
    figures = json.loads((tmp_path / "fp32.json").read_text())
    assert (figures["task"], figures["n"]) == ("text-classification", 20)
    assert figures["metrics"].keys() == {"accuracy", "macro_f1"}
    predicted = run("predict", out, "--input", dev, "--output", tmp_path / "predictions.jsonl")
    assert (predicted.code, predicted.out) == (0, "")
    assert len(lines(tmp_path / "predictions.jsonl")) == 20
    assert run("inspect", out).code == 0


def test_predictions_are_those_of_the_evaluated_model(
    run: Run, checkpoint: Path, bundle: Path, dev_file: Path, tmp_path: Path
) -> None:
    ours, expected = tmp_path / "ours.jsonl", tmp_path / "expected.jsonl"
    assert (
        run("evaluate", checkpoint, "--data", dev_file, "--predictions", expected, "--threads", 1).code == 0
    )
    assert run("predict", bundle, "--input", dev_file, "--output", ours, "--precision", "fp32").code == 0
    for found, wanted in zip(lines(ours), lines(expected), strict=True):
        assert list(found) == ["label", "score", "scores", "truncated"]
        assert (found["label"], found["truncated"]) == (wanted["label"], wanted["truncated"])
        assert list(found["scores"]) == list(wanted["scores"])
        np.testing.assert_allclose([*found["scores"].values()], [*wanted["scores"].values()], *MODEL["fp32"])


def test_evaluating_a_bundle_writes_the_same_predictions(
    run: Run, bundle: Path, dev_file: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for precision in ("fp32", "int8"):
        assert (
            run("predict", bundle, "--input", dev_file, "--output", first, "--precision", precision).code == 0
        )
        code = run(
            "evaluate", bundle, "--data", dev_file, "--predictions", second, "--precision", precision
        ).code
        assert code == 0
        assert [r["label"] for r in lines(first)] == [r["label"] for r in lines(second)]


def test_ids_are_kept(run: Run, bundle: Path, tmp_path: Path) -> None:
    ids = ["a", 7, None, "", {"deep": [1]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": i, "text": "fine"}) + "\n" for i in ids))
    ran = run("predict", bundle, "--input", tmp_path / "in.jsonl", "--output", "-")
    assert [row.get("id") for row in lines(ran.out)] == ids
    assert ["id" in row for row in lines(ran.out)] == [True, True, False, True, True]


def test_standard_input_and_output(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO('{"text": "Ünï 漢字"}\n'.encode() * 3)))
    ran = run("predict", bundle, "--input", "-", "--output", "-")
    assert (ran.code, ran.err) == (0, "")
    assert len(lines(ran.out)) == 3
    assert run("evaluate", bundle, "--data", "/dev/null", "--json", "-").code == 3


def test_columns_csv_and_parquet(run: Run, bundle: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "in.csv").write_text("body,topic\nWhere is my parcel?,delivery\nGreat,bug\n")
    rows = [{"body": "Where is my parcel?", "topic": "delivery"}, {"body": "Great", "topic": "bug"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    answers = []
    for kind in ("csv", "parquet"):
        ran = run(
            "predict", bundle, "--input", tmp_path / f"in.{kind}", "--output", "-", "--columns", "text=body"
        )
        assert ran.code == 0, ran.err
        answers.append(ran.out)
    assert answers[0] == answers[1]
    data = tmp_path / "in.csv"
    assert run("evaluate", bundle, "--data", data, "--columns", "text=body,label=topic").code == 0


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b'{"label": "bug"}', ["field 'text': missing"]),
        (b'{"text": "fine"', ["invalid JSON"]),
        (b"[1]", ["must be a JSON object, not list"]),
        (b"[" * 5000, ["invalid JSON: more than 100 lists and objects in each other"]),
        (b'{"text": "   ", "label": "bug"}', ["field 'text': is empty or only white space"]),
        (b'{"text": "a\\u0000b", "label": "bug"}', ["field 'text': holds a NUL byte at character 1"]),
        (b'{"text": "caf\xe9"}', ["not UTF-8"]),
        (b'{"text": 5, "label": "bug"}', ["field 'text': must be a text, not int"]),
    ],
)
def test_bad_lines(line: bytes, parts: list[str], run: Run, bundle: Path, tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    bad.write_bytes(GOOD.encode() + line + b"\n")
    refused(run("predict", bundle, "--input", bad, "--output", out), 3, f"{bad}:2: ", *parts)
    refused(run("evaluate", bundle, "--data", bad, "--predictions", out), 3, f"{bad}:2: ", *parts)
    assert os.listdir(tmp_path) == ["bad.jsonl"]


@pytest.mark.parametrize("verb", ["train", "evaluate", "export", "predict"])
@pytest.mark.parametrize("content", ["", GOOD + '{"text": "fine", "label": "new"}\n', None])
def test_bad_files(
    verb: str, content: str | None, run: Run, pretrained: Path, checkpoint: Path, bundle: Path, tmp_path: Path,
    good: Path,
) -> None:  # fmt: skip
    bad, out = tmp_path / "bad.jsonl", tmp_path / "out"
    if content is not None:
        bad.write_text(content)
    if verb == "predict" and content:
        content = None
        bad.unlink()  # labels play no part in it
    commands: dict[str, list[Any]] = {
        "train": [
            "text-classification",
            "--model",
            pretrained,
            "--train",
            good,
            "--eval",
            bad,
            "--output",
            out,
        ],
        "evaluate": [bundle, "--data", bad, "--json", out],
        "export": [checkpoint, "--eval", bad, "--output", out],
        "predict": [bundle, "--input", bad, "--output", out],
    }
    if verb == "train":
        good.write_text(GOOD + GOOD.replace("delivery", "bug"))
    problem = {"": ": holds no records", None: ": No such file"}.get(
        content, ":2: field 'label': unknown label 'new'"
    )
    refused(run(verb, *commands[verb]), 3, f"{bad}{problem}")
    assert not out.exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"bad.jsonl", "good.jsonl"}


def test_one_megabyte_of_text(run: Run, bundle: Path, tmp_path: Path) -> None:
    rows = [{"text": "late parcel " * 90_000}, {"text": "short"}]
    ran = run("predict", bundle, "--input", write_jsonl(tmp_path / "in.jsonl", rows), "--output", "-")
    assert ran.code == 0
    assert [row["truncated"] for row in lines(ran.out)] == [True, False]
    assert f"1 inputs were longer than {MAX_LENGTH} tokens and were cut" in ran.err


def test_wrong_task_for_a_checkpoint(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "--output", tmp_path / "out", "--task", "question-answering")
    refused(ran, 2, "--task: ", "question-answering")
    assert os.listdir(tmp_path) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["fp32/model.onnx", "int8/model.onnx", "tokenizer.json", "headway.json"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damaged_bundles(name: str, damage: Callable[[Path], None], run: Run, copy: Path, good: Path) -> None:
    damage(copy / name)
    out = good.with_name("out.jsonl")
    precision = "int8" if name.startswith("int8") else "fp32"
    refused(run("predict", copy, "--input", good, "--output", out, "--precision", precision), 3, name)
    refused(run("inspect", copy), 3)
    assert not out.exists()


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_inspect_checks_every_file(name: str, run: Run, copy: Path) -> None:
    flip(copy / name)
    refused(run("inspect", copy), 3, f"{name} was changed")


@pytest.mark.parametrize("place", ["file/out", "file/deeper/out"])
def test_outputs_that_cannot_be_written(
    place: str, run: Run, pretrained: Path, checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    good = tmp_path / "file"
    good.write_text("")
    data, out = write_jsonl(tmp_path / "train.jsonl", records("train", 8)), tmp_path / place
    for command in (
        ["train", "text-classification", "--model", pretrained, "--train", data, "--output", out],
        ["evaluate", bundle, "--data", data, "--json", out],
        ["evaluate", bundle, "--data", data, "--predictions", out],
        ["export", checkpoint, "--output", out],
        ["predict", bundle, "--input", data, "--output", out],
        ["bench", bundle, "--input", data, "--output", out],
    ):
        ran = run(*command)
        assert ran.code == 2, command
        assert f"headway: cannot write {out}: " in ran.err
        assert "Traceback" not in ran.err
    assert sorted(os.listdir(tmp_path)) == ["file", "train.jsonl"]


def test_outputs_that_are_taken(run: Run, checkpoint: Path, bundle: Path, good: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    into = ["--output", tmp_path / "folder"]
    refused(run("predict", bundle, "--input", good, *into), 2, "it is a folder")
    refused(run("export", checkpoint, *into), 2, "it exists already; give --overwrite")
    refused(run("export", checkpoint, "--output", good), 2, "it is a file")
    assert os.listdir(tmp_path / "folder") == ["mine"]
    assert good.read_text() == GOOD * 2


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["predict", "BUNDLE", "--input", "GOOD", "--output", "-", "--presision", "fp32"], "--presision"),
        (["predict", "BUNDLE", "--input", "GOOD"], "output"),
        (["predict", "BUNDLE", "--input", "GOOD", "--output", "-", "--precision", "fp8"], "--precision: "),
        (["predict", "BUNDLE", "--input", "GOOD", "--output", "-", "--backend", "warp"], "--backend: unknown 'warp'"),
        (["predict", "BUNDLE", "--input", "GOOD", "--output", "-", "--threads", "0"], "--threads: "),
        (["predict", "BUNDLE", "--input", "GOOD", "--output", "-", "--threads", "many"], "threads"),
        (["predict", "BUNDLE", "--input", "GOOD", "--output", "-", "--columns", "text"], "--columns: "),
        (["evaluate", "CHECKPOINT", "--data", "GOOD", "--precision", "int8"], "--precision: is for bundles"),
        (["train", "juggling", "--model", "m", "--train", "GOOD", "--output", "x"], "TASK: unknown 'juggling'"),
        (["train", "text-classification", "--model", "m", "--train", "GOOD", "--output", "x", "--epochs", "0"],
         "--epochs: "),
        (["export", "CHECKPOINT", "--output", "x", "--precision", "fp7"], "--precision: unknown 'fp7'"),
        (["export", "CHECKPOINT", "--output", "x", "--max-drop", "0.1"], "--max-drop: needs --eval"),
        (["bench", "BUNDLE", "--output", "x", "--rounds", "0"], "--rounds: "),
        (["bench", "BUNDLE", "--output", "x", "--against", "snails"], "--against: unknown 'snails'"),
        (["bench", "BUNDLE", "--output", "x", "--against", "torch"], "--against: torch runs the checkpoint"),
        (["juggle"], "juggle"),
    ],
)  # fmt: skip
def test_wrong_usage(
    command: list[str], part: str, run: Run, bundle: Path, checkpoint: Path, good: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(good.parent)
    places = {"BUNDLE": str(bundle), "CHECKPOINT": str(checkpoint), "GOOD": str(good)}
    refused(run(*(places.get(word, word) for word in command)), 2, part)
    assert os.listdir(good.parent) == ["good.jsonl"]


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export", "bench", "inspect"])
def test_neither_bundle_nor_checkpoint(verb: str, run: Run, good: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    options: dict[str, list[Any]] = {
        "predict": ["--input", good, "--output", tmp_path / "out"],
        "evaluate": ["--data", good, "--json", tmp_path / "out"],
        "export": ["--output", tmp_path / "out"],
        "bench": ["--output", tmp_path / "out"],
        "inspect": [],
    }
    for folder in (tmp_path / "folder", tmp_path / "none"):
        refused(run(verb, folder, *options[verb]), 3, str(folder))
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there(run: Run, bundle: Path, good: Path) -> None:
    ran = run("predict", bundle, "--input", good, "--output", "-", "--device", "cuda")
    refused(ran, 5, "device 'cuda' is not available", "--device cpu")


def test_a_missing_package_is_told_with_its_remedy() -> None:
    with (
        pytest.raises(
            UnavailableError, match=r"'surely_not_there' is not available: pip install 'headway\[x\]'"
        ),
        needs("x"),
    ):
        import surely_not_there  # noqa: F401
    with pytest.raises(ModuleNotFoundError), needs("x"):
        import headway.core.surely_not_there  # noqa: F401


def test_a_bug_is_no_clear_message(
    run: Run, bundle: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("headway.runtime.pipeline.EncoderPipeline.predict", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run("predict", bundle, "--input", good, "--output", good.with_name("out"))
    assert os.listdir(good.parent) == ["good.jsonl"]


def test_interrupted(run: Run, bundle: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headway.runtime.pipeline.EncoderPipeline.predict", interrupted)
    ran = run("predict", bundle, "--input", good, "--output", good.with_name("out"))
    assert ran.code == 130
    assert os.listdir(good.parent) == ["good.jsonl"]


def test_as_a_command(bundle: Path, good: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "headway.cli.main",
        "predict",
        str(bundle),
        "--input",
        "-",
        "--output",
        "-",
    ]
    found = subprocess.run(command, input=GOOD, capture_output=True, text=True, check=True)
    assert found.stderr == ""
    assert len(lines(found.stdout)) == 1
    wrong = subprocess.run([*command, "--threads", "0"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (
        2,
        "",
        "headway: --threads: must be at least 1, not 0\n",
    )


def test_a_reader_that_goes_away_is_no_error(bundle: Path, tmp_path: Path) -> None:
    many = write_jsonl(tmp_path / "many.jsonl", [{"text": "Where is my parcel?"}] * 3000)
    command = f"{sys.executable} -m headway.cli.main predict {bundle} --input {many} --output - | head -n 1"
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert len(lines(found.stdout)) == 1
