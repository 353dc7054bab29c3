"""headway run: train, and evaluate, with the options that a recipe holds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from headway.cli.evaluate import evaluate, refuse_outputs
from headway.cli.screen import say
from headway.cli.train import train
from headway.core.errors import DataError
from headway.train.options import TrainOptions


class Recipe(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A recipe: the task, the options of `headway train`, and where wanted those of `headway evaluate`."""

    task: str
    train: dict[str, Any]
    """options with underscores, as in TrainOptions"""
    evaluate: dict[str, Any] | None = None
    """data, json, predictions, report, columns"""


def run(
    recipe: Path,
    /,
    *,
    model: str | None = None,
    train_file: Path | None = None,
    eval_file: Path | None = None,
    test_file: Path | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Train a model as a recipe (TOML) says, and evaluate it. Paths in it are relative to the working folder.

    Parameters
    ----------
    recipe
        TOML: task = "…", a table [train] with the options of `headway train`, and one [evaluate]
    model
        in the place of the recipe's model
    train_file
        in the place of the recipe's training data
    eval_file
        in the place of the recipe's held-out data
    test_file
        in the place of the data that the recipe evaluates on
    output
        in the place of the recipe's output
    overwrite
        replace what is at the output
    """
    read = _read(recipe)
    changes = {"model": model, "train": train_file, "eval": eval_file, "output": output}
    given = read.train | {k: str(v) for k, v in changes.items() if v is not None}
    options = _options(recipe, given | ({"overwrite": True} if overwrite else {}))
    chosen: _Evaluation | None = None
    if read.evaluate is not None:
        settings = {**read.evaluate} | ({} if test_file is None else {"data": str(test_file)})
        try:
            chosen = msgspec.convert(settings, _Evaluation, dec_hook=_path)
        except msgspec.ValidationError as error:
            raise DataError(f"[evaluate]: {error}", file=str(recipe)) from error
        refuse_outputs(chosen.json, chosen.predictions, chosen.report, overwrite)
    train(read.task, options=options)
    if chosen is not None:
        say(f"evaluating on {chosen.data}")
        evaluate(options.output, overwrite=overwrite, **msgspec.structs.asdict(chosen))


class _Evaluation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    data: Path
    json: str | None = None
    predictions: str | None = None
    report: Path | None = None
    columns: str | None = None


def _read(path: Path) -> Recipe:
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Recipe)
    except OSError as error:
        raise DataError(error.strerror or str(error), file=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise DataError(f"not a recipe: {error}", file=str(path)) from error


def _options(path: Path, given: dict[str, Any]) -> TrainOptions:
    unknown = given.keys() - TrainOptions.__dataclass_fields__.keys()
    if unknown:
        raise DataError(f"[train]: unknown option '{min(unknown)}'", file=str(path))
    try:
        return msgspec.convert(given, TrainOptions, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise DataError(f"[train]: {error}", file=str(path)) from error


def _path(kind: type, value: Any) -> Any:
    """A path in a recipe is a string."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected a path in quotes, got `{type(value).__name__}`")  # msgspec adds the place
