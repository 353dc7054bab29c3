"""The C++ kernels: padding, pooling, softmax, top-k, tags, spans and the search for tokens over NumPy arrays; what the CPU can do."""

from headway.cpp_ext._native import (
    Searcher,
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
    spans,
    stretch_chances,
    tags,
    top_k,
    unpad,
)

__all__ = [
    "Searcher",
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
    "spans",
    "stretch_chances",
    "tags",
    "top_k",
    "unpad",
]
