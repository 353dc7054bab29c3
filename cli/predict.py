"""headway predict: a file of inputs in, a file of predictions out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from headway.cli.lines import Place, write_lines
from headway.cli.screen import bar, say
from headway.core import data, files, tasks
from headway.runtime import load
from headway.runtime.pipeline import WINDOW
from headway.runtime.plan import BATCH_TOKENS


def predict(
    bundle: Path,
    /,
    *,
    input: Place,
    output: Place,
    precision: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
    threads: int | None = None,
    columns: str | None = None,
) -> None:
    """Predict every record of a file, in order, in bounded memory.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub
    input
        .jsonl, .csv or .parquet file; - for JSON Lines on standard input
    output
        file for the predictions, which appears whole or not at all; - for standard output
    precision
        variant of the bundle, as fp32 or int8; auto: the fastest here
    device
        where to run: cpu
    backend
        engine: onnxruntime; auto: the first that runs on the device
    batch_tokens
        padded tokens in a batch, at most
    threads
        processor threads; none: all that affinity and cgroup leave
    columns
        names of fields in the file, as text=body
    """
    mapping = data.parse_columns(columns)
    pipe = load(
        bundle,
        device=device,
        backend=backend,
        precision=precision,
        threads=threads,
        batch_tokens=batch_tokens,
    )
    task = tasks.load(pipe.manifest.task)
    examples: Iterator[tasks.Example] = (task.read(r, labelled=False) for r in data.read(input, mapping))
    cut = 0
    with files.whole_file(output) as stream:
        shown = bar(examples, "predicting")
        while window := list(islice(shown, WINDOW)):
            cut += write_lines(stream, window, pipe.predict(window))
    if cut:
        say(
            f'{cut} inputs were longer than {pipe.manifest.max_length} tokens and were cut ("truncated": true)'
        )
