"""Bundle to predictions, without PyTorch: tokenize, plan, run, decode."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""read at the first import of onnxruntime. It sends nothing anywhere then, and starts no thread, which a forked child would
wait for when it ends"""

from headway.runtime.load import load
from headway.runtime.pipeline import Pipeline

__all__ = ["Pipeline", "load"]
