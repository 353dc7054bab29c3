"""Readers of labelled data: JSON Lines, CSV, Parquet and plain text become records that know where they came from."""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from headway.core.errors import DataError, UnavailableError, UsageError


@dataclass(frozen=True)
class Record:
    """One object of a data file. `line` counts from 1 (in Parquet: the row)."""

    fields: Mapping[str, Any]
    file: str
    line: int

    def error(self, problem: str, field: str | None = None) -> DataError:
        return DataError(problem, file=self.file, line=self.line, field=field)

    def text(self, field: str) -> str:
        """A field that must hold a usable text. Raises DataError with file, line and field."""
        if field not in self.fields:
            raise self.error(f"missing; the record has {sorted(self.fields)}", field)
        value = self.fields[field]
        if not isinstance(value, str):
            raise self.error(f"must be a text, not {type(value).__name__}", field)
        if (problem := text_problem(value)) is not None:
            raise self.error(problem, field)
        return value

    def texts(self, field: str, least: int = 1) -> tuple[str, ...]:
        """A field that must hold a list of at least `least` usable texts. Raises DataError."""
        values = self.list(field)
        if len(values) < least:
            raise self.error(f"has {len(values)} entries, fewer than {least}", field)
        for place, value in enumerate(values):
            if not isinstance(value, str):
                raise self.error(f"entry {place} must be a text, not {type(value).__name__}", field)
            if (problem := text_problem(value)) is not None:
                raise self.error(f"entry {place} {problem}", field)
        return tuple(values)

    def list(self, field: str) -> list[Any]:
        """A field that must hold a list. Raises DataError."""
        if field not in self.fields:
            raise self.error(f"missing; the record has {sorted(self.fields)}", field)
        value = self.fields[field]
        if not isinstance(value, list):
            raise self.error(f"must be a list, not {type(value).__name__}", field)
        return value

    def number(self, field: str) -> float:
        """A field that must hold a finite number (in CSV: written as one). Raises DataError."""
        value = self.fields.get(field)
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise self.error(f"must be a number, not {value!r}", field)
        return number


def text_problem(text: str) -> str | None:
    """Why a text cannot be used, or None if it can."""
    if not text or text.isspace():
        return "is empty or only white space"
    if "\0" in text:
        return f"holds a NUL byte at character {text.index(chr(0))}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair at character {error.start}"
    return None


SPLITS = {"train": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}
"""what the parts of a data set are called"""


def read(
    path: str | Path, columns: Mapping[str, str] | None = None, split: str = "train"
) -> Iterator[Record]:
    """Yield the records of a .jsonl, .csv or .parquet file, or of JSON Lines on standard input ("-").

    A .txt file is one record, {"text": all of it}. A folder is one of the `datasets` library (`save_to_disk`, or
    files that `load_dataset` reads), of which `split` (train, dev or test) is taken. `columns` maps the names that headway uses to names in the
    file, {"text": "body"}, or to a template over them, {"source": "question: {question} context: {context}"}.
    Raises DataError (file, line, field) for what cannot be read, and for a file without any record.
    """
    empty = True
    for record in _rows(path, split):
        empty = False
        yield _renamed(record, columns) if columns else record
    if empty:
        raise DataError("holds no records", file=_name(path))


def parse_columns(mapping: str | None) -> dict[str, str]:
    """Read the option `--columns text=body,source=a template with {field}`. Raises UsageError."""
    if not mapping:
        return {}
    pairs = [part.partition("=") for part in re.split(r",(?=\w+=)" if "{" in mapping else ",", mapping)]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise UsageError("--columns", f"wants name=column,…; got '{mapping}'")
    return {ours: theirs for ours, _, theirs in pairs}


