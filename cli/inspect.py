"""headway inspect: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headway.cli.screen import table
from headway.core import hub
from headway.core.manifest import Bundle, Tensor


def inspect(bundle: Path, /, *, json: bool = False) -> None:
    """Verify every file of a bundle and show what it is.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub
    json
        print the whole manifest as JSON
    """
    bundle = hub.located(bundle)
    manifest = Bundle.read(bundle)
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
