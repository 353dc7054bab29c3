"""headway evaluate: a checkpoint's or a bundle's figures on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from headway.cli.lines import Place, write_lines
from headway.cli.needs import needs
from headway.cli.screen import bar, percent, say
from headway.core import data as reader
from headway.core import files, manifest, tasks
from headway.core.errors import UsageError
from headway.core.tasks import Example, Result
from headway.core.threads import budget


def evaluate(
    model: Path,
    /,
    *,
    data: Path,
    precision: str | None = None,
    json: Place | None = None,
    predictions: Place | None = None,
    columns: str | None = None,
    threads: int | None = None,
) -> None:
    """Measure a checkpoint (in PyTorch) or a bundle (through the runtime) on labelled data.

    Parameters
    ----------
    model
        folder of a checkpoint or a bundle
    data
        labelled data: .jsonl, .csv or .parquet
    precision
        variant of the bundle, as fp32 or int8; none: the fastest here
    json
        file for the figures, - for standard output
    predictions
        file for one line a record, as `headway predict` writes them
    columns
        names of fields in the file, as text=body,label=topic
    threads
        processor threads; none: all that affinity and cgroup leave
    """
    if manifest.kind(model) == "bundle":
        name, examples, results = _bundle(model, data, columns, precision, threads)
    elif precision is not None:
        raise UsageError("--precision", "is for bundles; this is a checkpoint, which is evaluated in fp32")
    else:
        name, examples, results = _checkpoint(model, data, columns, threads)
    metrics = tasks.load(name).metrics(examples, results)
    if predictions is not None:
        with files.whole_file(predictions) as stream:
            write_lines(stream, examples, results)
    say(f"{len(examples)} records: " + ", ".join(f"{k} {percent(v)}" for k, v in metrics.items()))
    if json is not None:
        with files.whole_file(json) as stream:
            stream.write(
                msgspec.json.encode({"task": name, "n": len(examples), "metrics": metrics}).decode() + "\n"
            )


def _bundle(
    folder: Path, file: Path, columns: str | None, precision: str | None, threads: int | None
) -> tuple[str, list[Example], Sequence[Result]]:
    from headway.runtime import load

    pipe = load(folder, precision=precision or "auto", threads=threads)
    task = tasks.load(pipe.manifest.task)
    examples = tasks.read_labelled(task, file, reader.parse_columns(columns), pipe.manifest.labels)
    texts = [task.inputs(e) for e in examples]
    return pipe.manifest.task, examples, list(bar(pipe.stream(texts), "evaluating", len(texts)))


def _checkpoint(
    folder: Path, file: Path, columns: str | None, threads: int | None
) -> tuple[str, list[Example], Sequence[Result]]:
    with needs("train"):
        import torch

        from headway.train import checkpoint
    torch.set_num_threads(budget(threads))
    opened = checkpoint.open_checkpoint(folder)
    task = tasks.load(opened.manifest.task)
    examples = tasks.read_labelled(task, file, reader.parse_columns(columns), opened.manifest.labels)
    return opened.manifest.task, examples, checkpoint.predict(opened, examples, bar)
