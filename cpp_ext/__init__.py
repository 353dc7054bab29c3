"""The C++ kernels: padding, pooling, softmax and top-k over NumPy arrays, and what the CPU can do."""

from headway.cpp_ext._native import (
    argmax,
    cpu_features,
    level,
    levels,
    mask,
    pad,
    pool,
    pool_ragged,
    set_level,
    softmax,
    top_k,
    unpad,
)

__all__ = [
    "argmax",
    "cpu_features",
    "level",
    "levels",
    "mask",
    "pad",
    "pool",
    "pool_ragged",
    "set_level",
    "softmax",
    "top_k",
    "unpad",
]
