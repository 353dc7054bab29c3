"""Readers of labelled data: JSON Lines, CSV, Parquet and plain text become records that know where they came from."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import select
import stat
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NoReturn, TypeVar

import msgspec

from headway.core.errors import DataError, UnavailableError, UsageError

T = TypeVar("T")


class _Unlabelled:
    def __repr__(self) -> str:
        return "-1: has no label"


UNLABELLED = _Unlabelled()
"""value of a field whose ClassLabel is -1, by which the `datasets` library says that a row has no label"""


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
            self._refuse(value, "must be a text", field)
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
                self._refuse(value, f"entry {place} must be a text", field)
            if (problem := text_problem(value)) is not None:
                raise self.error(f"entry {place} {problem}", field)
        return tuple(values)

    def label(self, field: str) -> str:
        """A field that must hold the name of a label: a usable text, or a whole number. Raises DataError."""
        value = self.fields.get(field)
        if type(value) is int:
            return str(value)
        if field in self.fields and not isinstance(value, str):
            self._refuse(value, "must be a text or a whole number", field)
        return self.text(field)

    def labels(self, field: str, least: int = 1) -> tuple[str, ...]:
        """A field that must hold a list of at least `least` names of labels. Raises DataError."""
        values = self.list(field)
        for place, value in enumerate(values):
            if not isinstance(value, str) and type(value) is not int:
                self._refuse(value, f"entry {place} must be a text or a whole number", field)
        names = [str(value) if type(value) is int else value for value in values]
        return Record({**self.fields, field: names}, self.file, self.line).texts(field, least)

    def list(self, field: str) -> list[Any]:
        """A field that must hold a list. Raises DataError."""
        if field not in self.fields:
            raise self.error(f"missing; the record has {sorted(self.fields)}", field)
        value = self.fields[field]
        if not isinstance(value, list):
            self._refuse(value, "must be a list", field)
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

    def _refuse(self, value: Any, problem: str, field: str) -> NoReturn:
        if value is UNLABELLED:
            raise self.error(f"{problem}, but it is {value!r}", field)
        raise self.error(f"{problem}, not {type(value).__name__}", field)


def text_problem(text: str) -> str | None:
    """Why a text cannot be used, or None if it can."""
    if not text or text.isspace():
        return "is empty or only white space"
    if "\0" in text:
        return f"holds a NUL byte at character {text.index(chr(0))}"
    return encoding_problem(text)


def encoding_problem(text: str) -> str | None:
    """Why a text cannot be written as UTF-8, or None if it can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair at character {error.start}"
    return None


SPLITS = {"train": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}
"""what the splits of a data set are called, by what they are for"""
FIELD_SIZE_LIMIT = 2**31 - 1
"""characters in a field of a CSV file, at most: the greatest number that `csv` takes on every platform"""
_csv_limit = Lock()


class Reading(Iterator[Record]):
    """Records in the order of their file."""

    def __init__(self, records: Iterator[Record], ready: Callable[[], bool]) -> None:
        self._records, self.ready = records, ready
        """`ready()`: whether a record is there at once; False where it must be waited for, or there is none"""

    def __next__(self) -> Record:
        return next(self._records)


class Lines:
    """Lines of a stream, which can be asked whether there is one by now: of a pipe one may have to wait for the next."""

    def __init__(self, stream: Any) -> None:
        """`stream`: a buffered binary one."""
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._begun: list[bytes] = []
        """parts of a line whose end has not come"""
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        while self._lines or not self._ended:
            if self._lines:
                yield self._lines.popleft()
            else:
                self._fill()

    def ready(self) -> bool:
        """Whether there is a line that is not blank; does not wait."""
        while not any(line.strip() for line in self._lines):
            if self._ended or not _is_readable(self._stream):
                return False
            self._fill()
        return True

    def _fill(self) -> None:
        block = self._stream.read1(READ_BYTES)
        self._ended = not block
        *ends, rest = block.split(b"\n")
        for end in ends:
            self._lines.append(b"".join((*self._begun, end, b"\n")))
            self._begun = []
        if rest:
            self._begun.append(rest)
        if self._ended and self._begun:
            self._lines.append(b"".join(self._begun))
            self._begun = []


READ_BYTES = 1 << 16
"""of a pipe at once: what Linux gives it"""


