"""The gate: a bundle answers raw strings as the source's library does, or export refuses it and names the setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from headway.core import tasks
from headway.core.errors import CheckpointError, EndToEndError, HeadwayError
from headway.core.tolerance import END_TO_END
from headway.export import encoders
from headway.export.end_to_end.base import Answer, Case, Reference, difference
from headway.runtime.pipeline import Pipeline
from headway.train.checkpoint import Opened
from headway.train.quiet import quiet

REFERENCES = {
    "sentence-embedding": "sentence_transformer",
    "text-ranking": "cross_encoder",
    "text-classification": "text_classification",
    "token-classification": "token_classification",
    "text2text-generation": "generation",
    "text-generation": "generation",
}
"""the file of each task's reference. Transformers 5 has no pipeline for question answering, and none ever read the
sentences of a document together"""
OWN = 16
"""of the user's texts, evenly spread"""
LONG = 2
"""texts that are longer than the model, each with another beginning and another end"""


@dataclass(frozen=True)
class EndToEnd:
    """What the comparison came to."""

    reference: str
    """the library's function"""
    computed_by: str
    """the library with its version, or the folder's configuration files"""
    inputs: int
    worst: float
    """largest difference of what a user gets, as a share of the reference's standard deviation"""


def check(opened: Opened, pipe: Pipeline, own: Iterable[Any]) -> EndToEnd | None:
    """Compare a bundle, opened for prediction, with the library; None where the source has no reference of its own.

    `own`: texts of the user. Raises EndToEndError.
    """
    module = REFERENCES.get(opened.manifest.task)
    if opened.foreign is None or module is None:
        return None
    with quiet():
        reference = _open(module, opened)
        if reference is None:
            return None
        cases = reference.cases(_texts(pipe, own))
        found = _answers(reference, pipe, cases)
        expected = _expected(reference, cases, opened)
        worst = difference(found, expected) if cases else 0.0
        if worst <= END_TO_END:
            return EndToEnd(reference.name, reference.computed_by, len(cases), worst)
        raise EndToEndError(
            opened.foreign, reference.name, worst, END_TO_END, _ignored(reference, cases, found)
        )


def _open(module: str, opened: Opened) -> Reference | None:
    """The reference of a task. Raises CheckpointError where the library does not open the model's folder."""
    opening = import_module(f"headway.export.end_to_end.{module}").open_reference
    try:
        reference: Reference | None = opening(opened)
    except HeadwayError:
        raise
    except Exception as error:  # of the library, of any kind
        raise _of_library(error, "open it", opened) from error
    return reference


def _expected(reference: Reference, cases: Sequence[Case], opened: Opened) -> list[Answer]:
    """The library's answers. Raises CheckpointError where it has none."""
    try:
        return reference.answers(cases)
    except Exception as error:  # of the library, of any kind
        raise _of_library(error, "answer", opened) from error


def _of_library(error: Exception, what: str, opened: Opened) -> CheckpointError:
    said = next(iter(str(error).splitlines()), "")
    problem = f"its own library does not {what}: {type(error).__name__}: {said}"
    return CheckpointError(opened.foreign or opened.folder, problem)


def _texts(pipe: Pipeline, own: Iterable[Any]) -> list[str]:
    """The user's, headway's own in many scripts, and some that are longer than the model."""
    texts = [*own, *encoders.shipped()]
    longest = pipe.spec.max_length
    if longest > encoders.LONGEST:
        return texts
    words = " ".join(encoders.shipped()).split()
    repeated = words * (1 + 3 * longest // len(words))
    return texts + [" ".join(repeated[i : i + 2 * longest]) for i in range(LONG)]


def _answers(reference: Reference, pipe: Pipeline, cases: Sequence[Case]) -> list[Answer]:
    found = []
    for place, case in enumerate(cases):
        example = tasks.read_input(pipe.task, case.input, place)
        (result,) = pipe.predict([example], **case.settings)
        found.append(reference.read(case, result))
    return found


def _ignored(reference: Reference, cases: Sequence[Case], found: Sequence[Answer]) -> str | None:
    """The setting without which the library answers as the bundle does."""
    for setting, answers in reference.variations(cases):
        if difference(found, answers) <= END_TO_END:
            return setting
    return None