def _rows(path: str | Path, split: str) -> Iterator[Record]:
    if str(path) == "-":
        yield from _jsonl(sys.stdin.buffer, "standard input")
        return
    path = Path(path)
    if path.is_dir():
        yield from _folder(path, split)
        return
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".csv": _csv, ".parquet": _parquet, ".txt": _txt}
    if path.suffix not in readers:
        raise DataError(f"unknown kind of file '{path.suffix}'; known: {', '.join(readers)}", file=str(path))
    try:
        with path.open("rb") as stream:
            yield from readers[path.suffix](stream, str(path))
    except OSError as error:
        raise DataError(error.strerror or str(error), file=str(path)) from error


def _jsonl(stream: BinaryIO, file: str) -> Iterator[Record]:
    for number, line in _lines(stream, file):
        try:
            fields = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            problem = f"invalid JSON: {error}" if line.strip() else "empty line"
            raise DataError(problem, file=file, line=number) from error
        if not isinstance(fields, dict):
            raise DataError(f"must be a JSON object, not {type(fields).__name__}", file=file, line=number)
        yield Record(fields, file, number)


def _csv(stream: BinaryIO, file: str) -> Iterator[Record]:
    rows = csv.DictReader((line for _, line in _lines(stream, file)), strict=True)
    try:
        for fields in rows:
            if None in fields or None in fields.values():
                raise DataError("has not as many columns as the header", file=file, line=rows.line_num)
            yield Record(fields, file, rows.line_num)
    except csv.Error as error:
        raise DataError(f"invalid CSV: {error}", file=file, line=rows.reader.line_num) from error


def _parquet(stream: BinaryIO, file: str) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UnavailableError("pyarrow, which reads Parquet,", "pip install 'headway[data]'") from error
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches():
            for fields in batch.to_pylist():
                number += 1
                yield Record(fields, file, number)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"invalid Parquet: {error}", file=file, line=number + 1) from error


def _folder(path: Path, split: str) -> Iterator[Record]:
    """A data set of the `datasets` library; numbers of a ClassLabel become their names."""
    try:
        import datasets
    except ImportError as error:
        raise UnavailableError("datasets, which reads folders,", "pip install 'headway[data]'") from error
    try:
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        found: Any = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:  # the library raises many kinds
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"no data set that can be read: {problem}", file=str(path)) from error
    if isinstance(found, dict):
        names = [name for name in SPLITS[split] if name in found]
        if not names:
            raise DataError(
                f"has no split {' or '.join(SPLITS[split])}; it has {', '.join(found)}", file=str(path)
            )
        found = found[names[0]]
    classes = {n: f for n, f in found.features.items() if isinstance(f, datasets.ClassLabel)}
    lists = {
        n: f.feature
        for n, f in found.features.items()
        if isinstance(getattr(f, "feature", None), datasets.ClassLabel)
    }
    for number, fields in enumerate(found, start=1):
        named = {n: kind.int2str(fields[n]) for n, kind in classes.items() if fields[n] is not None}
        named |= {n: [kind.int2str(v) for v in fields[n]] for n, kind in lists.items() if fields[n]}
        yield Record(fields | named, str(path), number)


def _txt(stream: BinaryIO, file: str) -> Iterator[Record]:
    text = "".join(line for _, line in _lines(stream, file))
    if text:
        yield Record({"text": text}, file, 1)


def _lines(stream: Iterable[bytes], file: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(stream, start=1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}", file=file, line=number) from error


def _renamed(record: Record, columns: Mapping[str, str]) -> Record:
    fields = dict(record.fields)
    for ours, theirs in columns.items():
        wanted = re.findall(r"{(\w+)}", theirs) or [theirs]
        for name in wanted:
            if name not in record.fields:
                raise record.error(
                    f"missing (named by --columns); the record has {sorted(record.fields)}", name
                )
        if wanted == [theirs]:
            fields[ours] = record.fields[theirs]
        else:
            fields[ours] = re.sub(r"{(\w+)}", lambda m: record.text(m[1]), theirs)
    return Record(fields, record.file, record.line)


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)