def _is_readable(stream: Any) -> bool:
    """Whether reading would not wait."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
    except (OSError, AttributeError):  # no file of the system's
        return True
    return bool(poll.poll(0))


def read(path: str | Path, columns: Mapping[str, str] | None = None, split: str | None = None) -> Reading:
    """The records of a .jsonl, .csv or .parquet file, or of JSON Lines on standard input ("-"). Blank lines are skipped.

    A .txt file is one record, {"text": all of it}. A folder is one of the `datasets` library (`save_to_disk`, or
    files that `load_dataset` reads), of which `split` is taken: train, dev or test, whatever the data set calls it,
    or a name of its own. Without `split` the folder must have a single one. `columns` maps the names that headway
    uses to names in the file, {"text": "body"}, or to a template over them,
    {"source": "question: {question} context: {context}"}.
    Raises UsageError where `split` is wanted, DataError (file, line, field) for what cannot be read, and for a file
    without any record.
    """
    if Path(path).is_dir():
        return Reading(_checked(_folder(Path(path), split), path, columns), lambda: True)
    piped: list[Lines] = []
    return Reading(_checked(_rows(path, piped), path, columns), lambda: all(lines.ready() for lines in piped))


def read_split(
    path: str | Path, columns: Mapping[str, str] | None = None, split: str | None = None
) -> Reading:
    """As `read`, of a `split` that the user names: refused where there are no splits. Raises UsageError."""
    if split is not None and not Path(path).is_dir():
        raise UsageError("--split", f"is for folders of the datasets library; {path} is none")
    return read(path, columns, split)


def _checked(rows: Iterator[Record], path: str | Path, columns: Mapping[str, str] | None) -> Iterator[Record]:
    empty = True
    for record in rows:
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
    if twice := repeated([ours for ours, _, _ in pairs]):
        raise UsageError("--columns", f"names '{twice}' twice")
    return {ours: theirs for ours, _, theirs in pairs}


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs more than once, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _rows(path: str | Path, piped: list[Lines]) -> Iterator[Record]:
    """Those of a file; where it is a pipe, its lines are put into `piped`."""
    if str(path) == "-":
        piped.append(Lines(sys.stdin.buffer))
        try:
            yield from _jsonl(piped[0], STANDARD_INPUT)
        except OSError as error:
            closed = error.errno == errno.EBADF
            raise DataError(
                "is closed" if closed else error.strerror or str(error), file=STANDARD_INPUT
            ) from error
        return
    path = Path(path)
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".csv": _csv, ".parquet": _parquet, ".txt": _txt}
    if path.suffix not in readers:
        unknown = f"unknown kind of file '{path.suffix}'; known: {', '.join(readers)}"
        raise DataError(unknown if path.exists() else "No such file or directory", file=str(path))
    try:
        with path.open("rb") as stream:
            if readers[path.suffix] is _jsonl and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                piped.append(Lines(stream))
                yield from _jsonl(piped[0], str(path))
            else:
                yield from readers[path.suffix](stream, str(path))
    except OSError as error:
        raise DataError(error.strerror or str(error), file=str(path)) from error


def _jsonl(stream: Iterable[bytes], file: str) -> Iterator[Record]:
    for number, line in _lines(stream, file):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise DataError(f"invalid JSON: {error}", file=file, line=number) from error
        except RecursionError as error:
            raise _too_deep(file, number) from error
        if not isinstance(fields, dict):
            raise DataError(f"must be a JSON object, not {type(fields).__name__}", file=file, line=number)
        if line.count("[") + line.count("{") > DEEPEST and _depth(fields) > DEEPEST:
            raise _too_deep(file, number)
        if any(line.count(f'"{key}"') > 1 for key in _keys(fields)):
            _refuse_repeated_keys(line, file, number)
        yield Record(fields, file, number)


DEEPEST = 100
"""objects and lists in each other, at most, so that all that reads a record later bears it"""


def _depth(value: Any) -> int:
    """Of lists and objects in each other."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [each for one in level for each in (one.values() if isinstance(one, dict) else one)]
    return depth


def _too_deep(file: str, number: int) -> DataError:
    return DataError(
        f"invalid JSON: more than {DEEPEST} lists and objects in each other", file=file, line=number
    )


def _keys(fields: Mapping[str, Any]) -> Iterator[str]:
    """The keys of an object and of the objects in it, but not of those in its lists."""
    for key, value in fields.items():
        yield key
        if isinstance(value, dict):
            yield from _keys(value)


def _refuse_repeated_keys(line: str, file: str, number: int) -> None:
    """Raise DataError if an object of the line has a key twice, of which `msgspec` would take the last."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if (twice := repeated(key for key, _ in pairs)) is not None:
            raise DataError("occurs twice in the object", file=file, line=number, field=twice)

    json.loads(line, object_pairs_hook=check)


def _csv(stream: BinaryIO, file: str) -> Iterator[Record]:
    rows = csv.DictReader((line for _, line in _lines(stream, file)), strict=True)
    try:
        names = _unlimited(lambda: rows.fieldnames) or ()
        if (twice := repeated(name for name in names if name.strip())) is not None:
            raise DataError("occurs twice in the header", file=file, line=rows.reader.line_num, field=twice)
        while (fields := _unlimited(lambda: next(rows, None))) is not None:
            if None in fields or None in fields.values():
                raise DataError("has not as many columns as the header", file=file, line=rows.line_num)
            yield Record(fields, file, rows.line_num)
    except csv.Error as error:
        raise DataError(f"invalid CSV: {error}", file=file, line=rows.reader.line_num) from error


def _unlimited(step: Callable[[], T]) -> T:
    """A step of a CSV reader, without the limit of 131,072 characters a field, which is the process's."""
    with _csv_limit:
        before = csv.field_size_limit(FIELD_SIZE_LIMIT)
        try:
            return step()
        finally:
            csv.field_size_limit(before)


