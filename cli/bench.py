"""headway bench: a bundle's latency, throughput, cold start and memory, beside peers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headway.bench import measure, report
from headway.bench.peers.base import load_peer
from headway.cli.screen import bar, say
from headway.core import data, files, hub
from headway.core.errors import UnavailableError, UsageError
from headway.core.manifest import Bundle, Checkpoint
from headway.core.tasks import text_classification
from headway.core.threads import budget


def bench(
    bundle: Path,
    /,
    *,
    output: Path,
    input: str | None = None,
    against: str | None = None,
    checkpoint: Path | None = None,
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
        texts to measure on: .jsonl, .csv or .parquet; none: headway's own support messages
    against
        peers, separated by commas: torch (the Transformers pipeline, fp32 and bf16)
    checkpoint
        the checkpoint that the bundle was made from, which peers in PyTorch run
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
    subjects = []
    for name in ["headway", *(against.split(",") if against else [])]:
        peer = load_peer(name)
        if peer.NEEDS_CHECKPOINT and checkpoint is None:
            raise UsageError("--against", f"{name} runs the checkpoint: give --checkpoint")
        model = checkpoint if peer.NEEDS_CHECKPOINT and checkpoint is not None else bundle
        subjects += [measure.SubjectName(name, precision, model) for precision in peer.precisions(model)]
    if checkpoint is not None:
        _same_model(manifest, checkpoint)
    chosen = _texts(manifest.task, input, columns)[:texts]
    record = measure.compare(
        subjects,
        chosen,
        threads=budget(threads),
        max_length=manifest.max_length,
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


def _same_model(manifest: Bundle, checkpoint: Path) -> None:
    Checkpoint.read(checkpoint)
    if files.sha256_of_weights(checkpoint) != manifest.source["weights_sha256"]:
        raise UsageError("--checkpoint", "is not the checkpoint that the bundle was made from")


def _texts(task_name: str, file: str | None, columns: str | None) -> list[str]:
    if task_name != "text-classification":
        raise UnavailableError(f"headway bench for {task_name}", "this version measures text-classification")
    source = file or str(Path(__file__).parents[1] / "examples" / "support" / "train.jsonl")
    records = data.read(source, data.parse_columns(columns))
    return [text_classification.read(r, labelled=False).text for r in records]
