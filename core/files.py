"""Outputs that appear whole or not at all, and hashes of files."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from headway.core.errors import OutputError

STANDARD_OUTPUT = Path("standard output")
"""as messages call it"""


@contextmanager
def whole_file(path: str | Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file that replaces `path` when the block ends well, and vanishes when it does not.

    "-" is standard output. Folders above the file are made. A link stays, and the file that it leads to is replaced; a
    file that is replaced hands on its mode and owner. Raises OutputError when the place cannot be written, and
    UnavailableError where the disk is full or fails.
    """
    if str(path) == "-":
        with telling(STANDARD_OUTPUT):
            yield sys.stdout
            sys.stdout.flush()
        return
    _refuse_no_file(Path(path))
    path = target(Path(path))
    partial = _partial(path)
    with parents_of(path):
        try:
            with open(create(partial, path), "w", encoding="utf-8", newline="\n") as stream:
                yield stream
            os.replace(partial, path)
        except OSError as error:
            _tell(path, error)
            raise
        finally:
            with suppress(OSError):
                partial.unlink()


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Tell of `path` where writing fails for a reason that names no file, as a full disk's does not."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OutputError.of(path, error) from error


def target(path: Path) -> Path:
    """Where a link leads in the end, there or not; another path as it is. Raises OutputError for links in a circle."""
    if not path.is_symlink():
        return path
    found = Path(os.path.realpath(path))
    if found.is_symlink():
        raise OutputError(path, "it is a link that leads to itself")
    return found


def create(path: Path, replaced: Path) -> int:
    """A new file, open for reading and writing, with mode and owner of the file that it will replace, if that is there.

    Returns its descriptor. Others are created as the umask has it. Raises FileExistsError and other OSErrors.
    """
    try:
        before = os.stat(replaced)
    except OSError:
        before = None
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if before else 0o666)
    if before is not None:
        keep_mode(opened, before)
    return opened


def keep_mode(opened: int | Path, before: os.stat_result) -> None:
    """Give a file or folder the mode and, as far as this process may, the owner of another one."""
    now = os.stat(opened)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with suppress(OSError):
            os.chown(opened, before.st_uid, before.st_gid)
    with suppress(PermissionError):  # as file systems without modes refuse
        os.chmod(opened, stat.S_IMODE(before.st_mode))


@contextmanager
def whole_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends well, and vanishes when it does not.

    Folders above it are made. A link stays, and the folder that it leads to is replaced; one that is replaced hands on its
    mode and owner. Raises OutputError when the place cannot be written, or is taken and `overwrite` is False.
    """
    refuse_taken(path, overwrite)
    path = target(path)
    partial = _partial(path)
    with parents_of(path):
        try:
            before = path.stat() if path.exists() else None
            partial.mkdir(0o777 if before is None else 0o700)
            yield partial
            if before is not None:
                keep_mode(partial, before)
            replaced = _partial(path, "replaced")
            if path.exists():
                os.rename(path, replaced)
            os.rename(partial, path)
            shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            _tell(path, error)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def parents_of(path: Path) -> Iterator[None]:
    """Make the folders above `path`; those that were made and are empty vanish again if the block does not end well.

    Raises OutputError.
    """
    made = make_parents(path)
    try:
        yield
    except BaseException:
        _remove_empty(made)
        raise


def make_parents(path: Path) -> list[Path]:
    """Make the folders above `path`, and return those that were not there, the highest first. Raises OutputError."""
    made: list[Path] = []
    try:
        for folder in reversed(path.parents):
            if not folder.is_dir():
                with suppress(
                    FileExistsError
                ):  # by another process just now; what is in the way is found below
                    folder.mkdir()
                    made.append(folder)
    except OSError as error:
        _remove_empty(made)
        raise OutputError.of(path, error) from error
    return made


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def refuse_taken(path: Path, overwrite: bool) -> None:
    """Raise OutputError if `path` is a file, or a folder with something in it (unless `overwrite`), or unwritable."""
    if path.name in ("", ".."):
        raise OutputError(path, "give the folder by its name")
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(path, "it is a file")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise OutputError(path, "it exists already; give --overwrite to replace it")
    except OSError as error:
        _tell(path, error)
        raise
    refuse_unwritable(target(path))


def refuse_unwritable_file(path: str | Path) -> None:
    """Raise OutputError if `whole_file` could not write `path`, before the work of which it would hold the result."""
    if str(path) != "-":
        _refuse_no_file(Path(path))
        refuse_unwritable(target(Path(path)))


def _refuse_no_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise OutputError(path, "it is a folder")
        if path.exists() and not path.is_file():
            raise OutputError(path, "it is no regular file, and would be replaced")
    except OSError as error:
        _tell(path, error)
        raise


def refuse_unwritable(path: Path) -> None:
    """Raise OutputError if nothing can be written beside `path`, in folders that would be made. Leaves nothing."""
    made = make_parents(path)
    try:
        probe = _partial(path, "probe")
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        _tell(path, error)
        raise
    finally:
        _remove_empty(made)


@contextmanager
def in_utf8(path: Path) -> Iterator[str]:
    """A name of a file for a library that takes names in UTF-8 alone, where its folder has another kind; for the block only."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{path.name}"  # Linux's other name of an open folder
        finally:
            os.close(folder)
    else:
        yield str(path)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_data(path: Path) -> str:
    """Hex SHA-256 of a data file; of a folder, over the hashes and names of all files in it."""
    return _together(path, "*") if path.is_dir() else sha256(path)


def sha256_of_weights(folder: Path) -> str:
    """Hex SHA-256 over the hashes and names of a model's weights, in however many files they lie."""
    return _together(folder, "*.safetensors")


def _together(folder: Path, pattern: str) -> str:
    inside = sorted(p for p in folder.rglob(pattern) if p.is_file())
    lines = [f"{sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in inside]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _partial(path: Path, kind: str = "partial") -> Path:
    """A name beside the path; not the process' number alone, which a killed one's successor may have as well."""
    return path.parent / f".{path.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}"


def _tell(path: Path, error: OSError) -> None:
    """Raise `error` as a word about `path`, unless it speaks of another file or not of a file at all."""
    if error.errno is None:
        return
    named = [Path(os.fsdecode(f)) for f in (error.filename, error.filename2) if f is not None]
    if not named or any(path.parent in n.parents or n == path.parent for n in named):
        raise OutputError.of(path, error) from error
