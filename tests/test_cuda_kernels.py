"""The kernels for NVIDIA GPUs: what they refuse without one and, marked gpu, their results against those of the processor.

Their logic is tested everywhere by cpp_ext/tests/cuda, on an emulator.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headway.cpp_ext
from headway import cpp_ext
from headway.core.search import Search
from headway.cpp_ext import cuda
from tests.test_kernel_search import Asked, Wide, run
from tests.tolerance import TOLERANCE


def missing() -> str:
    """Why kernels cannot run here, or nothing."""
    try:
        cuda.check_device()
    except cuda.UnavailableError as error:
        return str(error)
    return ""


MISSING = missing()
BUILT = "_cuda" not in MISSING
needs_module = pytest.mark.skipif(not BUILT, reason=MISSING)
TYPES = ("float32", "float16", "bfloat16")


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(pytest.mark.skipif(bool(MISSING), reason=MISSING)(test))


# Without a GPU.


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class DLManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


CODES = {"int": 0, "float": 2}
"""of DLPack"""


class OnGpu:
    """An array that says that it lies on a GPU, of memory that nobody may read. Source: DLPack's own header."""

    def __init__(self, kind: str, bits: int, *shape: int) -> None:
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        cuda_device, nowhere = 2, 4096
        tensor = DLTensor(nowhere, cuda_device, 0, len(shape), CODES[kind], bits, 1, self.shape, None, 0)
        self.managed = DLManagedTensor(tensor, None, None)

    def __dlpack__(self, **_: object) -> object:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.managed), b"dltensor", None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def f32(*shape: int) -> Any:
    return OnGpu("float", 32, *shape)


def i64(*shape: int) -> Any:
    return OnGpu("int", 64, *shape)


def i32(*shape: int) -> Any:
    return OnGpu("int", 32, *shape)


def i8(*shape: int) -> Any:
    return OnGpu("int", 8, *shape)


def f16(*shape: int) -> Any:
    return OnGpu("float", 16, *shape)


def f64(*shape: int) -> Any:
    return OnGpu("float", 64, *shape)


