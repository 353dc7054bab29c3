"""Another state of headway: its runtime under this state's benchmark."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from headway.bench.peers import headway as own
from headway.bench.peers.base import Wanted
from headway.core.errors import UnavailableError

NAME = "baseline"
TASKS = own.TASKS
NEEDS_CHECKPOINT = False
ENVIRONMENT = "HEADWAY_BASELINE"
"""environment variable: the folder that is `headway` in that state, as pip install --target leaves it"""

bytes_on_disk = own.bytes_on_disk


def precisions(model: Path) -> list[str]:
    home()
    return own.precisions(model)


def interpreter() -> str:
    return sys.executable


def home() -> Path:
    """What is `headway` in its processes, but for `headway.bench`."""
    found = os.environ.get(ENVIRONMENT)
    if found is None or not (Path(found) / "runtime").is_dir():
        raise UnavailableError(
            "another state of headway", f"name the folder that it is installed in in {ENVIRONMENT}"
        )
    return Path(found)


def prepared(model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
    return model


def open_subject(model: Path, precision: str, wanted: Wanted) -> Baseline:
    return Baseline(own.open_subject(model, precision, wanted))


class Baseline:
    """Without a look at its stages, which may be others."""

    def __init__(self, opened: Any) -> None:
        self.SETTINGS = opened.SETTINGS
        self.one, self.many = opened.one, opened.many
