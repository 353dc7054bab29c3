"""fp8: products of 8-bit floats (e4m3), with ranges fixed beforehand on the user's texts, in QDQ form.

For TensorRT on GPUs of compute capability 8.9 and newer. Each activation has one scale and each output channel of
weights one, by the largest magnitude: floats need no clipping. Micikevicius et al. 2022, arXiv:2209.05433.
ONNX Runtime's CPU provider runs the graph only with its optimizations off, which take it for int8.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.export.calibration import LEAST
from headway.export.precision.base import Feeds, Writer
from headway.export.precision.int8_static import by_input, multiply, observe

ABOUT = "8-bit floats (e4m3), activation scales calibrated on the user's texts (for TensorRT)"

E4M3 = ml_dtypes.float8_e4m3fn
HIGHEST = 448
"""the largest number of e4m3"""


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    writer = Writer(model)
    groups = by_input(model, kept)
    observed = observe(model, groups, feeds)
    for x, group in groups.items():
        step = np.array(max(float(observed[x].most.max()), LEAST) / HIGHEST, np.float32)
        narrow, channels = rounded(np.concatenate([layer.weight for layer in group], axis=1))
        multiply(writer, x, group, step, narrow, channels)
    writer.drop_unused_constants()
    return model


def rounded(weight: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Weights (D, N) in e4m3 and one scale for each output channel (N,)."""
    scale = np.maximum(np.abs(weight).max(axis=0) / HIGHEST, LEAST).astype(np.float32)
    return np.clip(weight / scale, -HIGHEST, HIGHEST).astype(E4M3), scale
