"""headway inspect: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from headway.cli.needs import needs
from headway.cli.screen import table
from headway.core import data, hub, tasks
from headway.core.errors import UsageError
from headway.core.manifest import Bundle, Tensor
from headway.core.tasks import EncoderTask
from headway.runtime.load import TOKENIZER
from headway.runtime.tokenize import open_tokenizer

if TYPE_CHECKING:
    from headway.export.doctor import LayerReport


def inspect(
    bundle: Path,
    /,
    *,
    json: bool = False,
    layers: bool = False,
    precision: str | None = None,
    input: str | None = None,
    columns: str | None = None,
) -> None:
    """Verify every file of a bundle and show what it is.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub
    json
        print the whole manifest as JSON
    layers
        also each layer: signal-to-noise, outlier channels, bytes, and what the precision buys on this processor
    precision
        whose layers: a variant; none: the first that is not fp32
    input
        inputs to compare layers on: .jsonl, .csv or .parquet; none: headway's own texts
    columns
        names of fields in that file, as text=body
    """
    bundle = hub.located(bundle)
    manifest = Bundle.read(bundle)
    if precision not in (None, *manifest.variants):
        raise UsageError("--precision", f"the bundle has {', '.join(manifest.variants)}, not '{precision}'")
    manifest.verify(bundle)
    if json:
        print(msgspec.json.format(msgspec.json.encode(manifest)).decode())
        return
    sizes = ", ".join(f"{key} {value}" for key, value in manifest.architecture.items())
    facts = {
        "task": manifest.task,
        "labels": f"{len(manifest.labels)}: {', '.join(manifest.labels)}",
        "longest input": f"{manifest.max_length} tokens",
        "model": sizes,
        **{f"{role} takes": _tensors(graph.inputs) for role, graph in manifest.graphs.items()},
        **{f"{role} gives": _tensors(graph.outputs) for role, graph in manifest.graphs.items()},
        "made by": ", ".join(f"{key} {value}" for key, value in manifest.made_by.items()),
        "identity": manifest.seal,
        "files": f"{len(manifest.files)}, all as declared",
    }
    for name, value in facts.items():
        print(f"{name + ':':15}{value}")
    print()
    metrics = sorted({name for v in manifest.variants.values() for name in v.quality})
    head = ("variant", "MB", "worst difference", "among neighbours", "same answer", *metrics)
    print(table(head, [_row(manifest, name, metrics) for name in manifest.variants]))
    if layers:
        _layers(bundle, manifest, precision, input, data.parse_columns(columns))


def _layers(
    bundle: Path, manifest: Bundle, precision: str | None, file: str | None, columns: dict[str, str] | None
) -> None:
    with needs("export"):
        from headway.export import doctor, encoders
    variant = precision or next((name for name in manifest.variants if name != "fp32"), "fp32")
    task = cast(EncoderTask, tasks.load(manifest.task))
    if encoders.ROLE not in manifest.graphs:
        raise UsageError("--layers", "is for bundles of encoders")
    tokenizer = open_tokenizer(bundle / TOKENIZER)
    spec = tasks.spec(task, manifest)
    records = data.read(file, columns, split="train") if file else iter(())
    own = [tasks.read_unlabelled(task, record, spec) for record in records]
    rows = encoders.sampled(encoders.own_rows(task, tokenizer, spec, own) + encoders.rows(tokenizer, spec))
    feeds = [encoders.feed(row, manifest.graphs[encoders.ROLE]) for row in rows]
    found = doctor.layers(bundle, manifest, variant, feeds)
    head = ("layer", "shape", "signal/noise, dB", "outlier", "MB fp32", f"MB {variant}", "times as fast")
    print()
    print(table(head, [_layer(layer) for layer in found]))
    for sentence in doctor.advice(bundle, manifest, variant, found):
        print(f"- {sentence}")


def _layer(layer: LayerReport) -> list[str]:
    noise = layer.signal_to_noise
    return [
        layer.name,
        f"{layer.inputs}×{layer.outputs}",
        "-" if noise is None else f"{noise:.1f}",
        f"{layer.outlier:.1f}",
        f"{layer.bytes_fp32 / 1e6:.2f}",
        f"{layer.bytes / 1e6:.2f}",
        "kept in fp32" if layer.kept else f"{layer.gain:.2f}",
    ]


def _tensors(tensors: list[Tensor]) -> str:
    return ", ".join(f"{t.name} {t.dtype}{t.shape}" for t in tensors)


def _row(manifest: Bundle, name: str, metrics: list[str]) -> list[str]:
    variant = manifest.variants[name]
    size = sum(f.bytes for file, f in manifest.files.items() if file.startswith(f"{name}/"))
    return [
        name,
        f"{size / 1e6:.1f}",
        f"{variant.parity['worst']:.2g}",
        f"{variant.parity['neighbours']:.2g}",
        f"{variant.parity['agreement']:.4f}",
        *(f"{variant.quality[metric]:.4f}" if metric in variant.quality else "-" for metric in metrics),
    ]