def test_without_the_module_it_says_what_to_do() -> None:
    code = """
import sys
sys.modules["headway.cpp_ext._cuda"] = None
from headway.cpp_ext import cuda
assert not hasattr(cuda, "median")
for name in cuda.__all__:
    try:
        getattr(cuda, name)
    except cuda.UnavailableError as error:
        assert "nvcc" in error.remedy and "_cuda is not available" in str(error)
        continue
    assert name == "UnavailableError", name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_module
def test_stub_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "_cuda.pyi"
    command = [
        sys.executable,
        "-m",
        "nanobind.stubgen",
        "-q",
        "-m",
        "headway.cpp_ext._cuda",
        "-o",
        str(fresh),
    ]
    subprocess.run(command, check=True, capture_output=True)
    golden = Path(headway.cpp_ext.__file__).with_name("_cuda.pyi")
    assert fresh.read_text() == golden.read_text(), f"run: {' '.join(command[:-1])} cpp_ext/_cuda.pyi"


@needs_module
def test_every_function_is_exported() -> None:
    from headway.cpp_ext import _cuda

    assert set(cuda.__all__) == {n for n in dir(_cuda) if not n.startswith("_")} | {"UnavailableError"}


@needs_module
@pytest.mark.skipif(not MISSING, reason="there is a GPU")
@pytest.mark.parametrize(
    "call",
    [
        cuda.check_device,
        cuda.synchronize,
        lambda: cuda.pool(f32(2, 3, 4), i64(2), "mean", True, f32(2, 4)),
        lambda: cuda.Beams(9, [[1]], Search(num_beams=2), [5], [0]),
    ]
    if BUILT
    else [],
)
def test_without_a_gpu_it_says_so(call: Callable[[], Any]) -> None:
    with pytest.raises(cuda.UnavailableError, match="a GPU is not available: CUDA error") as raised:
        call()
    assert raised.value.what == "a GPU"
    assert raised.value.remedy


@needs_module
@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: cuda.pad_ids(i32(5), i64(0), 0, i64(2, 3)), "offsets is empty"),
        (lambda: cuda.pad_ids(i32(5), i64(3), 0, i64(3, 3)), "out_ids is (3, 3), not (2, 3)"),
        (lambda: cuda.pad_ids(i32(5), i64(3), 0, i64(2, 3), out_mask=i64(2, 4)), "out_mask is (2, 4)"),
        (lambda: cuda.pad_ids(i32(5), i64(3), 0, i64(2, 3), types=i32(4)), "types is (4), not (5)"),
        (lambda: cuda.pad(f32(5, 4), i64(3), f32(2, 3, 5)), "the padded batch is (2, 3, 5), not (2, 3, 4)"),
        (lambda: cuda.unpad(f32(2, 3, 4), i64(3), f16(5, 4)), "must be of one type"),
        (lambda: cuda.pool(f32(2, 3, 4), i64(3), "mean", False, f32(2, 4)), "lengths is (3), not (2)"),
        (lambda: cuda.pool(f64(2, 3, 4), i64(2), "mean", False, f32(2, 4)), "must be float32, float16 or"),
        (lambda: cuda.pool(f32(2, 3, 4), i64(2), "median", False, f32(2, 4)), 'kind is "median"'),
        (lambda: cuda.pool_ragged(f32(5, 4), i64(3), "max", False, f32(3, 4)), "out is (3, 4), not (2, 4)"),
        (lambda: cuda.quantize(f32(2, 3), i8(2, 3), f32(3)), "scales is (3), not (2)"),
        (lambda: cuda.tags(f32(2, 0), i32(2), f32(2)), "logits have no columns"),
        (lambda: cuda.tags(f32(2, 3), i32(3), f32(2)), "out_tags is (3), not (2)"),
        (
            lambda: cuda.spans(
                f32(5), f16(5), i64(5), i64(5), i64(3), i64(2), 9, OnGpu("float", 64, 1, 2), i64(1, 2, 2)
            ),
            "start and end must be of one type",
        ),
        (
            lambda: cuda.spans(
                f32(5), f32(5), i64(5), i64(5), i64(3), i64(2), 9, OnGpu("float", 64, 1, 0), i64(1, 0, 2)
            ),
            "k is 0: it must be 1 to 256",
        ),
        (lambda: cuda.Beams(9, [[1]], Search(), [5], []), "1 prompts, 1 longest, 0 shortest and 1 sources"),
        (lambda: cuda.Beams(9, [[]], Search(), [5], [0]), "the prompt has no tokens"),
        (lambda: cuda.Beams(9, [[1]], Search(do_sample=True), [5], [0]), "do_sample is not for the GPU"),
        (lambda: cuda.follow(0, 0, 0, 0, (1, 1, 1, 4, 4, 3)), "a column has 3 bytes, which is odd"),
        (lambda: cuda.follow(0, 0, 0, 0, (1, -1, 1, 4, 4, 4)), "shape holds -1"),
        (lambda: cuda.advance(0, -1), "count is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        call()


@needs_module
def test_arrays_elsewhere_and_of_other_types_are_refused() -> None:
    x: Any = np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        cuda.quantize(x, i8(2, 3), f32(2))
    with pytest.raises(TypeError, match="incompatible function arguments"):
        cuda.quantize(f32(2, 3), i32(2, 3), f32(2))


# On a GPU.


def torch_cuda() -> Any:
    return pytest.importorskip("torch")


def on_gpu(array: Any, dtype: str | None = None) -> Any:
    torch = torch_cuda()
    return torch.as_tensor(array, device="cuda").to(getattr(torch, dtype) if dtype else None)


def empty(dtype: str, *shape: int) -> Any:
    torch = torch_cuda()
    return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")


def back(tensor: Any) -> Any:
    torch = torch_cuda()
    torch.cuda.synchronize()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def ragged(seed: int, rows: int, longest: int, least: int = 0) -> tuple[Any, Any]:
    """Random numbers and offsets of rows."""
    random = np.random.default_rng(seed)
    return random, np.cumsum([0, *random.integers(least, longest + 1, rows)])


@gpu
@pytest.mark.parametrize("left", [False, True])
def test_padding(left: bool) -> None:
    random, offsets = ragged(1, 70, 300)
    ids = random.integers(0, 30_000, offsets[-1]).astype(np.int32)
    length = 301
    out, mask, types = (empty("int64", 70, length) for _ in range(3))
    cuda.pad_ids(on_gpu(ids), on_gpu(offsets), 7, out, mask, types, left=left)
    np.testing.assert_array_equal(back(out), cpp_ext.pad(ids, offsets, length, 7, left))
    np.testing.assert_array_equal(back(mask), cpp_ext.mask(offsets, length, left))
    assert not back(types).any()


@gpu
@pytest.mark.parametrize(("dtype", "left"), list(itertools.product(TYPES, [False, True])))
def test_padding_of_vectors(dtype: str, left: bool) -> None:
    random, offsets = ragged(2, 30, 90)
    flat = on_gpu(random.standard_normal((offsets[-1], 129)), dtype)
    padded, again = empty(dtype, 30, 90, 129), empty(dtype, *flat.shape)
    cuda.pad(flat, on_gpu(offsets), padded, left=left)
    cuda.unpad(padded, on_gpu(offsets), again, left=left)
    np.testing.assert_array_equal(back(again), back(flat))
    want = cpp_ext.unpad(back(padded).astype(np.float32), offsets, left)
    np.testing.assert_array_equal(back(flat).astype(np.float32), want)
    assert not back(padded)[~cpp_ext.mask(offsets, 90, left).astype(bool)].any()


@gpu
@pytest.mark.parametrize(("dtype", "kind"), list(itertools.product(TYPES, ["mean", "max", "cls"])))
@pytest.mark.parametrize("width", [384, 771])
def test_pooling(dtype: str, kind: str, width: int) -> None:
    random, offsets = ragged(3, 40, 200, least=1)
    flat = on_gpu(random.standard_normal((offsets[-1], width)), dtype)
    out = empty("float32", 40, width)
    cuda.pool_ragged(flat, on_gpu(offsets), kind, True, out)
    want = cpp_ext.pool_ragged(back(flat).astype(np.float32), offsets, kind, True)
    np.testing.assert_allclose(back(out), want, *TOLERANCE["float32"])
    padded, lengths = empty(dtype, 40, 200, width), np.diff(offsets)
    cuda.pad(flat, on_gpu(offsets), padded)
    cuda.pool(padded, on_gpu(lengths), kind, True, out)
    np.testing.assert_allclose(back(out), want, *TOLERANCE["float32"])


@gpu
@pytest.mark.parametrize(("dtype", "columns"), list(itertools.product(TYPES, [9, 384, 10_001])))
def test_int8_per_token(dtype: str, columns: int) -> None:
    x = on_gpu(np.random.default_rng(4).standard_normal((50, columns)), dtype)
    out, scales = empty("int8", 50, columns), empty("float32", 50)
    cuda.quantize(x, out, scales)
    values = back(x).astype(np.float32)
    want = np.maximum(np.abs(values).max(1) * np.float32(1 / 127), np.float32(1e-20))
    np.testing.assert_array_equal(back(scales), want)
    np.testing.assert_array_equal(back(out), np.rint(values / want[:, None]).astype(np.int8))


@gpu
@pytest.mark.parametrize(("dtype", "columns"), list(itertools.product(TYPES, [2, 9, 33, 5000])))
def test_tags(dtype: str, columns: int) -> None:
    logits = on_gpu(np.random.default_rng(5).standard_normal((500, columns)), dtype)
    tags, chances = empty("int32", 500), empty("float32", 500)
    cuda.tags(logits, tags, chances)
    values = back(logits).astype(np.float32)
    best = cpp_ext.argmax(values)
    np.testing.assert_array_equal(back(tags), best)
    want = cpp_ext.softmax(values)[np.arange(500), best]
    np.testing.assert_allclose(back(chances), want, *TOLERANCE["float32"])


@gpu
@pytest.mark.parametrize("overlap", [False, True])
def test_spans(overlap: bool) -> None:
    random, windows = ragged(6, 12, 384)
    questions = np.array([0, 3, 3, 12])
    tokens = windows[-1]
    start, end = (np.rint(4 * random.standard_normal(tokens)).astype(np.float32) for _ in range(2))
    first = np.arange(tokens) * 3
    first[random.random(tokens) < 0.1] = -1
    after = np.arange(tokens) * 3 + 2
    scores, places = empty("float64", 3, 20), empty("int64", 3, 20, 2)
    given = (start, end, first, after, windows, questions)
    cuda.spans(*map(on_gpu, given), 30, scores, places, overlap)
    want_scores, want_places = cpp_ext.spans(*given, 20, 30, overlap)
    np.testing.assert_array_equal(back(scores), want_scores)
    np.testing.assert_array_equal(back(places), want_places)


@gpu
@pytest.mark.parametrize(
    "settings",
    [
        Search(max_new_tokens=12, eos_token_id=[3]),
        Search(num_beams=4, num_return_sequences=4, max_new_tokens=12, eos_token_id=[3, 5]),
        Search(
            num_beams=5, max_new_tokens=9, no_repeat_ngram_size=2, repetition_penalty=1.3, early_stopping=True
        ),
        Search(num_beams=3, max_new_tokens=9, min_new_tokens=4, eos_token_id=[3], forced_eos_token_id=[3, 7]),
    ],
)
@pytest.mark.parametrize("vocabulary", [11, 9001])
def test_beams(settings: Search, vocabulary: int) -> None:
    torch, model = torch_cuda(), Wide(7, vocabulary)
    prompts = [[1], [4, 2], [6, 6, 6]]
    asked = [Asked(prompt, settings) for prompt in prompts]
    longest = [settings.longest(len(prompt)) for prompt in prompts]
    shortest = [settings.shortest(len(prompt)) for prompt in prompts]
    beams, held = cuda.Beams(vocabulary, prompts, settings, longest, shortest), prompts
    stream = torch.cuda.current_stream().cuda_stream
    while not all(beams.done(stream)):
        beams.step(on_gpu(np.concatenate([model.logits(np.array([row])) for row in held])), stream)
        tokens, parents = (torch.from_dlpack(found).tolist() for found in (beams.tokens, beams.parents))
        held = [[*held[parent], token] for parent, token in zip(parents, tokens, strict=True)]
    for source, want in enumerate(run(model, vocabulary, asked)):
        found = beams.found(source, stream)
        assert [tokens for tokens, _, _ in found] == [tokens for tokens, _, _ in want]
        scores = [score for _, score, _ in found]
        np.testing.assert_allclose(scores, [score for _, score, _ in want], *TOLERANCE["float32"])


@gpu
@pytest.mark.parametrize("dtype", TYPES)
def test_caches_that_follow_others(dtype: str) -> None:
    random, rows, written = np.random.default_rng(7), 12, 70
    caches = [on_gpu(random.standard_normal((rows, 3, 96, 64)), dtype) for _ in range(4)]
    parents = random.integers(0, rows // 2, rows)
    parents[: rows // 2] = np.arange(rows // 2)
    wanted = [back(cache).copy() for cache in caches]
    for values in wanted:
        values[:, :, :written] = values[parents][:, :, :written]
    pointers, of = on_gpu(np.array([cache.data_ptr() for cache in caches])), on_gpu(parents)
    counters, width = on_gpu(np.array([written, 5])), 64 * caches[0].element_size()
    stream = torch_cuda().cuda.current_stream().cuda_stream
    told = (
        pointers.data_ptr(),
        pointers.data_ptr(),
        of.data_ptr(),
        counters.data_ptr(),
        (4, rows, 3, 96, 96, width),
    )
    cuda.follow(*told, stream=stream)
    cuda.advance(counters.data_ptr(), 2, 3, stream)
    for cache, values in zip(caches, wanted, strict=True):
        np.testing.assert_array_equal(back(cache), values)
    np.testing.assert_array_equal(back(counters), [written + 3, 8])


@gpu
def test_a_search_begins_again_in_a_captured_step() -> None:
    torch, settings = (
        torch_cuda(),
        Search(num_beams=3, num_return_sequences=3, max_new_tokens=6, eos_token_id=[3]),
    )
    vocabulary, prompts = 600, [[1], [4]]
    logits = on_gpu(np.random.default_rng(8).standard_normal((6, vocabulary)), "float16")
    limits = [settings.longest(1)] * 2, [0, 0]
    kept = cuda.Beams(vocabulary, prompts, settings, *limits, None, (9, 4))
    with pytest.raises(ValueError, match="there is room for 9 tokens, not for 10"):
        kept.begin(prompts, [10, 10], [0, 0])
    stream = torch.cuda.Stream()
    kept.record(logits.data_ptr(), "float16", True, stream.cuda_stream)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        kept.record(logits.data_ptr(), "float16", False, stream.cuda_stream)
    for _ in range(2):
        kept.begin(prompts, *limits, None, stream.cuda_stream)
        plain = cuda.Beams(vocabulary, prompts, settings, *limits)
        kept.record(logits.data_ptr(), "float16", True, stream.cuda_stream)
        plain.step(logits[:2].contiguous(), stream.cuda_stream)
        for _ in range(5):
            with torch.cuda.stream(stream):
                graph.replay()
            plain.step(logits, stream.cuda_stream)
        assert kept.done(stream.cuda_stream) == plain.done(stream.cuda_stream)
        assert kept.found_all(stream.cuda_stream) == [plain.found(b, stream.cuda_stream) for b in (0, 1)]
