"""The choice of variant and engine: by injected times, remembered, and never in the way."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.core import hardware
from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle
from headway.runtime import choice, load
from headway.runtime.backends import openvino
from headway.runtime.choice import Choice

FP32, INT8, OTHER = Choice("fp32", "onnxruntime"), Choice("int8", "onnxruntime"), Choice("fp32", "openvino")


class Opener(choice.Opener):
    """Opens nothing, and says which choice it was asked for."""

    refused: tuple[Choice, ...] = ()

    def verified(self, precision: str) -> dict[str, Path]:
        return {}

    def open(self, choice: Choice) -> Any:
        if choice in self.refused:
            raise UnavailableError(choice.precision, "use another")
        return choice


class Clock:
    """Measures by a table, and counts."""

    def __init__(self, **seconds: Sequence[float]) -> None:
        self.seconds, self.asked = seconds, list[Choice]()

    def __call__(self, backend: Any, work: Any, limit: float) -> list[float]:
        self.asked.append(backend)
        return list(self.seconds["_".join(backend)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and measuring turned on."""
    monkeypatch.delenv(choice.SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opener(bundle: Path) -> Opener:
    return Opener(bundle, Bundle.read(bundle), ["logits"], "cpu", 2)


def clock() -> Clock:
    return Clock(fp32_onnxruntime=(1, 4), int8_onnxruntime=(2, 1), fp32_openvino=(1, 3))


ALL = [FP32, INT8, OTHER]


def test_the_fastest_over_all_work(opener: Opener) -> None:
    assert choice.choose(ALL, opener, clock()) == (INT8, INT8)
    assert choice.choose([FP32, OTHER], opener, clock()) == (OTHER, OTHER)


def test_measured_once(opener: Opener) -> None:
    first, second = clock(), clock()
    assert choice.choose(ALL, opener, first) == choice.choose(ALL, opener, second)
    assert first.asked == ALL
    assert second.asked == []


def test_nothing_to_choose_is_not_measured(opener: Opener, cache: Path) -> None:
    nobody = clock()
    assert choice.choose([FP32], opener, nobody) == (FP32, FP32)
    assert nobody.asked == []
    assert not cache.exists()


def test_turned_off(opener: Opener, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.SWITCH, "off")
    nobody = clock()
    assert choice.choose(ALL, opener, nobody) == (FP32, FP32)
    opener.__class__.refused = (FP32,)
    try:
        assert choice.choose(ALL, opener, nobody) == (INT8, INT8)
    finally:
        opener.__class__.refused = ()
    assert nobody.asked == []
    assert not cache.exists()


def test_what_no_engine_runs_is_left_out(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Opener, "refused", (INT8,))
    assert choice.choose(ALL, opener, clock()) == (OTHER, OTHER)
    monkeypatch.setattr(Opener, "refused", tuple(ALL))
    with pytest.raises(UnavailableError, match="fp32 is not available"):
        choice.choose([FP32, INT8], opener, clock())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "5",
        '{"precision": "fp32"}',
        '{"precision": "fp8", "engine": "onnxruntime"}',
    ],
)
def test_a_damaged_file_is_measured_again(content: str, opener: Opener, cache: Path) -> None:
    choice.choose(ALL, opener, clock())
    (file,) = cache.rglob("*.json")
    file.write_text(content)
    again = clock()
    assert choice.choose(ALL, opener, again) == (INT8, INT8)
    assert again.asked == ALL
    assert json.loads(file.read_text()) == INT8._asdict()
    assert [p for p in cache.rglob("*") if p.is_file()] == [file]


