"""headway evaluate: a checkpoint's or a bundle's figures on labelled data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headway.cli.lines import Place, write_lines
from headway.cli.needs import needs
from headway.cli.screen import bar, figures, say
from headway.core import data as reader
from headway.core import files, hub, manifest, tasks
from headway.core.calibration import expected_calibration_error
from headway.core.errors import UsageError
from headway.core.report import Report
from headway.core.tasks import Example, Result, Task
from headway.core.threads import budget

Predict = Callable[[Sequence[Example]], Sequence[Result]]


def evaluate(
    model: Path,
    /,
    *,
    data: Path,
    precision: str | None = None,
    json: Place | None = None,
    predictions: Place | None = None,
    report: Path | None = None,
    columns: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Measure a checkpoint (in PyTorch) or a bundle (through the runtime) on labelled data.

    Tags of entities are measured on the tokens of the data and on the same texts without them; where the figures differ,
    both are told.

    Parameters
    ----------
    model
        folder of a checkpoint or a bundle, or a bundle's OWNER/NAME@COMMIT on the hub
    data
        labelled data: .jsonl, .csv, .parquet, plain .txt, or the folder of a retrieval collection
    precision
        variant of the bundle, as fp32 or int8; none: the fastest here
    json
        file for the figures, - for standard output
    predictions
        file for one line a record, as `headway predict` writes them
    report
        folder for report.html and report.json: per class, confusions, the worst errors
    columns
        names of fields in the file, as text=body,label=topic
    threads
        processor threads; none: all that affinity and cgroup leave
    overwrite
        replace what is at the report's folder
    """
    refuse_outputs(json, predictions, report, overwrite)
    model = hub.located(model)
    if manifest.kind(model) == "bundle":
        name, examples, predict = _bundle(model, data, columns, precision, threads)
    elif precision is not None:
        raise UsageError("--precision", "is for bundles; this is a checkpoint, which is evaluated in fp32")
    else:
        name, examples, predict = _checkpoint(model, data, columns, threads)
    task = tasks.load(name)
    results = predict(examples)
    metrics = task.metrics(examples, results)
    metrics |= _metrics_as_text(task, examples, results, metrics, predict)
    if predictions is not None:
        with files.whole_file(predictions) as stream:
            write_lines(stream, examples, results)
    if report is not None:
        with files.whole_folder(report, overwrite) as folder:
            _report(task, name, examples, results, metrics).write(folder)
    say(f"{len(examples)} records: {figures(metrics)}")
    if json is not None:
        with files.whole_file(json) as stream:
            stream.write(
                msgspec.json.encode({"task": name, "n": len(examples), "metrics": metrics}).decode() + "\n"
            )


def refuse_outputs(
    json: str | None, predictions: str | None, report: Path | None, overwrite: bool = False
) -> None:
    """Raise OutputError if one of the outputs could not be written, before the work."""
    for output in (json, predictions):
        if output is not None:
            files.refuse_unwritable_file(output)
    if report is not None:
        files.refuse_taken(report, overwrite)


def _metrics_as_text(
    task: Any, examples: list[Example], results: Sequence[Result], metrics: dict[str, float], predict: Predict
) -> dict[str, float]:
    """Those of `metrics` that differ where the inputs are in the form that users give, of tasks that have another one."""
    texts = task.without_tokens(examples, results) if hasattr(task, "without_tokens") else []
    if not texts:
        return {}
    found: dict[str, float] = task.metrics_as_text(examples, results, predict(texts))
    return {name: value for name, value in found.items() if value != metrics[name.removesuffix("_as_text")]}


def _report(
    task: Task, name: str, examples: list[Example], results: Sequence[Result], metrics: dict[str, float]
) -> Report:
    cut = sum(r.truncated for r in results)
    certainty = task.certainty(examples, results)
    return Report(
        task=name,
        n=len(examples),
        metrics=metrics,
        calibration={}
        if certainty is None
        else {"expected calibration error": expected_calibration_error(*certainty)},
        counts={"cut at the model's longest input": cut} if cut else {},
        tables=task.tables(examples, results),
    )


def _bundle(
    folder: Path, file: Path, columns: str | None, precision: str | None, threads: int | None
) -> tuple[str, list[Example], Predict]:
    from headway.runtime import load

    pipe = load(folder, precision=precision or "auto", threads=threads)
    task = tasks.load(pipe.manifest.task)
    spec = tasks.spec(task, pipe.manifest)
    examples = tasks.read_labelled(task, file, reader.parse_columns(columns), spec, split="test")

    def predict(given: Sequence[Example]) -> Sequence[Result]:
        return list(bar(pipe.judge(given), "evaluating", len(given)))

    return pipe.manifest.task, examples, predict


def _checkpoint(
    folder: Path, file: Path, columns: str | None, threads: int | None
) -> tuple[str, list[Example], Predict]:
    with needs("train"):
        import torch

        from headway.train import checkpoint
    torch.set_num_threads(budget(threads))
    opened = checkpoint.open_checkpoint(folder)
    task = tasks.load(opened.manifest.task)
    examples = tasks.read_labelled(task, file, reader.parse_columns(columns), opened.spec, split="test")
    return opened.manifest.task, examples, lambda given: checkpoint.predict(opened, given, bar)
