"""Predictions of a whole file that survive a kill: what is whole so far is kept, and a later run goes on there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import msgspec

from headway.core import files
from headway.core.data import Record
from headway.core.errors import OutputError

FORMAT = "headway-predict-1"


Records = TypeVar("Records", bound=Iterator[Record])


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """First line of a journal: what the predictions depend on beside the input."""

    format: str = FORMAT
    settings: dict[str, Any]


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every other line of a journal: what is safely on the disk."""

    records: int
    bytes: int
    """of the partial output"""
    cut: int
    """records whose text was longer than the model"""
    sha256: str
    """over the records that were answered"""


NOTHING = Whole(0, 0, 0, hashlib.sha256().hexdigest())


class Partial:
    """An output that grows by whole blocks of lines: `OUTPUT.partial`, and `OUTPUT.journal` beside it.

    A block counts when the journal names it, which is after its lines are on the disk. What a killed run left
    behind the last such block is cut off. Predictions are thus written exactly once.
    """

    def __init__(
        self, output: Path, lines: BinaryIO, journal: BinaryIO, whole: Whole, block: int = 0
    ) -> None:
        self._output, self._journal, self._lines = output, journal, lines
        self.whole = whole
        self.block = block
        """records that were committed together at last, by this run or the one before; 0: none were"""
        self.stream: TextIO = io.TextIOWrapper(lines, encoding="utf-8", newline="\n")
        """where the next lines go"""
        self._read = hashlib.sha256()
        self._finished = False

    def rest(self, records: Records) -> Records:
        """The records that are not answered yet. Raises OutputError if those before are not what they were."""
        for _ in range(self.whole.records):
            if (record := next(records, None)) is None:
                break
            self._read.update(_content(record))
        if self._read.hexdigest() != self.whole.sha256:
            raise _other(self._output, f"other input ({self.whole.records} records of it were answered)")
        return records

    def commit(self, answered: Sequence[Record], cut: int) -> None:
        """The lines of these records were written to `stream`, and are to be kept."""
        if not answered:
            return
        with _telling(self._output):
            self.stream.flush()
            os.fsync(self._lines.fileno())
            for record in answered:
                self._read.update(_content(record))
            so_far = self.whole
            self.block = len(answered)
            self.whole = Whole(
                so_far.records + len(answered), self._lines.tell(), so_far.cut + cut, self._read.hexdigest()
            )
            # of the journal nothing is lost by a late write: the run begins again at the block before
            line = _line(self.whole)
            if self._journal.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish(self) -> None:
        """Give the output its name."""
        partial, journal = _beside(self._output)
        with _telling(self._output):
            self.stream.flush()
            os.fsync(self._lines.fileno())
            with suppress(FileNotFoundError):  # the mode may have been changed meanwhile
                files.keep_mode(self._lines.fileno(), os.stat(self._output))
            os.replace(partial, self._output)
            _sync_folder(self._output.parent)
            journal.unlink()
        self._finished = True

    def close(self) -> None:
        """Keep what is whole for the next run; leave nothing behind where nothing is."""
        self._journal.close()
        with suppress(OSError):  # what is not committed does not count
            self.stream.close()
        if not self._finished and not self.whole.records:
            _remove(*_beside(self._output))


def can_resume(source: str | Path, output: str | Path) -> bool:
    """Whether both are files (or the input a folder), which are still there after a kill."""
    return "-" not in (str(source), str(output)) and not _is_stream(Path(source))


@contextmanager
def resumable(output: Path, settings: Mapping[str, Any], restart: bool = False) -> Iterator[Partial]:
    """Open the output that a run with the same settings left unfinished, or a new one.

    When the block ends well the output appears, by one rename; a link stays, and what it leads to is replaced. When it does not, what is whole is kept for the
    next run; nothing is left behind where nothing is whole.

    Args:
        settings: all that the predictions depend on beside the input; plain values.
        restart: begin anew, whatever was left.
    Raises:
        OutputError: the place cannot be written, another run is writing it, or it was begun with other settings.
        UnavailableError: the disk is full or fails.
    """
    _refuse_no_file(output)
    output = files.target(output)
    with files.parents_of(output):
        opened = _open(output, Begun(settings=dict(settings)), restart)
        try:
            with files.telling(output):
                yield opened
            opened.finish()
        finally:
            opened.close()