def _parquet(stream: BinaryIO, file: str) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UnavailableError("pyarrow, which reads Parquet,", "pip install 'headway[data]'") from error
    number = 0
    try:
        opened = pyarrow.parquet.ParquetFile(stream)
        if (twice := repeated(opened.schema_arrow.names)) is not None:
            raise DataError("occurs twice among the columns", file=file, field=twice)
        for batch in opened.iter_batches():
            for fields in batch.to_pylist():
                number += 1
                yield Record(fields, file, number)
    except (
        pyarrow.ArrowException,
        ValueError,
        OverflowError,
    ) as error:  # of Parquet itself, or of a value that Python cannot have
        raise DataError(f"invalid Parquet: {error}", file=file, line=number + 1) from error


def _folder(path: Path, split: str | None) -> Iterator[Record]:
    """A data set of the `datasets` library; numbers of a ClassLabel become their names."""
    try:
        import datasets
    except ImportError as error:
        raise UnavailableError("datasets, which reads folders,", "pip install 'headway[data]'") from error
    try:
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        found: Any = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:  # the library raises many kinds
        raise DataError(f"no data set that can be read: {_first_line(error)}", file=str(path)) from error
    if isinstance(found, dict):
        found = found[_split_name(path, list(found), split)]
    elif split is not None and split not in SPLITS:
        raise UsageError("--split", f"is '{split}', but {path} is one data set without splits")
    return _named_rows(path, found)


def _split_name(path: Path, names: Sequence[str], split: str | None) -> str:
    """Raises UsageError or DataError."""
    if split is None:
        if len(names) > 1:
            raise UsageError("--split", f"say which split of {path} is meant: {', '.join(names)}")
        return names[0]
    aliases = SPLITS.get(split, (split,))
    wanted = [name for name in (*aliases, split) if name in names]
    if not wanted:
        raise DataError(f"has no split {' or '.join(aliases)}; it has {', '.join(names)}", file=str(path))
    return wanted[0]


def _named_rows(path: Path, found: Any) -> Iterator[Record]:
    namers = {name: namer for name, kind in found.features.items() if (namer := _namer(kind)) is not None}
    rows = iter(found)
    number = 0
    while True:
        number += 1
        try:
            fields = next(rows, None)
        except Exception as error:  # as pictures are decoded, for one, many kinds
            raise DataError(_first_line(error), file=str(path), line=number) from error
        if fields is None:
            return
        record = Record(fields, str(path), number)
        named = {name: _name_labels(namer, record, name) for name, namer in namers.items()}
        yield Record(fields | named, str(path), number)


def _name_labels(namer: Callable[[Any], Any], record: Record, field: str) -> Any:
    try:
        return namer(record.fields[field])
    except ValueError as error:  # the library's word about a number without a name
        raise record.error(_first_line(error), field) from error


def _namer(feature: Any) -> Callable[[Any], Any] | None:
    """What turns a value's numbers into the names of their ClassLabels; None for features without a ClassLabel."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return lambda value: None if value is None else UNLABELLED if value == -1 else feature.int2str(value)
    if isinstance(feature, dict):
        inside = {name: namer for name, kind in feature.items() if (namer := _namer(kind)) is not None}
        return (
            (lambda value: value and value | {name: namer(value[name]) for name, namer in inside.items()})
            if inside
            else None
        )
    entry = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    namer = None if entry is None else _namer(entry)
    return None if namer is None else lambda value: value and [namer(each) for each in value]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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
    """The record under other names. What is renamed has its old name no more; what a template reads keeps it."""
    sources = {ours: re.findall(r"{(\w+)}", theirs) or [theirs] for ours, theirs in columns.items()}
    used = {name for names in sources.values() for name in names}
    for ours, names in sources.items():
        for name in names:
            if name not in record.fields:
                raise record.error(
                    f"missing (named by --columns); the record has {sorted(record.fields)}", name
                )
        if ours in record.fields and ours not in used:
            raise record.error(
                f"the data has a field of this name, which '{ours}={columns[ours]}' of --columns would replace; "
                f"if that is meant, rename it, too: --columns {ours}={columns[ours]},unused={ours}",
                ours,
            )
    renamed = {columns[ours] for ours, names in sources.items() if names == [columns[ours]]}
    fields = {name: value for name, value in record.fields.items() if name not in renamed}
    for ours, theirs in columns.items():
        if theirs in renamed:
            fields[ours] = record.fields[theirs]
        else:
            fields[ours] = re.sub(r"{(\w+)}", lambda m: record.text(m[1]), theirs)
    return Record(fields, record.file, record.line)


STANDARD_INPUT = "standard input"
"""as messages call it"""


def _name(path: str | Path) -> str:
    return STANDARD_INPUT if str(path) == "-" else str(path)
