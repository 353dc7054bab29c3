"""The runtime: order, neighbours, bad inputs, threads, and that PyTorch has no part in it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core import hardware
from headway.core.errors import BundleError, InputError, UnavailableError, UsageError
from headway.runtime import Pipeline, load, pipeline
from headway.runtime.tokenize import open_tokenizer
from tests.conftest import rows_of
from tests.tolerance import MODEL, NEIGHBOURS

PRECISIONS = ["fp32", "int8"]


@pytest.fixture(autouse=True)
def by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not said is chosen without measuring."""
    monkeypatch.setenv("HEADWAY_CACHE", "off")


@pytest.fixture(scope="module", params=PRECISIONS)
def pipe(request: pytest.FixtureRequest, bundle: Path) -> Pipeline:
    return load(bundle, precision=request.param, threads=2)


def scores(results: Any) -> Any:
    """Probabilities of many results, (B, C)."""
    return np.array([list(r.scores.values()) for r in results])


def assert_same(found: Any, expected: Any, precision: str) -> None:
    """The same answers, up to what another padding may change."""
    assert [r.label for r in found] == [r.label for r in expected]
    assert [r.truncated for r in found] == [r.truncated for r in expected]
    np.testing.assert_allclose(scores(found), scores(expected), *NEIGHBOURS[precision])


def test_the_model_tells_the_texts_apart(pipe: Pipeline, texts: list[str]) -> None:
    results = pipe(texts)
    assert len({r.label for r in results}) > 1
    assert scores(results).std(axis=0).min() > 100 * NEIGHBOURS[pipe.precision][1]


def test_alone_equals_in_a_batch(pipe: Pipeline, texts: list[str]) -> None:
    assert_same(pipe(texts), [pipe(text) for text in texts], pipe.precision)


def test_the_order_is_the_callers(pipe: Pipeline, texts: list[str]) -> None:
    order = np.random.default_rng(0).permutation(len(texts))
    straight = pipe(texts)
    assert_same(pipe([texts[i] for i in order]), [straight[i] for i in order], pipe.precision)


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_any_batch_size_gives_the_same(batch_tokens: int, bundle: Path, texts: list[str]) -> None:
    for precision in PRECISIONS:
        other = load(bundle, precision=precision, threads=2, batch_tokens=batch_tokens)
        assert_same(other(texts), load(bundle, precision=precision)(texts), precision)


def test_any_number_of_threads_gives_the_same(pipe: Pipeline, bundle: Path, texts: list[str]) -> None:
    assert_same(load(bundle, precision=pipe.precision, threads=1)(texts), pipe(texts), pipe.precision)


def test_near_to_pytorch(pipe: Pipeline, checkpoint: Path, texts: list[str]) -> None:
    from headway.train.checkpoint import open_checkpoint, outputs

    opened = open_checkpoint(checkpoint)
    expected = np.concatenate([outputs(opened, [r])["probabilities"] for r in rows_of(opened, texts)])
    np.testing.assert_allclose(scores(pipe(texts)), expected, *MODEL[pipe.precision])


def test_a_result_explains_itself(pipe: Pipeline) -> None:
    result: Any = pipe("Where is my parcel?")
    assert list(result.scores) == pipe.manifest.labels
    assert result.label == max(result.scores, key=result.scores.get)
    assert result.score == result.scores[result.label]
    assert sum(result.scores.values()) == pytest.approx(1)


def test_one_text_or_a_list(pipe: Pipeline) -> None:
    one = pipe("Where is my parcel?")
    assert pipe(["Where is my parcel?"]) == [one]
    assert pipe(("Where is my parcel?",)) == [one]
    assert pipe([]) == []


def test_stream_equals_call(pipe: Pipeline, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", 7)
    assert_same(list(pipe.stream(iter(texts))), pipe(texts), pipe.precision)
    assert list(pipe.stream([])) == []


def test_stream_reads_ahead_by_one_window_only(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", 3)
    read: list[int] = []
    results = pipe.stream(f"text {read.append(i) or i}" for i in range(100))  # type: ignore[func-returns-value]
    next(results)
    assert read == [0, 1, 2]


def test_truncated(pipe: Pipeline) -> None:
    fits, cut, huge = "a " * (pipe.manifest.max_length - 2), "a " * pipe.manifest.max_length, "a b " * 262_144
    assert [r.truncated for r in pipe([fits, cut, huge, "short"])] == [False, True, True, False]
    assert [pipe(t).truncated for t in (fits, cut, huge, "short")] == [False, True, True, False]


def test_the_end_that_was_cut_has_no_part(pipe: Pipeline) -> None:
    begin = "late parcel " * 40
    first, second = pipe(begin + "thanks"), pipe(begin + "refund now")
    assert first == second


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (5, "must be a text, .*, not int"),
        (None, "must be a text, .*, not NoneType"),
        (b"bytes", "must be a text, .*, not bytes"),
        ("", "is empty or only white space"),
        (" \t\n\u3000", "is empty or only white space"),
        ("a\0b", "holds a NUL byte at character 1"),
        ("ab\ud800", "holds half of a surrogate pair at character 2"),
    ],
)
def test_unusable_input(pipe: Pipeline, wrong: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"^input 2: {problem}") as caught:
        pipe(["fine", "fine", wrong, "fine"])
    assert caught.value.index == 2
    with pytest.raises(InputError, match=r"^input 0: "):
        pipe(wrong)