def _open(output: Path, begun: Begun, restart: bool) -> Partial:
    partial, journal = _beside(output)
    with _telling(output):
        lines = _locked(output, partial)
        size = os.path.getsize(partial)
        try:
            left = None if restart else _left(output, size, begun)
            if left is None:
                left = NOTHING, 0
                _write_new(journal, _line(begun))
            whole, block = left
            lines.truncate(whole.bytes)
            lines.seek(whole.bytes)
            return Partial(output, lines, journal.open("ab", buffering=0), whole, block)
        except BaseException:
            lines.close()
            if size == 0:
                _remove(partial)
            raise


def _refuse_no_file(output: Path) -> None:
    with _telling(output):
        if output.exists() and not output.is_file():
            raise OutputError(output, "it is a folder" if output.is_dir() else "it is no file")


def _beside(output: Path) -> tuple[Path, Path]:
    return output.with_name(f"{output.name}.partial"), output.with_name(f"{output.name}.journal")


def _is_stream(path: Path) -> bool:
    """A pipe or a device: what was read of it is gone."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _locked(output: Path, partial: Path) -> BinaryIO:
    """The partial output, opened and ours alone until it is closed, by a kill too."""
    try:
        opened = files.create(partial, output)
    except FileExistsError:
        opened = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    lines = os.fdopen(opened, "r+b")
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lines.fileno()), os.stat(partial)):
            raise FileNotFoundError  # the other run has just given it its name
    except (BlockingIOError, FileNotFoundError):
        lines.close()
        raise OutputError(output, f"another run is writing {partial.name}") from None
    return lines


def _left(output: Path, size: int, begun: Begun) -> tuple[Whole, int] | None:
    """What an earlier run left whole, and the records in its last block; None for nothing.

    Raises OutputError if that run was another one.
    """
    partial, journal = _beside(output)
    noted = journal.read_bytes() if journal.exists() else b""
    first, *blocks = noted.splitlines(keepends=True) or [b""]
    try:
        before = msgspec.json.decode(first, type=Begun)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if size == 0:
            return None
        raise OutputError(
            output, f"{partial.name} is in the way, and {journal.name} does not say what it is; {_REMEDY}"
        ) from None
    if differing := _differing(before, begun):
        if size == 0:
            return None
        raise _other(output, differing)
    found, end, last = NOTHING, len(first), 0
    for block in blocks:
        try:
            whole = msgspec.json.decode(block, type=Whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            break
        if whole.bytes > size:
            break
        found, end, last = whole, end + len(block), whole.records - found.records
    os.truncate(journal, end)
    return found, last


_REMEDY = "give --restart to begin anew"


def _differing(before: Begun, now: Begun) -> str:
    """In words what the earlier run was begun with."""
    if before.format != now.format:
        return f"another version of headway ({before.format})"
    names = sorted(before.settings.keys() | now.settings.keys())
    found = [
        f"{name} {before.settings.get(name)} instead of {now.settings.get(name)}"
        for name in names
        if before.settings.get(name) != now.settings.get(name)
    ]
    return ", ".join(found)


def _other(output: Path, differing: str) -> OutputError:
    partial, _ = _beside(output)
    return OutputError(output, f"{partial.name} was begun with {differing}; {_REMEDY}")


def _line(entry: Begun | Whole) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def _content(record: Record) -> bytes:
    return msgspec.json.encode(record.fields, enc_hook=repr) + b"\n"


def _write_new(path: Path, content: bytes) -> None:
    """Write a small file that is whole on the disk, or not there."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, path)
    except BaseException:
        _remove(fresh)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _telling(output: Path) -> Iterator[None]:
    """Tell the user of the output that cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutputError.of(output, error) from error
