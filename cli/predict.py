"""headway predict: a file of inputs in, a file of predictions out."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from headway.cli.lines import Place, ready_lines, write_lines
from headway.cli.screen import bar, say
from headway.core import data, files, tasks
from headway.core.data import Reading, Record
from headway.core.tasks import Example
from headway.runtime import load
from headway.runtime.bulk import Partial, can_resume, resumable
from headway.runtime.pipeline import WINDOW, Pipeline

BLOCK_SECONDS = 10.0
"""that a block should take, at most, and after which a block is committed: a kill thus costs 20 seconds of work, or 30 where
the next texts are longer than those before"""


def predict(
    bundle: Path,
    /,
    *,
    input: Place,
    output: Place,
    precision: str = "auto",
    device: str = "cpu",
    backend: str = "auto",
    batch_tokens: int | None = None,
    threads: int | None = None,
    columns: str | None = None,
    split: str | None = None,
    prompt_name: str | None = None,
    restart: bool = False,
) -> None:
    """Predict every record of a file, in order, in bounded memory.

    A run that was stopped, killed even, leaves OUTPUT.partial and OUTPUT.journal; the same command goes on there.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub
    input
        .jsonl, .csv or .parquet file, or a folder of the datasets library; - for JSON Lines on standard input
    output
        file for the predictions, which appears whole or not at all; - for standard output
    precision
        variant of the bundle, as fp32 or int8; auto: the fastest here
    device
        where to run: cpu, cuda, cuda:1; several GPUs as cuda:0,cuda:1
    backend
        engine, as onnxruntime or openvino; auto: the fastest here
    batch_tokens
        padded tokens in a batch, at most; none: the plan's that `headway tune` left, or 512
    threads
        processor threads; none: all that affinity and cgroup leave
    columns
        names of fields in the file, as text=body
    split
        which split of a folder that has several, as test
    prompt_name
        sentence-embedding: the bundle's prompt that is put before each text, as query; none: its default prompt
    restart
        begin anew, whatever an earlier run left
    """
    files.refuse_unwritable_file(output)
    mapping = data.parse_columns(columns)
    records = data.read_split(input, mapping, split)
    pipe = load(
        bundle,
        device=device.split(","),
        backend=backend,
        precision=precision,
        threads=threads,
        batch_tokens=batch_tokens,
    )
    call = {} if prompt_name is None else {"prompt_name": prompt_name}
    pipe.predict([], **call)  # refuses a setting that the task has not
    total = _count(Path(input)) if sys.stderr.isatty() else None
    if can_resume(input, output):
        settings = {
            "bundle": pipe.manifest.seal[:16],
            "precision": pipe.precision,
            "device": device,
            "backend": backend,
            "batch_tokens": pipe.batch_tokens,
            "columns": mapping,
            "split": split,
            "prompt_name": prompt_name,
            "window": WINDOW,
            "headway": version("headway"),
        }
        with resumable(Path(output), settings, restart) as partial:
            cut = _resume(pipe, records, call, partial, total)
    else:
        cut = 0
        with files.whole_file(output) as stream:
            for _, more in _blocks(pipe, records, call, stream, total):
                stream.flush()
                cut += more
    if cut:
        say(
            f'{cut} inputs were longer than {pipe.manifest.max_length} tokens and were cut ("truncated": true)'
        )


def _resume(
    pipe: Pipeline, records: Reading, call: Mapping[str, str], partial: Partial, total: int | None
) -> int:
    """Answer the records that are not answered yet; returns how many texts were cut in all."""
    done = partial.whole.records
    if done:
        say(f"going on after {done} records that an earlier run answered")
    left = None if total is None else total - done
    rest = partial.rest(records)
    answered: list[Record] = []
    cut, since = 0, time.monotonic()
    try:
        for block, more in _blocks(pipe, rest, call, partial.stream, left, partial.block):
            answered += [example.record for example in block]
            cut += more
            if len(answered) >= WINDOW // 2 or time.monotonic() - since >= BLOCK_SECONDS:
                partial.commit(answered, cut)
                answered, cut, since = [], 0, time.monotonic()
        partial.commit(answered, cut)
    except BaseException:
        if kept := partial.whole.records:
            say(f"{kept} records are answered and kept; the same command goes on after them")
        raise
    return partial.whole.cut


def _blocks(
    pipe: Pipeline,
    records: Reading,
    call: Mapping[str, str],
    stream: TextIO,
    total: int | None,
    before: int = 0,
) -> Iterator[tuple[list[Example], int]]:
    """Write a line a record; yields after each block its inputs, and how many texts of it were cut.

    The first block is one record, each following one twice as large as long as it takes little time. `before`: records
    that an earlier run committed together at last. Of a pipe a block has the records that have come.
    """
    read = (tasks.read_unlabelled(pipe.task, record, pipe.spec) for record in records)
    shown = bar(read, "predicting", total)
    size = min(2 * before, WINDOW) or 1
    while block := ready_lines(shown, size, records.ready):
        began = time.monotonic()
        results = pipe.predict(block, **call)
        yield block, write_lines(stream, block, results)
        size = next_size(size, time.monotonic() - began)


def next_size(size: int, seconds: float) -> int:
    """Records in the next block, at most, by how long one of at most `size` took."""
    if seconds <= BLOCK_SECONDS / 2:
        return min(2 * size, WINDOW)
    while seconds > BLOCK_SECONDS and size > 1:
        size, seconds = size // 2, seconds / 2
    return size


def _count(path: Path) -> int | None:
    """Records in a file, about, where that is quickly known."""
    if path.suffix == ".parquet" and path.is_file():
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    if path.suffix not in (".jsonl", ".json", ".csv") or not path.is_file():
        return None
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
