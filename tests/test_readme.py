"""The README's commands and Python blocks run, in order, on a stand-in of the model that the demo takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.pages import ENCODER, MODELS

ROOT = Path(__file__).parents[1]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_commands_and_code_of_the_readme_run(tmp_path: Path) -> None:
    (tmp_path / "demo-output" / "model").mkdir(parents=True)
    MODELS[ENCODER](tmp_path / "demo-output" / "model")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "texts.txt").write_text("my parcel is late\ngreat shop\n")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    (commands,) = _blocks("bash")
    short = commands.replace(
        "train text-classification", "train text-classification --batch-size 16 --epochs 5"
    ).replace("--rounds 3 --seconds 1", "--rounds 1 --seconds 0")
    shell = subprocess.run(
        ["bash", "-euc", short], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert shell.returncode == 0, shell.stderr
    first, second = _blocks("python")
    second = second.replace("TrainOptions(\n", "TrainOptions(epochs=1,\n")
    for code in (first, second):
        python = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert python.returncode == 0, python.stderr
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 150
