"""Exporting a folder of the corpus, and opening the bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headway.core.errors import CheckpointError
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import load


def exported(folder: Path, task: str | None = None) -> Any:
    """A pipeline over an fp32 bundle of a folder, which is written beside it."""
    output = folder.with_name(f"{folder.name}-bundle")
    export(folder, ExportOptions(output=output, task=task, precision="fp32", threads=1))
    return load(output, threads=1)


def exported_or_refused(folder: Path, setting: str, task: str | None = None) -> Any:
    """As `exported`; or None where the export refuses the folder, which it must do by the name of the setting."""
    try:
        return exported(folder, task)
    except CheckpointError as error:
        problem = error.problem
    assert re.search(setting, problem)
    assert not folder.with_name(f"{folder.name}-bundle").exists()
    return None
