"""Tasks: what goes in and what comes out. One file per task, each with the members of `Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import data, gold, siblings
from headway.core.data import Record
from headway.core.errors import DataError, InputError
from headway.core.prefix import alike, beginning
from headway.core.report import Table

FAMILY = "headway.core.tasks"

Side = Literal["left", "right"]
"""of a text, as in a tokenizer's `truncation_side`"""


class Example(Protocol):
    """One input of a task, with its gold answer where the data has one."""

    @property
    def id(self) -> Any: ...

    @property
    def record(self) -> Record: ...


class Result(Protocol):
    """One prediction. A dataclass whose fields are those of DESIGN's table."""

    @property
    def truncated(self) -> bool: ...


@dataclass(frozen=True)
class Spec:
    """All that a trained model's answers depend on beside its weights and its tokenizer."""

    labels: list[str]
    max_length: int
    """tokens in one input of the model, special ones included"""
    settings: Any
    """the task's `Settings`"""
    truncation_side: Side = "right"
    """where a text that is too long loses tokens, where the task does not read it in windows"""


@dataclass(frozen=True)
class Row:
    """One input of the model: a text, a pair of texts, or a window of a longer one."""

    example: int
    """which example it belongs to"""
    ids: list[int]  # (T)
    types: list[int]  # (T): segment of each token, 0 or 1
    marks: Any = None
    """where in the row the task's units (words, sentences, characters of a context) are"""
    truncated: bool = False


@dataclass(frozen=True)
class Output:
    """What the model said to a row."""

    row: Row
    logits: NDArray[np.float32]
    """(C) for one answer a row, (T, C) for one a token, (D) for a vector"""


