"""Everything that can go wrong by data, files, options or machine: a closed list, each with its exit code."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar


class HeadwayError(Exception):
    """Base of the list. `exit_code` is what the `headway` command ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(HeadwayError):
    """An option, or a combination of options, that makes no sense."""

    exit_code = 2

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option, self.problem = option, problem


class OutputError(HeadwayError):
    """An output path that cannot be written. Nothing half-written is left behind."""

    exit_code = 2

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot write {path}: {problem}")
        self.path, self.problem = path, problem

    @classmethod
    def of(cls, path: Path, error: OSError) -> OutputError | UnavailableError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return UnavailableError(f"room on the disk that holds {path}", "free some space and run again")
        if error.errno == errno.EFBIG:
            return UnavailableError(
                f"a file as large as {path} would be", "raise the limit (ulimit -f) and run again"
            )
        if error.errno == errno.EIO:
            return UnavailableError(f"the disk that holds {path}", f"{error.strerror}; write to another one")
        return cls(path, error.strerror or str(error))


class DataError(HeadwayError):
    """A record that cannot be used, with its place in the user's file (lines count from 1)."""

    exit_code = 3

    def __init__(self, problem: str, *, file: str, line: int | None = None, field: str | None = None) -> None:
        place = file if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {problem}" if field is None else f"{place}: field '{field}': {problem}")
        self.problem, self.file, self.line, self.field = problem, file, line, field


class CheckpointError(HeadwayError):
    """A checkpoint folder (or model name) that cannot be opened."""

    exit_code = 3

    def __init__(self, checkpoint: str | Path, problem: str) -> None:
        super().__init__(f"checkpoint {checkpoint}: {problem}")
        self.checkpoint, self.problem = str(checkpoint), problem


class BundleError(HeadwayError):
    """A bundle that is missing, damaged, tampered with, or of an unknown format."""

    exit_code = 3

    def __init__(self, bundle: Path, problem: str) -> None:
        super().__init__(f"bundle {bundle}: {problem}")
        self.bundle, self.problem = bundle, problem


class InputError(HeadwayError, ValueError):
    """An input of `pipe(...)` that is not a usable text; `index` is its place in the call."""

    exit_code = 3

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"input {index}: {problem}")
        self.index, self.problem = index, problem


class GateError(HeadwayError):
    """A measured figure is on the wrong side of its limit."""

    exit_code = 4

    def __init__(self, gate: str, variant: str, figure: str, measured: float, limit: float) -> None:
        super().__init__(f"{gate} gate: variant {variant}: {figure} is {measured:.6g}, limit {limit:.6g}")
        self.gate, self.variant, self.figure = gate, variant, figure
        self.measured, self.limit = measured, limit


class EndToEndError(HeadwayError):
    """A bundle gives other answers to raw strings than the library that a user would call on the model's folder."""

    exit_code = 4

    def __init__(
        self, checkpoint: Path, reference: str, measured: float, limit: float, setting: str | None
    ) -> None:
        why = f"it ignores {setting}" if setting else "no single setting of the model explains it"
        super().__init__(
            f"end-to-end parity: the bundle of {checkpoint} gives other answers than {reference}: {why} "
            f"(largest difference {measured:.3g}, limit {limit:.3g})"
        )
        self.checkpoint, self.reference, self.setting = checkpoint, reference, setting
        self.measured, self.limit = measured, limit


class MeasurementError(HeadwayError):
    """A measuring process ended without a result; `last_words` is the end of what it wrote."""

    def __init__(self, subject: str, last_words: str) -> None:
        super().__init__(f"measuring {subject} failed: {last_words or 'no message'}")
        self.subject, self.last_words = subject, last_words


class UnavailableError(HeadwayError):
    """Something needed is not installed or not on this machine; `remedy` says what to do."""

    exit_code = 5

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} is not available: {remedy}")
        self.what, self.remedy = what, remedy


class OverloadedError(UnavailableError):
    """More is asked than is answered: a request found no place in the queue in time."""

    def __init__(self, queue: int, patience_ms: float) -> None:
        super().__init__(
            f"a place in the queue of {queue} requests",
            f"none was free for {patience_ms:g} ms; try again later",
        )
        self.queue, self.patience_ms = queue, patience_ms