@pytest.mark.parametrize("wrong", [{"a", "b"}, 5, (t for t in "ab")])
def test_no_sequence(pipe: Pipeline, wrong: Any) -> None:
    with pytest.raises(InputError, match="wants an input or a sequence of inputs"):
        pipe(wrong)


def test_many_threads_may_share_a_pipeline(pipe: Pipeline, texts: list[str]) -> None:
    expected = pipe(texts)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: pipe(texts), range(16)):
            assert_same(found, expected, pipe.precision)


def test_a_pipeline_of_which_the_first_calls_come_at_once(bundle: Path, texts: list[str]) -> None:
    fresh = load(bundle, precision="fp32", threads=2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fresh(texts), range(8)))
    for found in answers:
        assert_same(found, answers[0], "fp32")


@pytest.mark.parametrize(("flags", "chosen"), [({"avx2"}, "fp32"), ({"avx512_vnni"}, "int8")])
def test_auto_is_the_fast_precision(
    flags: set[str], chosen: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    assert load(bundle).precision == chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "--precision: the bundle has no 'fp8'; it has fp32, int8"),
        (
            {"backend": "warp"},
            "--backend: unknown 'warp'; known: onnxruntime, onnxruntime-cuda, openvino, tensorrt",
        ),
        (
            {"backend": "base"},
            "--backend: unknown 'base'; known: onnxruntime, onnxruntime-cuda, openvino, tensorrt",
        ),
        ({"threads": 0}, "--threads: must be at least 1, not 0"),
        ({"batch_tokens": 0}, "--batch-tokens: must be at least 1, not 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, bundle: Path) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        load(bundle, **options)


def test_no_silent_fallback_to_another_device(bundle: Path) -> None:
    for backend in ("auto", "onnxruntime-cuda", "tensorrt"):
        with pytest.raises(UnavailableError, match="device 'cuda' is not available"):
            load(bundle, device="cuda", backend=backend)


def test_no_bundle(tmp_path: Path, checkpoint: Path) -> None:
    for folder in (tmp_path, tmp_path / "none", checkpoint):
        with pytest.raises(BundleError):
            load(folder)


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer.json cannot be read"):
        open_tokenizer(tmp_path / "tokenizer.json")


def test_only_what_is_used_is_needed(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "int8" / "model.onnx").write_bytes(b"damaged")
    assert load(copy, precision="fp32")("fine").truncated is False
    with pytest.raises(BundleError, match=r"int8/model.onnx has 7 bytes"):
        load(copy, precision="int8")


@pytest.mark.parametrize("elsewhere", ["other/model.onnx", "../outside.onnx"])
def test_a_graph_is_verified_wherever_the_manifest_says_it_is(
    elsewhere: str, bundle: Path, tmp_path: Path
) -> None:
    import shutil

    import msgspec

    from headway.core.manifest import Bundle

    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / elsewhere).parent.mkdir(exist_ok=True)
    shutil.copyfile(copy / "fp32" / "model.onnx", copy / elsewhere)  # usable, but nobody vouches for it
    told = Bundle.read(copy)
    moved = msgspec.structs.replace(told.variants["fp32"], graphs={"model": elsewhere})
    msgspec.structs.replace(told, variants={"fp32": moved}).write(copy)
    with pytest.raises(BundleError, match=r"is used but not listed|leads out of it"):
        load(copy, precision="fp32")


def test_pytorch_has_no_part_in_it(bundle: Path) -> None:
    code = (
        "import json, sys\n"
        "from headway.runtime import load\n"
        f"pipes = [load({str(bundle)!r}, precision=p) for p in ('fp32', 'int8')]\n"
        "labels = [pipe(['one', 'two or three']) and pipe('four').label for pipe in pipes]\n"
        "print(json.dumps([labels, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    labels, modules = json.loads(found.stdout)
    assert labels == [load(bundle, precision=p)("four").label for p in PRECISIONS]
    assert "onnxruntime" in modules
    assert not {"torch", "transformers", "onnx", "onnx_ir", "optimum", "sklearn", "pyarrow"} & set(modules)
