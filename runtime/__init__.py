"""Bundle to predictions, without PyTorch: tokenize, plan, run, decode."""

from headway.runtime.load import load
from headway.runtime.pipeline import Pipeline

__all__ = ["Pipeline", "load"]
