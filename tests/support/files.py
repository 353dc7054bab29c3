"""Writing and changing the JSON files of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def change(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; `ABSENT` takes one out."""
    content = json.loads(path.read_text("utf-8")) | fields
    write(path, {name: value for name, value in content.items() if value is not ABSENT})


class _Absent:
    pass


ABSENT = _Absent()
"""instead of a value: the file has no such field"""
