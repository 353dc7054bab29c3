"""Benchmarks: sane figures, and no figure for a subject whose answers are wrong."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headway.bench import answers, measure, record, roofline
from headway.bench.measure import Plan, SubjectName, compare
from headway.bench.peers.base import Wanted, halves, load_peer
from headway.bench.report.markdown import markdown
from headway.cli.bench import _same_model
from headway.core.data import Record
from headway.core.errors import (
    BundleError,
    DataError,
    GateError,
    MeasurementError,
    UnavailableError,
    UsageError,
)
from headway.core.manifest import Bundle
from headway.core.tasks import text_classification
from tests.conftest import Run, records, write_jsonl

TEXTS = [r["text"] for r in records("test", 12)]
GOLD = [
    text_classification.read(Record(r, "test", i), labelled=True) for i, r in enumerate(records("test", 12))
]
LABELS = Wanted(task="text-classification", threads=1, max_length=48, pad_id=0, pooling="mean")
VECTORS = Wanted(task="sentence-embedding", threads=1, max_length=48, pad_id=0, pooling="mean")


def measured(subjects: list[SubjectName], wanted: Wanted = LABELS, plan: Plan | None = None) -> record.Record:
    plan = plan or Plan(one_by_one=12, rounds=1)
    return compare(wanted.task, subjects, TEXTS, wanted, plan, examples=GOLD, bundle_seal="seal")


@pytest.fixture(scope="module", autouse=True)
def small_peaks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "SIZE", 64)
        patch.setattr(roofline, "BYTES", 1 << 20)
        yield


@pytest.fixture(scope="module")
def embedder(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As sentence-transformers saves it: mean pooling, normalised."""
    folder = shutil.copytree(pretrained, tmp_path_factory.mktemp("embedder") / "embedder")
    modules = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules.items())
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    told = {"pooling_mode_mean_tokens": True, "word_embedding_dimension": 32}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}))
    return folder


@pytest.fixture(scope="module")
def vectors(embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle."""
    from headway.export.bundle import export
    from headway.export.options import ExportOptions

    output = tmp_path_factory.mktemp("vectors") / "bundle"
    return export(embedder, ExportOptions(output=output, precision="fp32", threads=1)).bundle


@pytest.fixture(scope="module")
def subjects(bundle: Path, checkpoint: Path) -> list[SubjectName]:
    return [
        SubjectName("headway", "fp32", bundle),
        SubjectName("headway", "int8", bundle),
        SubjectName("torch", "fp32", checkpoint),
    ]


@pytest.fixture(scope="module")
def found(subjects: list[SubjectName]) -> record.Record:
    """headway twice, and the peer: one round with all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "AGREEMENT", 0.5)  # int8 of so wild a model is another matter
        return measured(subjects, plan=Plan(one_by_one=12, rounds=1, seconds=0.2, rates=[5.0, 20.0]))


def test_every_subject_has_sane_figures(found: record.Record) -> None:
    assert [r.subject for r in found.rows] == ["headway fp32", "headway int8", "torch fp32"]
    assert (found.texts, found.one_by_one, found.threads) == (12, 12, 1)
    assert found.bundle_seal == "seal"
    for row in found.rows:
        (one,) = row.rounds
        assert len(one.latencies_ms) == 12
        assert min(one.latencies_ms) > 0
        latency = row.latency(50)
        assert latency is not None
        assert latency.low <= latency.value <= latency.high
        assert row.latency(99) is None  # twelve samples say nothing about it
        assert one.throughput > 0
        assert one.cold_start_s > latency.value / 1000
        assert one.memory_mb > 10
        assert row.disk_mb > 0.01
        assert row.quality.keys() == {"accuracy", "macro_f1"}
        assert [load.rate for load in one.load] == [5, 20]
        assert all(load.latencies_ms for load in one.load)
        assert 0.5 <= row.agreement <= 1
        assert row.least_cosine is None


