"""A model is fetched from the hub by its name: against a stand-in of the hub on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import serving


@pytest.fixture
def hub(pretrained: Path) -> Iterator[str]:
    with serving() as hub:
        hub.add("tester/tiny-bert", pretrained)
        yield hub.url


def _train(hub: str, model: str, train_file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = f"train text-classification --model {model} --max-length 32 --epochs 1 --threads 1"
    return subprocess.run(
        [
            *(sys.executable, "-m", "headway.cli.main", *command.split()),
            *("--train", str(train_file), "--output", str(folder / "checkpoint")),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_is_fetched_by_name(hub: str, train_file: Path, tmp_path: Path) -> None:
    done = _train(hub, "tester/tiny-bert", train_file, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "checkpoint" / "headway.json").read_text())["model"] == "tiny-bert"


def test_an_unknown_name_is_told(hub: str, train_file: Path, tmp_path: Path) -> None:
    done = _train(hub, "tester/nothing", train_file, tmp_path)
    assert done.returncode == 3
    assert "checkpoint tester/nothing: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoint").exists()
