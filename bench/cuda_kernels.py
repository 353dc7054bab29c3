"""How fast the kernels for NVIDIA GPUs move bytes, beside a plain copy: `python -m headway.bench.cuda_kernels`.

A line of JSON for each kernel: the bytes that it must read and write, the microseconds of a call, and its share of what
a copy reaches in the same run. What it computes is the business of tests/test_cuda_kernels.py. Needs PyTorch for CUDA.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from headway.core.search import Search
from headway.cpp_ext import cuda

COPIED = 1 << 30
"""bytes, far more than the caches hold"""
WARM_UP = 5


class Case(NamedTuple):
    name: str
    bytes: int
    """that a call must read and write"""
    call: Callable[[], object]


def main() -> None:
    """Time every kernel; one line of JSON each."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.cuda_kernels", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args().repeats
    cuda.check_device()
    import torch

    copy = torch.empty(2, COPIED, dtype=torch.uint8, device="cuda")
    whole = 2 * COPIED / seconds(torch, lambda: copy[0].copy_(copy[1]), repeats)
    for case in cases(torch, repeats):
        took = seconds(torch, case.call, repeats)
        rate = case.bytes / took
        figures = {"bytes": case.bytes, "us": took * 1e6, "bytes_per_s": rate, "share_of_copy": rate / whole}
        print(json.dumps({"kernel": case.name, **figures}), flush=True)


def seconds(torch: Any, call: Callable[[], object], repeats: int) -> float:
    """Of one call, by events around all of them."""
    for _ in range(WARM_UP):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / repeats


def cases(torch: Any, repeats: int) -> Iterator[Case]:
    """Batches larger than the caches: 512 texts of 256 tokens, of 768 numbers each, in 16 bits."""
    stream = torch.cuda.current_stream().cuda_stream
    rows, length, width, tags, vocabulary, beams = 512, 256, 768, 9, 50_257, 4

    def room(*shape: int, dtype: Any = torch.float32) -> Any:
        return torch.empty(shape, dtype=dtype, device="cuda")

    tokens = rows * length
    hidden = torch.randn(rows, length, width, device="cuda").half()
    flat, offsets = hidden.view(tokens, width), torch.arange(0, tokens + 1, length, device="cuda")
    ids, lengths = room(tokens, dtype=torch.int32).zero_(), torch.full((rows,), length, device="cuda")
    padded, mask, types = (room(rows, length, dtype=torch.int64) for _ in range(3))
    again, pooled = torch.empty_like(hidden), room(rows, width)
    small, scales = room(tokens, width, dtype=torch.int8), room(tokens)
    logits, best = torch.randn(tokens, tags, device="cuda").half(), room(tokens, dtype=torch.int32)
    state, vectors = nbytes(hidden), nbytes(pooled)
    fed = nbytes(ids, padded, mask, types)
    yield Case("pad_ids", fed, lambda: cuda.pad_ids(ids, offsets, 0, padded, mask, types, stream=stream))
    yield Case("pad", 2 * state, lambda: cuda.pad(flat, offsets, again, stream=stream))
    yield Case(
        "unpad", 2 * state, lambda: cuda.unpad(hidden, offsets, again.view(tokens, width), stream=stream)
    )
    for kind in ("mean", "max"):
        name = f"pool {kind}, normalized"
        yield Case(name, state + vectors, lambda k=kind: cuda.pool(hidden, lengths, k, True, pooled, stream))  # type: ignore[misc]
    yield Case("quantize", state + nbytes(small, scales), lambda: cuda.quantize(flat, small, scales, stream))
    yield Case("tags", nbytes(logits, best, scales), lambda: cuda.tags(logits, best, scales, stream))
    settings, sources = Search(num_beams=beams), 64
    scored = torch.randn(sources * beams, vocabulary, device="cuda")
    steps = WARM_UP + repeats + 2
    search = cuda.Beams(vocabulary, [[1]] * sources, settings, [steps] * sources, [0] * sources)
    search.step(scored[:sources], stream)
    yield Case("beam step", nbytes(scored), lambda: search.step(scored, stream))
    lines, heads, columns = sources * beams, 12, 128
    caches = [room(lines, heads, columns, 64, dtype=torch.float16).zero_() for _ in range(12)]
    pointers = torch.tensor([cache.data_ptr() for cache in caches], device="cuda")
    first = (torch.arange(lines, device="cuda") // beams) * beams  # all but one of a source's lines follow it
    written = torch.tensor([columns], device="cuda")
    told = (pointers.data_ptr(), pointers.data_ptr(), first.data_ptr(), written.data_ptr())
    shape = (len(caches), lines, heads, columns, columns, 128)
    moved = 2 * nbytes(*caches) * (beams - 1) // beams
    yield Case("follow", moved, lambda: cuda.follow(*told, shape, stream=stream))


def nbytes(*tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


if __name__ == "__main__":
    main()