def test_where_the_time_goes(found: record.Record) -> None:
    for row in found.rows:
        (one,) = row.rounds
        if not row.subject.startswith("headway"):
            assert (one.stages_ms, one.waste) == ({}, None)
            continue
        assert list(one.stages_ms) == ["tokenize", "plan", "run", "decode"]
        assert one.stages_ms["tokenize"] > 0
        assert one.stages_ms["run"] > 0
        assert one.waste is not None
        assert 0 <= one.waste < 1


def test_equal_models_agree_wholly(found: record.Record) -> None:
    fp32 = [r for r in found.rows if "fp32" in r.subject]
    assert [r.agreement for r in fp32] == [1, 1]
    assert fp32[0].quality == fp32[1].quality


def test_the_setting_is_one_of_the_peers_own(found: record.Record) -> None:
    for row in found.rows:
        if row.subject.startswith("torch"):
            assert row.fastest.setting.keys() == {"batch_size", "by_length"}
        else:
            assert row.fastest.setting == {"engine": "onnxruntime"}


def test_the_machine_is_described(found: record.Record) -> None:
    assert {"headway", "onnxruntime", "torch", "transformers"} <= found.versions.keys()
    assert [row.versions for row in found.rows] == [{}, {}, {}]
    assert {
        "processor",
        "processors",
        "cgroup_processors",
        "python",
        "system",
        "busy",
    } <= found.machine.keys()
    assert found.peaks is not None
    assert found.peaks.operations.keys() == {"fp32", "int8"}
    assert min(found.peaks.memory, *found.peaks.operations.values()) > 1e6


def test_the_report_holds_every_subject_and_ratio(found: record.Record) -> None:
    text = markdown(found)
    for row in found.rows:
        assert f"| {row.subject} |" in text
    assert "against the best peer" in text
    assert "| same answer | accuracy | padding |" in text
    assert "12 texts (12 of them one by one), cut at 48 tokens" in text


def test_a_record_is_read_as_it_was_written(found: record.Record, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(msgspec.json.encode(found))
    assert record.read(tmp_path / "results.json") == found
    for content, problem in (('{"rows": 3}', "is no record of headway bench"), (None, "No such file")):
        other = tmp_path / "other.json"
        if content is not None:
            other.write_text(content)
        with pytest.raises(DataError, match=problem):
            record.read(other if content is not None else tmp_path / "none.json")


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
        MeasurementError, match=r"^measuring tokenizers-onnxruntime fp32 failed: .*No such file"
    ):
        measured([SubjectName("tokenizers-onnxruntime", "fp32", tmp_path)], VECTORS)


def test_a_bundle_that_cannot_be_opened_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no headway.json in it"):
        measured([SubjectName("headway", "fp32", tmp_path)])


NEEDED = {
    "torch": "torch",
    "sentence-transformers": "sentence_transformers",
    "tokenizers-onnxruntime": "onnxruntime",
    "openvino-direct": "openvino",
    "ctranslate2": "ctranslate2",
}
"""peer → what it needs"""
ELSEWHERE = {
    "fastembed": ("HEADWAY_FASTEMBED_PYTHON", "build/fastembed"),
    "optimum-onnx": ("HEADWAY_OPTIMUM_PYTHON", "build/optimum"),
}
"""peer → what names the Python of its own environment, and where `make peers` puts that"""


def test_peers() -> None:
    for name in ("headway", "tokenizers-onnxruntime", "openvino-direct", *ELSEWHERE):
        assert load_peer(name).NEEDS_CHECKPOINT is False
    for name in ("torch", "sentence-transformers", "ctranslate2"):
        assert load_peer(name).NEEDS_CHECKPOINT is True
    known = (
        "baseline, ctranslate2, fastembed, headway, openvino-direct, optimum-onnx, sentence-transformers, "
        "tokenizers-onnxruntime, torch"
    )
    with pytest.raises(UsageError, match=f"^--against: unknown 'snails'; known: {known}"):
        load_peer("snails")


