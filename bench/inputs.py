"""What is measured on: inputs of a file as `answers.given` has them, or texts of stated lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from headway.bench import answers, mixes
from headway.core import data, tasks
from headway.core.data import Record
from headway.core.errors import DataError, UsageError
from headway.core.manifest import Bundle

MESSAGES = Path(__file__).parents[1] / "examples" / "support" / "train.jsonl"
"""texts where none are given"""
PLAIN = (
    "text-classification",
    "token-classification",
    "sentence-embedding",
    "text2text-generation",
    "text-generation",
)
"""tasks that take one text"""


def of_lengths(bundle: Path, manifest: Bundle, lengths: str, count: int) -> list[str]:
    """So many texts of stated lengths (`mixes.texts`). Raises UsageError."""
    if manifest.task not in PLAIN or manifest.settings.get("pair"):
        pairs = " of pairs" * (manifest.task in PLAIN)
        raise UsageError("--lengths", f"is for tasks that take one text, not {manifest.task}{pairs}")
    return list(mixes.texts(bundle, MESSAGES, lengths, count))


def read_inputs(
    manifest: Bundle, file: str | None, columns: str | None, most: int
) -> tuple[list[Any], Sequence[Any]]:
    """The first inputs of a file, and the examples with their gold answers where there are any.

    Raises UsageError where a task needs a file and there is none, DataError for one that cannot be used.
    """
    if file is None and (manifest.task not in PLAIN or manifest.settings.get("pair")):
        raise UsageError("--input", f"is wanted for {manifest.task}" + " of pairs" * (manifest.task in PLAIN))
    source = file or str(MESSAGES)
    task = tasks.load(manifest.task)
    if file is not None and (Path(file) / "corpus.jsonl").is_file():  # a collection
        examples = tasks.read_labelled(task, Path(file), split="test")[:most]
        return [answers.given(manifest.task, e) for e in examples], ()
    if source.endswith(".txt"):
        records = _lines(Path(source))[:most]
    elif file is None:
        records = [Record({n: r.text("text") for n in ("text", "source")}, r.file, r.line)
                   for r in islice(data.read(source), most)]  # fmt: skip
    else:
        records = list(islice(data.read(source, data.parse_columns(columns), split="test"), most))
    spec = tasks.spec(task, manifest)
    labelled = manifest.task in answers.QUALITY and _is_labelled(task, records[0])
    if labelled:
        examples = tasks.labelled(task, records, spec)
    else:
        examples = [tasks.read_unlabelled(task, each, spec) for each in records]
    return [answers.given(manifest.task, e) for e in examples], examples if labelled else ()


def _is_labelled(task: tasks.Task, first: Record) -> bool:
    try:
        task.read(first, labelled=True)
    except DataError:
        return False
    return True


def _lines(path: Path) -> list[Record]:
    """The file's texts, one a line, without empty lines. Raises DataError."""
    try:
        with path.open(encoding="utf-8") as stream:
            lines = [line.rstrip("\n") for line in stream]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=str(path)) from error
    found = [
        Record({"text": line, "source": line}, str(path), number)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    for each in found:
        if (problem := data.text_problem(each.fields["text"])) is not None:
            raise DataError(problem, file=str(path), line=each.line)
    if not found:
        raise DataError("holds no records", file=str(path))
    return found
