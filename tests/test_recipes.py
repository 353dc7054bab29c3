"""The recipes in examples/, one a task, each run on small data of the form that it names."""

import json
import shutil
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from headway.core import tasks
from tests import corpora
from tests.conftest import Run

RECIPES = sorted(Path(str(resources.files("headway.examples"))).glob("*.toml"))
DATA: dict[str, Callable[[str], corpora.Rows]] = {
    "text-classification": corpora.single,
    "sequential-sentence-classification": corpora.documents,
    "token-classification": corpora.entities,
    "question-answering": corpora.questions,
    "text2text-generation": corpora.rewrites,
    "sentence-embedding": corpora.triplets,
}


@pytest.fixture(scope="module")
def long_model(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT's tokenizer with a body that reads 512 tokens, as the recipes' lengths want."""
    from transformers import AutoConfig, BertModel

    folder = shutil.copytree(pretrained, tmp_path_factory.mktemp("long") / "model")
    config: Any = AutoConfig.from_pretrained(folder)
    config.max_position_embeddings = 512
    BertModel(config).save_pretrained(folder)
    return folder


def data(task: str, folder: Path) -> dict[str, Path]:
    """Files for the recipe's roles."""
    if task == "text-generation":
        text = "\n".join(row["text"] for row in corpora.texts("train")[:60])
        (folder / "train.txt").write_text(text, encoding="utf-8")
        return dict.fromkeys(("train-file", "eval-file", "test-file"), folder / "train.txt")
    if task == "text-ranking":
        return dict.fromkeys(("train-file", "eval-file", "test-file"), collection(folder / "collection"))
    path = corpora.write(DATA[task], "train", folder, 24)
    return dict.fromkeys(("train-file", "eval-file", "test-file"), path)


def collection(folder: Path) -> Path:
    folder.mkdir()
    rows = corpora.anchors("train")[:36]
    splits = ("train", "dev", "test")
    files = {
        "corpus": [{"id": f"d{i}", "text": r["positive"]} for i, r in enumerate(rows)],
        "queries": [{"id": f"q{i}", "text": r["anchor"], "split": splits[i % 3]} for i, r in enumerate(rows)],
        "qrels": [{"query_id": f"q{i}", "doc_id": f"d{i}", "relevance": 1} for i in range(len(rows))],
    }
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_one_a_task() -> None:
    assert [p.stem for p in RECIPES] == tasks.names()
    assert [tomllib.loads(p.read_text("utf-8"))["task"] for p in RECIPES] == tasks.names()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_trains_and_evaluates(
    recipe: Path, run: Run, long_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [x for k, v in data(recipe.stem, tmp_path).items() for x in (f"--{k}", v)]
    if "from_scratch" not in tomllib.loads(recipe.read_text("utf-8"))["train"]:
        arguments += ["--model", long_model]
    ran = run("run", recipe, *arguments)
    assert ran.code == 0, ran.err
    written = json.loads((tmp_path / f"{recipe.stem}-checkpoint" / "headway.json").read_text("utf-8"))
    report = json.loads((tmp_path / f"{recipe.stem}-report" / "report.json").read_text("utf-8"))
    assert written["task"] == report["task"] == recipe.stem
    assert report["metrics"].keys() == written["metrics"].keys()
    again = run("run", recipe, *arguments)
    assert again.code == 2
    assert "--overwrite" in again.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "not a recipe"),
        ('task = "text-classification"', "not a recipe: Object missing required field `train`"),
        (
            'task = "text-classification"\ntrian = 1\n[train]',
            "not a recipe: Object contains unknown field `trian`",
        ),
        ('task = "text-classification"\n[train]\nepoch = 3', "[train]: unknown option 'epoch'"),
        (
            'task = "text-classification"\n[train]\nmodel = "m"\ntrain = "t"\noutput = "o"\nepochs = "3"',
            "[train]: Expected `int`, got `str` - at `$.epochs`",
        ),
        (
            'task = "text-classification"\n[train]\nmodel = "m"\ntrain = 5\noutput = "o"',
            "[train]: Expected a path in quotes, got `int` - at `$.train`",
        ),
        (None, "No such file or directory"),
    ],
)
def test_bad_recipes(text: str | None, message: str, run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    if text is not None:
        recipe.write_text(text)
    ran = run("run", recipe)
    assert ran.code == 3
    assert f"{recipe}: {message}" in ran.err


def test_a_recipe_whose_options_contradict(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "text-classification"\n[train]\nmodel="m"\ntrain="t"\noutput="o"\nepochs = 0')
    assert run("run", recipe)[::2] == (2, "headway: --epochs: must be at least 1, not 0\n")
