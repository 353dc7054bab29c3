"""Benchmarks: sane figures, and no figure for a subject whose answers are wrong."""

import json
import shutil
from pathlib import Path

import pytest

from headway.bench import measure, report
from headway.bench.measure import SubjectName, compare
from headway.bench.peers.base import load_peer
from headway.core.errors import GateError, MeasurementError, UsageError
from headway.core.manifest import Bundle
from tests.conftest import Run, records, write_jsonl

TEXTS = [r["text"] for r in records("test", 12)]


def measured(subjects: list[SubjectName], rounds: int = 1) -> measure.Record:
    return compare(
        subjects, TEXTS, threads=1, max_length=48, bundle_seal="seal", one_by_one=5, rounds=rounds
    )  # fmt: skip


@pytest.fixture(scope="module")
def subjects(bundle: Path, checkpoint: Path) -> list[SubjectName]:
    return [
        SubjectName("headway", "fp32", bundle),
        SubjectName("headway", "int8", bundle),
        SubjectName("torch", "fp32", checkpoint),
    ]


@pytest.fixture(scope="module")
def record(subjects: list[SubjectName]) -> measure.Record:
    """headway twice, and the peer: one round with all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "AGREEMENT", 0.5)  # int8 of so wild a model is another matter
        return measured(subjects)


def test_every_subject_has_sane_figures(record: measure.Record) -> None:
    assert [r.subject for r in record.rows] == ["headway fp32", "headway int8", "torch fp32"]
    assert (record.texts, record.one_by_one, record.rounds, record.threads) == (12, 5, 1, 1)
    assert record.bundle_seal == "seal"
    for row in record.rows:
        figures = (row.latency_ms, row.latency_p95_ms, row.throughput, row.cold_start_s, row.memory_mb)
        for figure in figures:
            assert 0 < figure.least <= figure.median <= figure.most
        assert row.latency_p95_ms.median >= row.latency_ms.median
        assert row.cold_start_s.median > row.latency_ms.median / 1000
        assert 0.5 <= row.agreement <= 1


def test_equal_models_agree_wholly(record: measure.Record) -> None:
    assert [r.agreement for r in record.rows if "fp32" in r.subject] == [1, 1]


def test_the_setting_is_one_of_the_peers_own(record: measure.Record) -> None:
    for row in record.rows:
        peer = row.subject.split()[0]
        if peer == "torch":
            assert row.setting.keys() == {"batch_size", "by_length"}


def test_the_machine_is_described(record: measure.Record) -> None:
    assert {"headway", "onnxruntime", "torch", "transformers"} <= record.versions.keys()
    assert {"processor", "processors", "python", "system"} <= record.machine.keys()


def test_the_report_holds_every_subject_and_ratio(record: measure.Record) -> None:
    text = report.markdown(record)
    for row in record.rows:
        assert f"| {row.subject} |" in text
    assert "against the best peer" in text
    assert "12 texts (5 of them one by one), 1 threads, 1 rounds" in text


def test_wrong_answers_are_not_timed(subjects: list[SubjectName], checkpoint: Path, tmp_path: Path) -> None:
    liar = shutil.copytree(checkpoint, tmp_path / "liar")
    config = json.loads((liar / "config.json").read_text())
    names = list(config["id2label"].values())
    config["id2label"] = dict(zip(config["id2label"], names[1:] + names[:1], strict=True))
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (liar / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        GateError, match=r"^benchmark gate: variant torch fp32: agreement with headway fp32"
    ) as caught:
        measured([subjects[0], SubjectName("torch", "fp32", liar)])
    assert caught.value.measured == 0
    assert caught.value.limit == measure.AGREEMENT


def test_a_worker_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(
        MeasurementError, match=r"^measuring headway fp32 failed: .*there is no headway.json in it"
    ):
        measured([SubjectName("headway", "fp32", tmp_path)])


def test_peers() -> None:
    assert load_peer("headway").NEEDS_CHECKPOINT is False
    assert load_peer("torch").NEEDS_CHECKPOINT is True
    with pytest.raises(UsageError, match="^--against: unknown 'snails'; known: headway, torch"):
        load_peer("snails")


def test_the_command(run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "AGREEMENT", 0.5)
    source = write_jsonl(tmp_path / "in.jsonl", records("test", 8))
    ran = run(
        "bench", bundle, "--input", source, "--output", tmp_path / "out", "--rounds", 1, "--one-by-one", 3,
        "--threads", 1,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["bundle_seal"] == Bundle.read(bundle).seal
    assert [row["subject"] for row in results["rows"]] == ["headway fp32", "headway int8"]
    assert (tmp_path / "out" / "report.md").read_text("utf-8").strip() in ran.out


def test_another_checkpoint_is_refused(run: Run, bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    with (other / "model.safetensors").open("ab") as stream:
        stream.write(b" ")
    ran = run("bench", bundle, "--output", tmp_path / "out", "--against", "torch", "--checkpoint", other)
    assert ran.code == 2
    assert "--checkpoint: is not the checkpoint that the bundle was made from" in ran.err
    assert not (tmp_path / "out").exists()
