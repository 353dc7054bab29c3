"""The closed list of errors: each carries the values that explain it, and its exit code."""

import errno
import importlib
import pkgutil
from pathlib import Path

import pytest

from headway.core.errors import (
    BundleError,
    CheckpointError,
    DataError,
    GateError,
    HeadwayError,
    InputError,
    MeasurementError,
    OutputError,
    OverloadedError,
    UnavailableError,
    UsageError,
)

PLACE = Path("some/place")

CASES = [
    (UsageError("--epochs", "must be at least 1"), 2, "--epochs: must be at least 1"),
    (OutputError(PLACE, "it is a file"), 2, "cannot write some/place: it is a file"),
    (DataError("is missing", file="a.jsonl", line=3, field="text"), 3, "a.jsonl:3: field 'text': is missing"),
    (DataError("empty line", file="a.jsonl", line=3), 3, "a.jsonl:3: empty line"),
    (DataError("holds no records", file="a.jsonl"), 3, "a.jsonl: holds no records"),
    (CheckpointError(PLACE, "no model"), 3, "checkpoint some/place: no model"),
    (BundleError(PLACE, "no manifest"), 3, "bundle some/place: no manifest"),
    (InputError(7, "is empty"), 3, "input 7: is empty"),
    (GateError("parity", "int8", "worst", 2.5, 1.0), 4, "parity gate: variant int8: worst is 2.5, limit 1"),
    (MeasurementError("torch fp32", "died"), 1, "measuring torch fp32 failed: died"),
    (UnavailableError("onnxruntime", "pip install it"), 5, "onnxruntime is not available: pip install it"),
    (
        OverloadedError(8, 250.0),
        5,
        "a place in the queue of 8 requests is not available: none was free for 250 ms; try again later",
    ),
]


@pytest.mark.parametrize(("error", "code", "message"), CASES)
def test_message_and_exit_code(error: HeadwayError, code: int, message: str) -> None:
    assert (error.exit_code, str(error)) == (code, message)


def test_values_are_kept() -> None:
    error = DataError("bad", file="a.csv", line=2, field="label")
    assert (error.problem, error.file, error.line, error.field) == ("bad", "a.csv", 2, "label")
    gate = GateError("quality", "int8", "drop", 0.2, 0.1)
    assert (gate.gate, gate.variant, gate.figure, gate.measured, gate.limit) == (
        "quality", "int8", "drop", 0.2, 0.1,
    )  # fmt: skip
    assert (UsageError("--x", "no").option, OutputError(PLACE, "no").path) == ("--x", PLACE)
    assert (BundleError(PLACE, "no").bundle, CheckpointError(PLACE, "no").checkpoint) == (PLACE, str(PLACE))
    assert (InputError(7, "no").index, UnavailableError("a", "b").remedy) == (7, "b")


def test_input_error_is_a_value_error() -> None:
    assert isinstance(InputError(0, "is empty"), ValueError)


def test_a_full_disk_is_something_unavailable() -> None:
    full = OutputError.of(PLACE, OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(full, UnavailableError)
    other = OutputError.of(PLACE, OSError(errno.EROFS, "Read-only file system"))
    assert isinstance(other, OutputError)
    assert other.problem == "Read-only file system"


def test_every_error_anywhere_has_an_exit_code_of_the_list() -> None:
    import headway.bench
    import headway.cli
    import headway.export
    import headway.runtime
    import headway.train

    for package in (headway.core, headway.train, headway.export, headway.runtime, headway.bench, headway.cli):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    found, pending = set(), [HeadwayError]
    while pending:
        subclasses = pending.pop().__subclasses__()
        pending += subclasses
        found |= set(subclasses)
    assert {type(error) for error, _, _ in CASES} <= found
    assert {error.exit_code for error in found} <= {1, 2, 3, 4, 5}