@pytest.mark.parametrize("name", NEEDED)
def test_peers_embed_alike(name: str, embedder: Path, vectors: Path) -> None:
    pytest.importorskip(NEEDED[name])
    assert_alike(name, embedder if load_peer(name).NEEDS_CHECKPOINT else vectors, vectors)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_peers_elsewhere_embed_alike(name: str, vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variable, folder = ELSEWHERE[name]
    python = os.environ.get(variable) or str(Path(__file__).parents[1] / folder / "bin" / "python")
    if shutil.which(python) is None:
        pytest.skip(f"{name} is in no environment of its own: make peers")
    monkeypatch.setenv(variable, python)
    assert_alike(name, vectors, vectors)


def assert_alike(name: str, model: Path, vectors: Path) -> None:
    full = load_peer(name).precisions(model)[0]
    first, second = measured(
        [SubjectName("headway", "fp32", vectors), SubjectName(name, full, model)], VECTORS
    ).rows
    assert (first.agreement, first.least_cosine) == pytest.approx((1, 1), abs=1e-6)
    assert (second.agreement, second.least_cosine) == pytest.approx((1, 1), abs=1e-4)


@pytest.mark.parametrize("pooling", ["cls", "max"])
@pytest.mark.parametrize("name", ["torch", "ctranslate2"])
def test_peers_pool_as_the_model_does(name: str, pooling: str, embedder: Path, tmp_path: Path) -> None:
    pytest.importorskip(NEEDED[name])
    import torch
    from transformers import AutoModel, AutoTokenizer

    peer, wanted = load_peer(name), msgspec.structs.replace(VECTORS, pooling=pooling)
    full = peer.precisions(embedder)[0]
    subject = peer.open_subject(peer.prepared(embedder, full, wanted, tmp_path), full, wanted)
    found = subject.many(TEXTS, **subject.SETTINGS[-1])
    tokenizer, network = AutoTokenizer.from_pretrained(embedder), AutoModel.from_pretrained(embedder).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            hidden = network(**tokens).last_hidden_state[0]  # (T, D)
        expected = hidden[0] if pooling == "cls" else hidden.amax(0)
        np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-3, atol=1e-3)


