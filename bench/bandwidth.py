"""How fast this machine reads memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BYTES = 1 << 30
PASSES = 5


def reading(threads: int, size: int = BYTES) -> float:
    """Bytes a second that so many threads read together: the fastest of some passes over an array, a part for each."""
    parts = np.array_split(np.ones(size // 4, np.float32), threads)
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PASSES):
            begin = time.perf_counter()
            list(pool.map(np.max, parts))  # of numpy's reductions the fastest; it gives the interpreter free
            times.append(time.perf_counter() - begin)
    return size / min(times)