class Task(Protocol):
    """What each module of this family defines."""

    Settings: type[msgspec.Struct]
    """what the task needs to know beyond labels; all fields have defaults"""
    PLAIN: Mapping[int, tuple[str, ...]]
    """fields of an input that is given as one text, or as so many texts"""

    def metric(self, settings: Any) -> str:
        """The figure that early stopping and the quality gate watch."""
        ...

    def read(self, record: Record, labelled: bool) -> Example:
        """Check a record. Raises DataError with file, line and field."""
        ...

    def check(self, example: Example, spec: Spec) -> None:
        """Raise DataError if the example's gold answer is not one that the model can give."""
        ...

    def decode(self, examples: Sequence[Example], outputs: Any, spec: Spec) -> list[Result]:
        """Results in the order of the examples: the plain way, in numpy.

        `outputs` are `Output`s in the order of the rows; for tasks that generate, their results themselves.
        """
        ...

    def calibrate(self, examples: Sequence[Example], outputs: Any, spec: Spec) -> Any:
        """The settings with temperature and thresholds fitted on labelled held-out examples."""
        ...

    def metrics(self, examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
        """Figures by their usual names, from gold answers and predictions in the same order."""
        ...

    def certainty(
        self, examples: Sequence[Example], results: Sequence[Result]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """How sure each answer was (N) and whether it was right (N); None for tasks without probabilities."""
        ...

    def tables(self, examples: Sequence[Example], results: Sequence[Result]) -> list[Table]:
        """What a report shows: per class, confusions, the worst errors."""
        ...


class EncoderTask(Task, Protocol):
    """A task whose answers come from one pass through an encoder."""

    GRAPH: Mapping[str, tuple[str, ...]]
    """the exported graph's outputs, float32, by name, with their dimensions: batch, length, classes, width"""
    READ: tuple[str, ...]
    """which of them `Output.logits` is: one, or several side by side in a last dimension of their own"""

    def rows(self, examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
        """The model's inputs, in order; `tokenizer` is a `tokenizers.Tokenizer`, whose truncation may change."""
        ...


FIGURES_FALLING = frozenset({"perplexity", "word_perplexity"})
"""metrics that are better when lower, and are no shares"""


def joined(task: EncoderTask, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """What `Output.logits` are, for a batch (B, …), from a graph's outputs by name."""
    parts = [outputs[name] for name in task.READ]
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)


def names() -> list[str]:
    """Names of the tasks, as the command line and the files write them."""
    return siblings.names(FAMILY)


def load(name: str, option: str = "TASK") -> Task:
    """The task of that name. Raises UsageError, naming `option`."""
    return cast(Task, siblings.load(FAMILY, name, option))


def spec(task: Task, manifest: Any, settings: Mapping[str, Any] | None = None) -> Spec:
    """The spec in a checkpoint's or a bundle's manifest, or with other settings.

    Raises msgspec.ValidationError if it is malformed.
    """
    own = msgspec.convert(settings or manifest.settings, task.Settings)
    if (twice := data.repeated(manifest.labels)) is not None:
        raise msgspec.ValidationError(f"two of its labels are called '{twice}'")
    side: Side = getattr(manifest, "truncation_side", "right")  # of a checkpoint its tokenizer says it
    return Spec(list(manifest.labels), manifest.max_length, own, side)


def unknown_token(task: Task, settings: Any, tokenizer: Any) -> str | None:
    """What is wrong with the first setting that names a token which the `tokenizers.Tokenizer` does not have, or None."""
    named = getattr(task, "tokens", None)
    for name, token in named(settings).items() if named is not None else ():
        if token is not None and tokenizer.token_to_id(token) is None:
            return f"its setting '{name}' is '{token}', which its tokenizer does not have"
    return None


def read_input(task: Task, given: Any, place: int, spec: Spec | None = None) -> Example:
    """An input of a call: a text, a tuple of texts, or an object with the task's fields. Raises InputError.

    With a `spec`, only an input that the model can read.
    """
    parts = given if isinstance(given, tuple) else (given,)
    fields = given
    if not isinstance(given, Mapping):
        names = task.PLAIN.get(len(parts), ())
        if not names or not all(isinstance(part, str) for part in parts):
            forms = ["a text" if n == 1 else f"a tuple ({', '.join(own)})" for n, own in task.PLAIN.items()]
            wanted = ", ".join([*forms, "or an object with the task's fields"])
            raise InputError(place, f"must be {wanted}, not {type(given).__name__}")
        fields = dict(zip(names, parts, strict=True))
    try:
        return read_unlabelled(task, Record(fields, "input", place), spec)
    except DataError as error:
        plain = not isinstance(given, Mapping) or error.field is None
        raise InputError(
            place, error.problem if plain else f"field '{error.field}': {error.problem}"
        ) from error


def read_unlabelled(task: Task, record: Record, spec: Spec | None = None) -> Example:
    """A record that has, or needs, no gold answer; with a `spec`, only one that the model can read. Raises DataError."""
    example = task.read(record, labelled=False)
    check_input = getattr(task, "check_input", None)
    if check_input is not None and spec is not None:
        check_input(example, spec)
    return example


def read_labelled(
    task: Task,
    path: Path,
    columns: Mapping[str, str] | None = None,
    spec: Spec | None = None,
    split: str = "train",
    wanted: Sequence[str] = (),
) -> list[Example]:
    """Every record of a labelled file; with a `spec`, only gold answers that the model can give. Raises DataError.

    `split` says which part is meant where a file holds several: train, dev or test; `wanted`, which kind of gold
    answer, where the records carry several and no `spec` tells (`labelled`).
    """
    folder = getattr(task, "read_folder", None)
    if folder is not None and (path / "corpus.jsonl").is_file():
        examples: list[Example] = folder(path, split)
        for example in examples if spec is not None else ():
            task.check(example, cast(Spec, spec))
        return examples
    return labelled(task, list(data.read(path, columns, split)), spec, wanted)


def labelled(
    task: Task, records: Sequence[Record], spec: Spec | None = None, wanted: Sequence[str] = ()
) -> list[Example]:
    """Records with gold answers; with a `spec`, only those that the model can give. Raises DataError.

    Of records that carry several kinds of gold answer the one is read that the model's settings say, or else the
    first of `wanted`, or else the one that `gold.choose` takes.
    """
    if not hasattr(task, "gold_kinds"):
        examples = [task.read(record, labelled=True) for record in records]
    else:
        kind = gold.choose(task, records, wanted if spec is None else _gold_of(task, spec))
        examples = [cast(Any, task).read(record, True, kind) for record in records]
    for example in examples if spec is not None else ():
        task.check(example, cast(Spec, spec))
    return examples


def _gold_of(task: Any, spec: Spec) -> tuple[str, ...]:
    """The kinds of gold answer that a model is judged by, as far as its settings say."""
    return tuple(task.gold_of(spec.settings)) if hasattr(task, "gold_of") else ()


def read_again(task: Task, examples: list[Example], spec: Spec) -> list[Example]:
    """Examples that were read before the model's settings were known, with the gold answers that these say.

    Raises DataError.
    """
    read: Any = task.read
    for kind in _gold_of(task, spec)[:1]:
        examples = [
            read(e.record, True, kind) if kind in cast(Any, task).gold_kinds(e.record) else e
            for e in examples
        ]
    for example in examples:
        task.check(example, spec)
    return examples


def encode(
    tokenizer: Any,
    texts: Sequence[Any],
    max_length: int,
    stride: int = 0,
    strategy: str = "longest_first",
    offsets: bool = True,
    special: bool = True,
    side: Side = "right",
) -> list[Any]:
    """`tokenizers` encodings of texts or pairs; what does not fit is in each one's `overflowing`.

    `offsets`: whether it matters where in the text each token is, and what overflows; it is faster where it does not.
    `special`: with special tokens. `side`: where a text that is too long loses tokens.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, stride=stride, strategy=strategy, direction=side)
    if offsets:
        return _encoded(tokenizer, tokenizer.encode_batch, texts, special)
    read = list(texts) if side == "left" else [beginning(tokenizer, text, max_length) for text in texts]
    found = _encoded(tokenizer, tokenizer.encode_batch_fast, read, special)
    return [
        encoding if alike(encoding, some, text) else _encoded(tokenizer, None, [text], special)[0]
        for encoding, some, text in zip(found, read, texts, strict=True)
    ]


def _encoded(tokenizer: Any, many: Any, texts: Sequence[Any], special: bool) -> list[Any]:
    if len(texts) == 1:  # no thread pool to wake
        parts = texts[0] if isinstance(texts[0], tuple) else texts
        return [tokenizer.encode(*parts, add_special_tokens=special)]
    return cast(list[Any], many(list(texts), add_special_tokens=special))
