"""The documentation site: every code block of every page is checked, and run in order on small stand-ins."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from headway.cli import demo
from headway.core import data, tasks, threads
from headway.core.errors import HeadwayError
from headway.train import checkpoint, fit
from headway.train.options import TrainOptions
from tests import pages
from tests.conftest import Run
from tests.hub_server import TOKEN, serving

NAMES = [p.relative_to(pages.DOCS).as_posix() for p in pages.pages()]
RUN = [
    name for name in NAMES if any(b.runs and b.language != "text" for b in pages.blocks(pages.DOCS / name))
]
TUTORIALS = [name for name in RUN if name.startswith("tutorials/")]
HUB = "how-to/hub.md"


@pytest.fixture(autouse=True)
def one_processor(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """More threads than processors make tiny models many times slower. `run` puts back what a command changes."""
    monkeypatch.setattr(threads, "affinity_cpus", lambda: 1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all processes of a test run: models, and what the tutorials leave."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "pages"


@pytest.mark.parametrize("name", NAMES)
def test_what_every_block_says_is_so(name: str) -> None:
    for block in pages.blocks(pages.DOCS / name):
        pages.check(block)
    assert not pages.commands_outside_blocks(pages.DOCS / name)


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    wrong = {
        "```ruby\nputs 1\n```": "unknown language",
        "```sh\nheadway train text-classification --trian a\n```": "--trian",
        "```sh\nheadway export c --output b --max-drop 0.1\n```": "needs --eval",
        "```sh title=\"not run by the tests: x\"\npip install 'headway[nothing]'\n```": "nothing",
        '```sh title="not run by the tests: x"\ncurl x | tar x\n```': "nothing checks 'curl'",
        "```python\nfrom headway.runtime import lod\n```": "has no lod",
        '```toml\ntask = "text-ranking"\n[train]\nepoch = 3\n```': "unknown option 'epoch'",
        '```json title="a.jsonl"\n{}\n{\n```': "Expecting",
        "```text\nheadway doctor\n```": "a command in a block of text",
    }
    for text, problem in wrong.items():
        page = tmp_path / "page.md"
        page.write_text(text)
        (block,) = pages.blocks(page)
        with pytest.raises((AssertionError, ValueError, HeadwayError), match=re.escape(problem)):
            pages.check(block)


def test_a_tutorial_a_task() -> None:
    assert [f"tutorials/{name}.md" for name in tasks.names()] == TUTORIALS


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs(name: str, shared: Path) -> None:
    pages.tutorial(Path(name).stem, shared)


def test_the_labels_that_a_tutorial_shows_are_those_of_the_real_model(tmp_path: Path) -> None:
    """Training alone: the export of each precision is held to PyTorch's labels elsewhere."""
    shown = {b.title: b.text for b in pages.blocks(pages.DOCS / "tutorials" / "text-classification.md")}
    for name in ("train.jsonl", "dev.jsonl", "new.jsonl"):
        (tmp_path / name).write_text(shown[name], encoding="utf-8")
    options = TrainOptions(
        model=str(demo.copy_model(tmp_path / "model")),
        train=tmp_path / "train.jsonl",
        eval=tmp_path / "dev.jsonl",
        output=tmp_path / "checkpoint",
        few_shot=True,
        max_length=64,
    )
    opened = checkpoint.open_checkpoint(fit.train("text-classification", options).checkpoint)
    task = tasks.load("text-classification")
    examples: Any = [task.read(record, labelled=False) for record in data.read(tmp_path / "new.jsonl")]
    results: Any = checkpoint.predict(opened, examples)
    lines = [f"{example.id} {result.label}\n" for example, result in zip(examples, results, strict=True)]
    assert "".join(lines) == shown["id and label"]


@pytest.mark.parametrize("name", [name for name in RUN if name not in (*TUTORIALS, HUB)])
def test_a_page_runs(name: str, shared: Path, tmp_path: Path) -> None:
    pages.play(pages.DOCS / name, tmp_path, shared)


def test_the_page_of_the_hub_runs(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with serving() as hub:
        home = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        pages.play(pages.DOCS / HUB, tmp_path / "page", shared, home)
