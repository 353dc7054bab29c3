"""What `make demo` left is right: its new messages have their labels, and its test accuracy is not below the known one.

`python -m tests.demo_check demo-output`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from headway.cli.demo import NEW_TEXTS, PRECISIONS, judged
from headway.runtime import load

LEAST_ACCURACY = 0.84
"""of 150 messages: what the demo came to before it trained with `few_shot`"""


def check(output: Path) -> None:
    """Raise AssertionError for a wrong label or too low an accuracy, in PyTorch or a precision."""
    for name in PRECISIONS:
        results: Any = load(output / "bundle", precision=name, threads=2)(list(NEW_TEXTS))
        labels = {text: result.label for text, result in zip(NEW_TEXTS, results, strict=True)}
        assert labels == NEW_TEXTS, f"{name}: {labels}"
    for subject, (accuracy, _) in judged(output, threads=2).items():
        assert accuracy >= LEAST_ACCURACY, f"{subject}: {accuracy:.4f} on the test set"


if __name__ == "__main__":
    check(Path(sys.argv[1]))
