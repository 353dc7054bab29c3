"""headway bench: a bundle's latency, throughput, cold start and memory, beside peers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec

from headway.bench import measure, report
from headway.bench.peers.base import Peer, Wanted, load_peer
from headway.cli.screen import bar, say
from headway.core import data, files, hub
from headway.core.errors import CheckpointError, DataError, UnavailableError, UsageError
from headway.core.manifest import Bundle
from headway.core.threads import budget

MEASURED = ("text-classification", "sentence-embedding")
"""tasks whose answers are compared: labels, vectors"""


def bench(
    bundle: Path,
    /,
    *,
    output: Path,
    input: str | None = None,
    against: str | None = None,
    checkpoint: Path | None = None,
    max_length: int | None = None,
    threads: int | None = None,
    texts: int = 2000,
    one_by_one: int = 300,
    rounds: int = 3,
    columns: str | None = None,
    overwrite: bool = False,
) -> None:
    """Measure every variant of a bundle, and peers on the same texts with the same threads, in one run.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub
    output
        folder for results.json and report.md
    input
        texts to measure on: .jsonl, .csv, .parquet, or .txt with a text a line; none: headway's own support messages
    against
        peers, separated by commas: torch (the Transformers pipeline); of sentence-embedding also
        sentence-transformers, tokenizers-onnxruntime, openvino-direct, ctranslate2, optimum-onnx. Each in all its
        precisions, or in one: torch/bf16
    checkpoint
        the checkpoint that the bundle was made from, which some peers run
    max_length
        tokens that texts are cut to, at most the bundle's own; none: the bundle's own
    threads
        processor threads for everyone; none: all that affinity and cgroup leave
    texts
        how many texts, at most
    one_by_one
        how many of them are also answered one at a time
    rounds
        fresh processes a subject
    columns
        names of fields in the file, as text=body
    overwrite
        replace what is at the output
    """
    for option, value in (("--texts", texts), ("--one-by-one", one_by_one), ("--rounds", rounds)):
        if value < 1:
            raise UsageError(option, f"must be at least 1, not {value}")
    files.refuse_taken(output, overwrite)
    bundle = hub.located(bundle)
    manifest = Bundle.read(bundle)
    if manifest.task not in MEASURED:
        raise UnavailableError(
            f"headway bench for {manifest.task}", f"this version measures {' and '.join(MEASURED)}"
        )
    wanted = _wanted(manifest, threads, max_length)
    if checkpoint is not None:
        _same_model(manifest, checkpoint)
    subjects = _subjects("headway", bundle, checkpoint, manifest.task)
    for name in against.split(",") if against else []:
        subjects += _subjects(name, bundle, checkpoint, manifest.task)
    record = measure.compare(
        subjects,
        _texts(input, columns, texts),
        wanted,
        bundle_seal=manifest.seal,
        one_by_one=one_by_one,
        rounds=rounds,
        progress=bar,
    )
    with files.whole_folder(output, overwrite) as folder:
        (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        (folder / "report.md").write_text(report.markdown(record), encoding="utf-8")
    print(report.markdown(record))
    say(f"results: {output}")


def _wanted(manifest: Bundle, threads: int | None, max_length: int | None) -> Wanted:
    length = manifest.max_length if max_length is None else max_length
    if not 1 <= length <= manifest.max_length:
        raise UsageError(
            "--max-length", f"must be from 1 to the bundle's {manifest.max_length}, not {length}"
        )
    return Wanted(
        task=manifest.task,
        threads=budget(threads),
        max_length=length,
        pad_id=manifest.pad_id,
        pooling=str(manifest.settings.get("pooling", "mean")),
    )


def _subjects(asked: str, bundle: Path, checkpoint: Path | None, task: str) -> list[measure.SubjectName]:
    """Of a peer, or of one of its precisions: "torch", "torch/bf16"."""
    name, _, precision = asked.partition("/")
    peer = load_peer(name)
    if task not in peer.TASKS:
        raise UsageError("--against", f"{name} is measured at {', '.join(peer.TASKS)}, not {task}")
    model = _model(name, peer, bundle, checkpoint)
    known = peer.precisions(model)
    if precision and precision not in known:
        raise UsageError("--against", f"{name} has no '{precision}'; it has {', '.join(known)}")
    return [measure.SubjectName(name, p, model) for p in ([precision] if precision else known)]


def _model(name: str, peer: Peer, bundle: Path, checkpoint: Path | None) -> Path:
    """What a peer runs."""
    if not peer.NEEDS_CHECKPOINT:
        return bundle
    if checkpoint is None:
        raise UsageError("--against", f"{name} runs the checkpoint: give --checkpoint")
    return checkpoint


def _same_model(manifest: Bundle, checkpoint: Path) -> None:
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(checkpoint, "there is no config.json in it")
    known = manifest.source.get(
        "weights_sha256"
    )  # another's bundle need not say; answers are compared in any case
    if known is not None and files.sha256_of_weights(checkpoint) != known:
        raise UsageError("--checkpoint", "is not the checkpoint that the bundle was made from")


def _texts(file: str | None, columns: str | None, most: int) -> Sequence[str]:
    """The first of them."""
    source = file or str(Path(__file__).parents[1] / "examples" / "support" / "train.jsonl")
    if source.endswith(".txt"):
        return _lines(Path(source))[:most]
    records = data.read(source, data.parse_columns(columns))
    return [record.text("text") for record in islice(records, most)]


def _lines(path: Path) -> list[str]:
    """The file's texts, one a line, without empty lines. Raises DataError."""
    try:
        with path.open(encoding="utf-8") as stream:
            lines = [line.rstrip("\n") for line in stream]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=str(path)) from error
    found = [line for line in lines if line.strip()]
    for number, line in enumerate(lines, start=1):
        if line.strip() and (problem := data.text_problem(line)) is not None:
            raise DataError(problem, file=str(path), line=number)
    if not found:
        raise DataError("holds no records", file=str(path))
    return found
