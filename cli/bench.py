"""headway bench: a bundle's latency, throughput, cold start and memory, beside peers; and two such records compared."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cyclopts import App

from headway.bench import compare as changes
from headway.bench import measure, record, roofline
from headway.bench.inputs import of_lengths, read_inputs
from headway.bench.peers.base import Peer, Wanted, load_peer
from headway.bench.report.html import page, require
from headway.bench.report.markdown import markdown
from headway.bench.report.tables import shown
from headway.cli.screen import bar, say, table
from headway.core import files, hub
from headway.core.errors import CheckpointError, GateError, UsageError
from headway.core.manifest import Bundle
from headway.core.threads import budget

bench = App(name="bench", help_format="plaintext", result_action="return_value")


@bench.default
def run(
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
    one_by_one: int = 200,
    rounds: int = 5,
    rates: str | None = None,
    seconds: float = 3.0,
    lengths: str | None = None,
    columns: str | None = None,
    overwrite: bool = False,
) -> None:
    """Measure every variant of a bundle, and peers on the same texts with the same threads, in one run.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub
    output
        folder for results.json (every sample), report.html and report.md
    input
        texts to measure on, as `headway predict` takes them, or .txt with a text a line; quality is measured where
        they have gold answers; none: headway's own support messages
    against
        peers, separated by commas: torch (the Transformers pipeline, or `generate()`); of sentence-embedding also
        sentence-transformers, tokenizers-onnxruntime, openvino-direct, ctranslate2, fastembed, optimum-onnx. Each in
        all its precisions, or in one: torch/bf16, torch/fp32-compiled
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
    rates
        requests a second that arrive whether the ones before were answered or not, separated by commas; none: a
        quarter, a half and three quarters of what the bundle's first variant answers
    seconds
        how long each rate lasts; 0: no load
    lengths
        instead of an input: texts of so many tokens, with shares, as 16:0.7,64:0.2,256:0.1
    columns
        names of fields in the file, as text=body
    overwrite
        replace what is at the output
    """
    for option, value in (("--texts", texts), ("--one-by-one", one_by_one), ("--rounds", rounds)):
        if value < 1:
            raise UsageError(option, f"must be at least 1, not {value}")
    if seconds < 0:
        raise UsageError("--seconds", f"must be at least 0, not {seconds:g}")
    require()
    files.refuse_taken(output, overwrite)
    bundle = hub.located(bundle)
    manifest = Bundle.read(bundle)
    wanted = _wanted(manifest, threads, max_length)
    if checkpoint is not None:
        _same_model(manifest, checkpoint)
    subjects = _subjects("headway", bundle, checkpoint, manifest.task)
    for name in against.split(",") if against else []:
        subjects += _subjects(name, bundle, checkpoint, manifest.task)
    if lengths is not None and input is not None:
        raise UsageError("--lengths", "is instead of --input")
    inputs, gold = (
        read_inputs(manifest, input, columns, texts)
        if lengths is None
        else (of_lengths(bundle, manifest, lengths, texts), ())
    )
    found = measure.compare(
        manifest.task,
        subjects,
        inputs,
        wanted,
        measure.Plan(one_by_one, rounds, seconds, _rates(rates)),
        examples=gold,
        bundle_seal=manifest.seal,
        work=lambda answers: roofline.of_answers(bundle, inputs, answers, wanted.max_length),
        progress=bar,
    )
    with files.whole_folder(output, overwrite) as folder:
        (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        (folder / "report.md").write_text(markdown(found), encoding="utf-8")
        (folder / "report.html").write_text(page(found), encoding="utf-8")
    print(markdown(found))
    say(f"results: {output}")


@bench.command
def compare(old: Path, new: Path, /, *, by: str | None = None, tolerance: float = changes.TOLERANCE) -> None:
    """Tell what became slower or larger from one record to another, beyond chance; exit code 4 if anything did.

    Parameters
    ----------
    old
        results.json of a run before, or the folder that holds it
    new
        of the run after, on the same texts with the same threads
    by
        a peer in both records to which figures are related, as "torch fp32"; none: the first that both have
    tolerance
        share by which a figure may become worse
    """
    if tolerance < 0:
        raise UsageError("--tolerance", f"must be at least 0, not {tolerance:g}")
    before, after = (record.read(p / "results.json" if p.is_dir() else p) for p in (old, new))
    found = changes.compare(before, after, by, tolerance)
    rows = [(c.subject, c.figure, shown(c.ratio, 3), c.verdict) for c in found]
    print(table(("subject", "figure", "new / old (95 %)", "verdict"), rows))
    worse = [c for c in found if c.verdict == "worse"]
    if worse:
        worst = max(worse, key=lambda c: c.ratio.low)
        what = f"{worst.figure}, new / old, at least"
        raise GateError("regression", worst.subject, what, worst.ratio.low, 1 + tolerance)


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
        labels=manifest.labels,
        settings=manifest.settings,
    )


def _rates(asked: str | None) -> list[float]:
    try:
        found = [float(rate) for rate in asked.split(",")] if asked else []
    except ValueError:
        found = [-1.0]
    if not all(0 < rate < float("inf") for rate in found):
        raise UsageError("--rates", f"wants numbers of requests a second, as 20,50; got '{asked}'")
    return found


def _subjects(asked: str, bundle: Path, checkpoint: Path | None, task: str) -> list[measure.SubjectName]:
    """Of a peer, or of one of its precisions: "torch", "torch/bf16"."""
    name, _, precision = asked.partition("/")
    peer = load_peer(name)
    if task not in peer.TASKS:
        raise UsageError("--against", f"{name} is measured at {', '.join(peer.TASKS)}, not {task}")
    model = _model(name, peer, bundle, checkpoint)
    known = peer.precisions(model)
    known_by_name = [*known, *getattr(peer, "BY_NAME", ())]
    if precision and precision not in known_by_name:
        raise UsageError("--against", f"{name} has no '{precision}'; it has {', '.join(known_by_name)}")
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
