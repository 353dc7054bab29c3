"""fp32: the reference variant, as exported."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from headway.export.precision.base import Feeds

ABOUT = "32-bit floats throughout; the reference"


def convert(model: ir.Model, kept: Collection[str], feeds: Feeds) -> ir.Model:
    return model
