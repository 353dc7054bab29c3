"""The GPU's check, run on the processor: its subjects agree, its report has them all, and wrong answers are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.bench import gpu_check

ASKED = ["gpu_check", "--device", "cpu", "--shape", "tiny", "--repeats", "2", "--texts", "20", "--output"]


def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [*ASKED, str(tmp_path / "out")])
    gpu_check.main()
    found = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert found["metrics"].keys() == {"operations", "bytes"}
    (table,) = found["tables"]
    subjects = [row[0] for row in table["rows"]]
    assert {"headway onnxruntime fp32", "torch fp32"} <= set(subjects)
    assert all(row[1] == "100.0 %" for row in table["rows"])
    assert "texts/s" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_other_answers_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = gpu_check.pytorch

    def wrong(machine: Any, opened: Any) -> Any:
        (subject,) = real(machine, opened)
        return [gpu_check.Subject("planted", lambda ids: -subject.batch(ids))]

    monkeypatch.setattr(gpu_check, "pytorch", wrong)
    monkeypatch.setattr(gpu_check, "own", lambda *told: [gpu_check.Problem("other", "it is not there")])
    monkeypatch.setattr(sys, "argv", [*ASKED, str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        gpu_check.main()
    assert left.value.code == 4
    assert "answers differ: tiny planted" in capsys.readouterr().err
    rows = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["tables"][0]["rows"]
    assert rows[0][:2] == ["other", "not run: it is not there"]
