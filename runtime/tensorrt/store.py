"""Where engines lie: each in a folder of its own, whole or not at all, with its key and its hash beside it.

A plan is handed out only if the folder's record says its key, its size and its SHA-256. One that is damaged, or was
built for anything else, is taken for none and replaced by the next build.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from headway.core import files
from headway.core.errors import HeadwayError, OutputError, UnavailableError
from headway.core.manifest import NAME as MANIFEST
from headway.runtime.tensorrt.key import Key, Options

T = TypeVar("T")
RECORD, PLAN = "engine.json", "engine.plan"
HASH = 32
"""bytes of a SHA-256, in front of timings"""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What lies beside an engine."""

    key: Key
    options: Options
    bytes: int
    sha256: str


class Engine(NamedTuple):
    """An engine as it was built."""

    plan: bytes
    options: Options


class Pruned(NamedTuple):
    """An engine that was deleted."""

    folder: Path
    bytes: int
    reason: str


def engines(place: Path) -> Iterator[tuple[Record, Path]]:
    """The engines of a folder for engines, with what is recorded of each, in the order of their names."""
    with suppress(OSError):
        for folder in sorted(place.iterdir()):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                record = msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
                if record.key.name == folder.name and not folder.is_symlink():
                    yield record, folder


def folders(bundle: Path) -> list[Path]:
    """Where a bundle's engines may lie: in it, and in the user's cache folder, which takes them if the bundle cannot."""
    with suppress(RuntimeError):  # nobody's home
        user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return [bundle / "engines", user / "headway" / "engines"]
    return [bundle / "engines"]


class Store:
    """Engines in some folders, of which the first that can be written takes new ones."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places

    @property
    def _writable(self) -> list[Path]:
        """Without a bundle's folder that is a link: it must not decide where files are written or deleted."""
        return [p for p in self._places if not (p.is_symlink() and (p.parent / MANIFEST).is_file())]

    def find(self, key: Key) -> Engine | None:
        """The engine of that key, if there is a whole one."""
        for place in self._places:
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                record = msgspec.json.decode((place / key.name / RECORD).read_bytes(), type=Record)
                if record.key != key or (place / key.name / PLAN).stat().st_size != record.bytes:
                    continue
                plan = (place / key.name / PLAN).read_bytes()
                if hashlib.sha256(plan).hexdigest() == record.sha256:
                    return Engine(plan, record.options)
        return None

    def keep(self, key: Key, engine: Engine) -> Path:
        """Write an engine, in place of one that had its key; the folder that it is in. Raises HeadwayError."""
        digest = hashlib.sha256(engine.plan).hexdigest()
        record = Record(key=key, options=engine.options, bytes=len(engine.plan), sha256=digest)

        def write(place: Path) -> Path:
            with files.whole_folder(place / key.name, overwrite=True) as folder:
                (folder / PLAN).write_bytes(engine.plan)
                (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
            return place / key.name

        return self._written(write)

    def drop(self, key: Key) -> None:
        """Forget the engine of a key, where it can be deleted."""
        for place in self._writable:
            _delete(place / key.name)

    def prune(self, reason: Callable[[Key, Path], str | None]) -> Iterator[Pruned]:
        """Delete engines, and tell each when it is gone. Whatever else lies there, and what is being built, stays.

        `reason`: why an engine in one of the folders is to go; None: it stays.
        """
        for place in self._writable:
            for record, folder in engines(place):
                why = reason(record.key, place)
                if why is None:
                    continue
                with _alone(place / f"{folder.name}.lock") as alone:
                    if alone and _delete(folder):
                        yield Pruned(folder, record.bytes, why)

    def refuse(self, key: Key, reason: str) -> None:
        """Remember that no engine can be built for a key. Raises HeadwayError."""

        def write(place: Path) -> None:
            with files.whole_file(place / f"{key.name}.refused") as stream:
                stream.write(f"{reason}\n")

        self._written(write)

    def refusal(self, key: Key) -> str | None:
        """Why no engine can be built for a key, if that is known."""
        for place in self._places:
            with suppress(OSError, UnicodeDecodeError):
                return (place / f"{key.name}.refused").read_text("utf-8").strip()
        return None

    def forgive(self, key: Key) -> None:
        """Forget a refusal."""
        for place in self._writable:
            with suppress(OSError):
                (place / f"{key.name}.refused").unlink()

    def timings(self, key: Key) -> bytes:
        """What builds of any graph have noted on the same GPU with the same library; empty: nothing that is whole."""
        for place in reversed(self._places):
            with suppress(OSError):
                content = (place / _timings_of(key)).read_bytes()
                if hashlib.sha256(content[HASH:]).digest() == content[:HASH]:
                    return content[HASH:]
        return b""

    def note(self, key: Key, timings: bytes) -> None:
        """Write timings for other bundles, too, if that can be."""
        for place in reversed(self._writable):
            path = place / _timings_of(key)
            partial = path.with_suffix(f".{os.getpid()}")
            with suppress(OSError):
                place.mkdir(parents=True, exist_ok=True)
                partial.write_bytes(hashlib.sha256(timings).digest() + timings)
                os.replace(partial, path)
                return

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Alone among all processes that share the folders; the lock of a process that dies is free."""
        for place in self._writable:
            with suppress(OSError):
                place.mkdir(parents=True, exist_ok=True)
                handle = os.open(place / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
                break
        else:
            yield  # nothing can be written, so that nobody else writes either
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _written(self, write: Callable[[Path], T]) -> T:
        """What `write` gives for the first folder that it can write."""
        problem: HeadwayError | None = None
        for place in self._writable:
            try:
                place.mkdir(parents=True, exist_ok=True)
                return write(place)
            except (OutputError, UnavailableError) as error:
                problem = problem or error
            except OSError as error:
                problem = problem or OutputError.of(place, error)
        raise problem or UnavailableError(
            "a folder for engines", "set XDG_CACHE_HOME to one that can be written"
        )


def _timings_of(key: Key) -> str:
    return f"{msgspec.structs.replace(key, graph='').name}.timings"


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else has the lock, which is held meanwhile."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        yield False
        return
    try:
        yield True
    finally:
        os.close(handle)


def _delete(folder: Path) -> bool:
    """Delete an engine's own files, and its folder if nothing else is in it; whether it is gone."""
    with suppress(OSError):
        for name in (RECORD, PLAN):  # from then on nobody finds it
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    return not (folder / RECORD).exists()
