"""Where a verb writes: folders above its output are made, and what cannot be written is refused before the work."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from headway.cli import demo
from headway.core.errors import OutputError
from headway.runtime.bulk import resumable
from tests.conftest import Run, records, write_jsonl
from tests.small import small_bundle
from tests.test_train import Killed

NOTHING = "there-is-no-such-file"
"""an input, a model and a bundle: whoever looks for it says so, which would be another error"""
VERBS: dict[str, list[str]] = {
    "train": ["train", "text-classification", "--model", NOTHING, "--train", NOTHING, "--output"],
    "export": ["export", NOTHING, "--output"],
    "predict": ["predict", NOTHING, "--input", NOTHING, "--output"],
    "evaluate --json": ["evaluate", NOTHING, "--data", NOTHING, "--json"],
    "evaluate --predictions": ["evaluate", NOTHING, "--data", NOTHING, "--predictions"],
    "evaluate --report": ["evaluate", NOTHING, "--data", NOTHING, "--report"],
    "bench": ["bench", NOTHING, "--output"],
    "index build": ["index", "build", NOTHING, "--embedder", NOTHING, "--output"],
    "index search": ["index", "search", NOTHING, "--query", "a", "--output"],
    "index cluster": ["index", "cluster", NOTHING, "--output"],
    "index cluster --plot": ["index", "cluster", NOTHING, "--output", "-", "--plot"],
    "doctor": ["doctor", NOTHING, "--json"],
    "demo": ["demo", "--output"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_in_the_way_is_told_first(verb: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "out.png", tmp_path / "file" / "deeper" / "out.png"):
        came = run(*VERBS[verb], output)
        assert (came.code, came.out) == (2, "")
        assert came.err == f"headway: cannot write {output}: Not a directory\n"


@pytest.mark.parametrize("verb", ["train", "export", "evaluate --report", "index build", "demo"])
@pytest.mark.parametrize("output", [".", "..", "/"])
def test_a_folder_without_a_name_is_told(verb: str, output: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "inside").mkdir()
    with contextlib.chdir(tmp_path / "inside"):
        came = run(*VERBS[verb], output)
    assert (came.code, came.err) == (2, f"headway: cannot write {output}: give the folder by its name\n")


def test_a_recipe_is_refused_before_it_trains(pretrained: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    data = write_jsonl(tmp_path / "train.jsonl", records("train", 16))
    for option in ("json", "predictions", "report"):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(
            f'task = "text-classification"\n[train]\nmodel = "{pretrained}"\ntrain = "{data}"\n'
            f'output = "{tmp_path / "checkpoint"}"\n[evaluate]\ndata = "{data}"\n'
            f'{option} = "{tmp_path / "file" / "out"}"\n'
        )
        came = run("run", recipe)
        assert came.code == 2
        assert came.err.endswith(f"headway: cannot write {tmp_path / 'file' / 'out'}: Not a directory\n")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "train.jsonl", "recipe.toml"}


def test_predictions_in_new_folders(tmp_path: Path, run: Run) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    data = write_jsonl(tmp_path / "in.jsonl", [{"text": "where is my parcel", "label": "delivery"}])
    output = tmp_path / "a" / "b" / "out.jsonl"
    came = run("predict", bundle, "--input", data, "--output", output, "--threads", "1")
    assert came.code == 0, came.err
    assert json.loads(output.read_text())["label"]
    assert [p.name for p in output.parent.iterdir()] == ["out.jsonl"]
    outputs = [tmp_path / "c" / name for name in ("d/e.json", "f/g.jsonl", "h/i")]
    flags = [
        part for pair in zip(("--json", "--predictions", "--report"), outputs, strict=True) for part in pair
    ]
    came = run("evaluate", bundle, "--data", data, *flags, "--threads", "1")
    assert came.code == 0, came.err
    assert all(output.exists() for output in outputs)


def test_nothing_is_left_of_an_input_that_is_refused(tmp_path: Path, run: Run) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    data = write_jsonl(tmp_path / "in.jsonl", [{"txt": "where"}])
    came = run("predict", bundle, "--input", data, "--output", tmp_path / "a" / "b" / "out.jsonl")
    assert came.code == 3
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", "in.jsonl"}


def test_bulk_output_in_new_folders(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b" / "out.jsonl"
    with resumable(output, {}) as partial:
        partial.stream.write("x\n")
    assert output.read_text() == "x\n"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"), resumable(tmp_path / "file" / "out.jsonl", {}):
        pass


def test_findings_in_new_folders(tmp_path: Path, run: Run) -> None:
    run("doctor", "--json", tmp_path / "a" / "b.json")
    assert "findings" in json.loads((tmp_path / "a" / "b.json").read_text())


def test_checkpoint_and_bundle_in_new_folders(pretrained: Path, tmp_path: Path, run: Run) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", records("train", 16))
    checkpoint, bundle = tmp_path / "a" / "b" / "checkpoint", tmp_path / "c" / "d" / "bundle"
    given: list[Any] = ["--model", pretrained, "--train", data, "--epochs", 1, "--max-length", 32]
    came = run("train", "text-classification", *given, "--output", checkpoint, "--threads", 1)
    assert came.code == 0, came.err
    came = run("export", checkpoint, "--output", bundle, "--precision", "fp32", "--threads", 1)
    assert came.code == 0, came.err
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint"]
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_bad_data_leaves_no_folder(pretrained: Path, tmp_path: Path, run: Run) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", [{"text": "a"}])
    output = tmp_path / "a" / "b" / "checkpoint"
    came = run("train", "text-classification", "--model", pretrained, "--train", data, "--output", output)
    assert came.code == 3
    assert {p.name for p in tmp_path.iterdir()} == {"train.jsonl"}


def test_demo_makes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path) -> Path:
        assert folder.parent.is_dir()
        raise Killed

    monkeypatch.setattr(demo, "copy_model", stop)
    with pytest.raises(Killed):
        demo.demo(output=tmp_path / "a" / "b")
