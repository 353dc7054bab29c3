"""TensorRT, or TensorRT for RTX: one API, of which only the part is used that 10.16, 11 and RTX 1.7 have in common."""

from __future__ import annotations

import importlib
import os
from typing import Any

from headway.core.errors import UnavailableError, UsageError

SWITCH = "HEADWAY_TENSORRT"
"""environment variable: which of LIBRARIES; none: tensorrt"""
LIBRARIES = {
    "tensorrt": "pip install 'headway[tensorrt]'",
    "tensorrt-rtx": "pip install tensorrt-rtx",
}
"""each with how to get it"""


class Library:
    """An imported library, and what it had to complain about."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module, self.version = name, module, str(module.__version__)
        self.portable = name == "tensorrt-rtx"
        """whether it builds without the GPU that the engine is for; then the engine is finished where it runs"""

    def logger(self) -> Any:
        """A logger that keeps errors in its `errors`, and says nothing."""
        severity = self.module.ILogger.Severity

        class Kept(self.module.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []

            def log(self, level: Any, message: str) -> None:
                if level in (severity.ERROR, severity.INTERNAL_ERROR):
                    self.errors.append(message)

        return Kept()


def open_library(name: str | None = None) -> Library:
    """The library of that name; none: the one that HEADWAY_TENSORRT names. Raises UnavailableError or UsageError."""
    option = "--library" if name else SWITCH
    name = name or os.environ.get(SWITCH) or "tensorrt"
    if name not in LIBRARIES:
        raise UsageError(option, f"unknown '{name}'; known: {', '.join(LIBRARIES)}")
    try:
        return Library(name, importlib.import_module(name.replace("-", "_")))
    except (ImportError, OSError) as error:  # the second: of a shared library that it needs
        raise UnavailableError(name, LIBRARIES[name]) from error
