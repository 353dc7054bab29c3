"""bf16: 16-bit floats with the range of 32-bit ones and 8 significant bits, so that nothing overflows.

What stays fp32 is as in `fp16`, where the range has no part in it.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from headway.export.precision.base import Feeds
from headway.export.precision.fp16 import narrow

ABOUT = "16-bit floats with the range of 32-bit ones and fewer digits"


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    return narrow(model, kept, feeds, ir.DataType.BFLOAT16)
