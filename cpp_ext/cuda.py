"""The kernels for NVIDIA GPUs: padding, pooling, int8, tags, spans, beam search and its caches, over arrays in the GPU's memory.

Arrays are whatever has `__dlpack__` and lies on the current device: tensors of PyTorch, arrays of CuPy, buffers of
cuda.core. Results go to arrays that the caller gives. A call puts its work on a stream, a `cudaStream_t` as a number
(0: the default one), and returns at once; what offsets and lengths hold is therefore not checked.

Without a driver or a GPU, and where headway was built without nvcc, calls raise UnavailableError.
"""

from __future__ import annotations


class UnavailableError(RuntimeError):
    """The module or a GPU that can be used is not there; `remedy` says what to do, or what CUDA says."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} is not available: {remedy}")
        self.what, self.remedy = what, remedy


try:
    from headway.cpp_ext._cuda import (
        Beams,
        advance,
        check_device,
        follow,
        no_wrong_row,
        pad,
        pad_ids,
        pool,
        pool_ragged,
        quantize,
        spans,
        synchronize,
        tags,
        unpad,
    )
except ModuleNotFoundError:

    def __getattr__(name: str) -> object:
        if name in __all__:
            raise UnavailableError(
                "headway.cpp_ext._cuda", "install headway from its source where nvcc is found"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Beams",
    "UnavailableError",
    "advance",
    "check_device",
    "follow",
    "no_wrong_row",
    "pad",
    "pad_ids",
    "pool",
    "pool_ragged",
    "quantize",
    "spans",
    "synchronize",
    "tags",
    "unpad",
]