def test_a_folder_that_cannot_be_written(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in ("file", "file/below"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
        assert choice.choose(ALL, opener, clock()) == (INT8, INT8)


def test_the_choice_belongs_to_bundle_machine_threads_and_versions(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(among: Sequence[Choice] = ALL, **changes: Any) -> int:
        fresh, kept = clock(), {name: getattr(opener, name) for name in opener.__dataclass_fields__}
        choice.choose(among, Opener(**(kept | changes)), fresh)
        return len(fresh.asked)

    assert asked() == 3
    assert asked() == 0
    assert asked(threads=3) == 3
    assert asked(declared=msgspec.structs.replace(opener.declared, made_by={"headway": "0"})) == 3
    assert asked([FP32, INT8]) == 2
    for target, name, value in (
        (hardware, "cpu_name", lambda: "another processor"),
        (hardware, "cpu_flags", lambda: frozenset({"another"})),
        (choice, "_stamp", lambda engine: 7),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, value)
            assert asked() == 3
    assert asked() == 0


@pytest.mark.parametrize(("flags", "first"), [({"avx2"}, "fp32"), ({"avx512_vnni"}, "int8")])
def test_candidates_come_in_the_order_of_the_rule(
    flags: set[str], first: str, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    names = list(opener.declared.variants)
    monkeypatch.setattr(openvino, "PACKAGE", "not_installed")
    found = choice.candidates(opener.declared, names, ["onnxruntime", "openvino"], "cpu")
    assert found[0] == Choice(first, "onnxruntime")
    assert sorted(found) == sorted(Choice(name, "onnxruntime") for name in names)
    assert choice.candidates(opener.declared, ["fp32"], ["openvino"], "cpu") == [OTHER]


def test_variants_for_other_devices_are_no_candidates(opener: Opener) -> None:
    variants = opener.declared.variants
    other = msgspec.structs.replace(variants["int8"], target="cuda")
    declared = msgspec.structs.replace(opener.declared, variants=variants | {"int8": other})
    for names, expected in ((["fp32", "int8"], [FP32]), (["int8"], [INT8])):
        assert choice.candidates(declared, names, ["onnxruntime"], "cpu") == expected


def test_the_work_fits_the_model(opener: Opener) -> None:
    longest, vocabulary = opener.declared.max_length, opener.declared.architecture["vocab_size"]
    work = choice.workload(opener.declared)
    assert [len(batches) for batches in work] == [1, 2] * (len(work) // 2)
    for batches in work:
        for batch in batches:
            assert batch.lengths.max() <= longest
            assert batch.ids.max() < vocabulary
    assert {int(work[0][0].lengths[0]), int(work[-1][0].lengths[0])} == {16, min(128, longest)}


def test_measured_is_the_least_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pieces of work whose runs take 9, 9, then 3, 2, then 5, 1 seconds, by a clock that nothing else moves."""
    now, runs = [0.0], iter([9.0, 9.0, 3.0, 2.0, 5.0, 1.0])

    class Timed:
        def run(self, batches: Any) -> Any:
            now[0] += next(runs)

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    work: Any = [[], []]
    assert choice.measured(Timed(), work, limit=28.5) == [3, 1]  # type: ignore[arg-type]
    runs = iter([9.0, 8.0])
    assert choice.measured(Timed(), work, limit=1) == [9, 8]  # type: ignore[arg-type]


def test_a_bundle_by_its_measured_choice(bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load(bundle, threads=1)
    (file,) = cache.rglob("*.json")
    known = json.loads(file.read_text())
    assert opened.precision == known["precision"]
    other = {"fp32": "int8", "int8": "fp32"}[known["precision"]]
    file.write_text(json.dumps({"precision": other, "engine": "onnxruntime"}))
    monkeypatch.setattr(choice, "measured", lambda *_: pytest.fail("it is remembered"))
    again = load(bundle, threads=1)
    assert again.precision == other
    assert again("fine").truncated is False


def test_a_damaged_variant_is_no_slow_one(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "int8" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"int8/model.onnx has 7 bytes"):
        load(copy)


def test_figures_of_real_runs(bundle: Path) -> None:
    declared = Bundle.read(bundle)
    backend = choice.Opener(bundle, declared, ["logits"], "cpu", 1).open(FP32)
    work = choice.workload(declared)
    seconds = choice.measured(backend, work, limit=0)
    assert len(seconds) == len(work)
    assert np.min(seconds) > 0