def test_other_vectors_are_not_timed(vectors: Path, embedder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    liar = shutil.copytree(embedder, tmp_path / "liar")
    weights = load_file(liar / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(
        weights | {name: weights[name].flip(0).contiguous()}, liar / "model.safetensors", {"format": "pt"}
    )
    said = "^benchmark gate: variant torch fp32: mean cosine with headway fp32 is .*, limit 0.995"
    with pytest.raises(GateError, match=said) as caught:
        measured([SubjectName("headway", "fp32", vectors), SubjectName("torch", "fp32", liar)], VECTORS)
    assert caught.value.exit_code == 4
    assert caught.value.measured < 0.995


def test_vectors_that_are_no_numbers_are_refused() -> None:
    subjects = SubjectName("torch", "fp32", Path()), SubjectName("headway", "fp32", Path())
    one = np.ones((2, 3), np.float32)
    for other in (one * np.nan, one[:, :2]):
        with pytest.raises(GateError):
            measure.refuse_other_answers(*subjects, answers.agreement(other, one))
    measure.refuse_other_answers(*subjects, answers.agreement(2 * one, one))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_agree_with_nothing(wrong: float) -> None:
    right = [0.1, 0.5, 0.9]
    for ours, theirs in (([0.1, wrong, 0.9], right), (right, [0.1, wrong, 0.9]), (right, [wrong, 0.5, 0.9])):
        assert answers.agreement(ours, theirs).figure == pytest.approx(2 / 3)
    assert answers.agreement([0.4, 0.5, 0.9], [0.1, 0.5, wrong]).figure == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", NEEDED)
def test_a_peer_that_is_not_installed(name: str, vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "headway.bench.peers.base.find_spec", lambda module: None if module == NEEDED[name] else "found"
    )
    with pytest.raises(UnavailableError, match="pip install") as caught:
        load_peer(name).precisions(vectors)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("python", ["false", "no/such/python"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_peer_is_looked_for_in_its_own_environment(
    name: str, python: str, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, _ = ELSEWHERE[name]
    monkeypatch.setenv(variable, python)
    with pytest.raises(
        UnavailableError, match=f"^{name} is not available: pip install .*{name}.* {variable}$"
    ) as caught:
        load_peer(name).precisions(vectors)
    assert caught.value.exit_code == 5


def test_a_graph_in_fp32_is_needed(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    for name in ("tokenizers-onnxruntime", "openvino-direct"):
        with pytest.raises(UnavailableError, match="--precision fp32"):
            load_peer(name).precisions(tmp_path)


def test_the_command_for_vectors(run: Run, vectors: Path, embedder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS[:4]) + "\n\n", encoding="utf-8")
    ran = run(
        "bench", vectors, "--input", tmp_path / "in.txt", "--output", tmp_path / "out", "--rounds", 1, "--threads", 1,
        "--seconds", 0, "--against", "torch/fp32", "--checkpoint", embedder, "--max-length", 16,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["texts"], results["max_length"]) == (4, 16)
    assert [row["subject"] for row in results["rows"]] == ["headway fp32", "torch fp32"]
    assert results["rows"][1]["least_cosine"] == pytest.approx(1, abs=1e-4)
    assert "| cosine, mean / least |" in ran.out


def test_what_bench_refuses(run: Run, bundle: Path, vectors: Path, embedder: Path, tmp_path: Path) -> None:
    def code(given: Path, *arguments: object) -> tuple[int, str]:
        ran = run("bench", given, "--output", tmp_path / "out", *arguments)
        assert not (tmp_path / "out").exists()
        return ran.code, ran.err

    for arguments, word in (
        (("--against", "torch"), "--against: torch runs the checkpoint: give --checkpoint"),
        (("--max-length", 49), "--max-length: must be from 1 to the bundle's 48, not 49"),
        (
            ("--against", "torch/int3", "--checkpoint", embedder),
            f"torch has no 'int3'; it has {', '.join(halves())}",
        ),
        (("--rates", "3,no"), "--rates: wants numbers of requests a second, as 20,50; got '3,no'"),
        (("--seconds", -1), "--seconds: must be at least 0, not -1"),
        (("--lengths", "16:0.5,x"), "--lengths: wants tokens and shares, as 16:0.7,64:0.3; got '16:0.5,x'"),
        (("--lengths", "16", "--input", "x.txt"), "--lengths: is instead of --input"),
    ):
        found, said = code(vectors, *arguments)
        assert found == 2
        assert word in said
    found, said = code(bundle, "--against", "ctranslate2")
    assert found == 2
    assert "ctranslate2 is measured at sentence-embedding, not text-classification" in said
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.txt").write_bytes(b"fine\nnot\0fine\n")
    for name, word in (
        ("empty.txt", "holds no records"),
        ("bad.txt", "bad.txt:2: holds a NUL byte"),
        ("no.txt", "cannot be read"),
    ):
        found, said = code(vectors, "--input", tmp_path / name)
        assert found == 3
        assert word in said


def test_the_command(run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "AGREEMENT", 0.5)
    source = write_jsonl(tmp_path / "in.jsonl", records("test", 8))
    ran = run(
        "bench", bundle, "--input", source, "--output", tmp_path / "out", "--rounds", 1, "--one-by-one", 3,
        "--threads", 1, "--rates", "9,30", "--seconds", 0.1,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["bundle_seal"] == Bundle.read(bundle).seal
    assert [row["subject"] for row in results["rows"]] == ["headway fp32", "headway int8"]
    assert [load["rate"] for load in results["rows"][0]["rounds"][0]["load"]] == [9, 30]
    assert results["rows"][0]["quality"].keys() == {"accuracy", "macro_f1"}
    assert results["work"]["tokens"] > 3
    assert "<svg" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert (tmp_path / "out" / "report.md").read_text("utf-8").strip() in ran.out


def test_another_checkpoint_is_refused(run: Run, bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    with (other / "model.safetensors").open("ab") as stream:
        stream.write(b" ")
    ran = run("bench", bundle, "--output", tmp_path / "out", "--against", "torch", "--checkpoint", other)
    assert ran.code == 2
    assert "--checkpoint: is not the checkpoint that the bundle was made from" in ran.err
    assert not (tmp_path / "out").exists()
    foreign = msgspec.structs.replace(Bundle.read(bundle), source={})  # it does not say what it was made from
    _same_model(foreign, other)
