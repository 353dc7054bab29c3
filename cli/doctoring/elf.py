"""What a shared library asks the loader for: names of others and where to look, read without loading it.

Layout: Tool Interface Standard, Executable and Linking Format; 64 bits, little-endian, as on x86-64 and aarch64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
ENTRY = struct.Struct("<qQ")
LOAD, DYNAMIC = 1, 2
"""kinds of segments"""
END, NEEDED, STRINGS, STRINGS_SIZE, RPATH, RUNPATH = 0, 1, 5, 10, 15, 29
"""tags of the dynamic section"""
MOST = 1 << 24
"""bytes of a table; a larger one is nonsense"""


@dataclass(frozen=True)
class Library:
    """The dynamic section of a file."""

    path: Path
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    """folders searched before LD_LIBRARY_PATH, also for what is loaded by what this loads"""
    runpath: tuple[str, ...]
    """folders searched after it, for its own needs alone"""


def read(path: Path) -> Library:
    """Raises ValueError if the file is no whole shared library, or cannot be read."""
    try:
        with path.open("rb") as stream:
            return _read(path, stream)
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no whole shared library: {error}") from error


def _read(path: Path, stream: BinaryIO) -> Library:
    head = HEADER.unpack(stream.read(HEADER.size))
    if not head[0].startswith(b"\x7fELF\x02\x01"):
        raise ValueError(f"{path} is no shared library of 64 bits")
    place, size, count = head[5], head[9], head[10]
    segments = [SEGMENT.unpack(_at(stream, place + i * size, SEGMENT.size)) for i in range(count)]
    entries = [
        entry
        for kind, _, offset, _, _, length, _, _ in segments
        if kind == DYNAMIC
        for entry in ENTRY.iter_unpack(_at(stream, offset, length - length % ENTRY.size))
    ]
    for i, (tag, _) in enumerate(entries):
        if tag == END:
            entries = entries[:i]
            break
    values = dict(entries)
    if STRINGS not in values:
        return Library(path, (), (), ())
    offset = _offset(segments, values[STRINGS])
    strings = _at(stream, offset, values.get(STRINGS_SIZE, 0))

    def named(wanted: int) -> list[str]:
        return [
            strings[value : strings.index(b"\0", value)].decode() for tag, value in entries if tag == wanted
        ]

    paths = {tag: tuple(p for text in named(tag) for p in text.split(":") if p) for tag in (RPATH, RUNPATH)}
    rpath = () if paths[RUNPATH] else paths[RPATH]
    return Library(path, tuple(named(NEEDED)), rpath, paths[RUNPATH])


def _offset(segments: list[tuple[int, ...]], address: int) -> int:
    """Where in the file the bytes lie that are loaded to an address."""
    for kind, _, offset, begin, _, length, _, _ in segments:
        if kind == LOAD and begin <= address < begin + length:
            return offset + address - begin
    raise struct.error("its strings are in no segment")


def _at(stream: BinaryIO, place: int, size: int) -> bytes:
    if size > MOST:
        raise struct.error("a table of impossible size")
    stream.seek(place)
    content = stream.read(size)
    if len(content) < size:
        raise struct.error("it is cut short")
    return content
