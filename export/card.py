"""The bundle's README.md: what it is, how good, how large, how it was proven."""

from __future__ import annotations

from headway.core.manifest import Bundle
from headway.export.precision import base


def write(bundle: Bundle, metric: str) -> str:
    """The model card in Markdown."""
    head = f"| variant | size | {metric} | worst difference | alone against in a batch | same answer as PyTorch |"
    rows = [
        f"| {name} | {_size(bundle, name)} | {_figure(v.quality.get(metric))} | {v.parity['worst']:.2g} "
        f"| {v.parity['neighbours']:.2g} | {100 * v.parity['agreement']:.1f} % |"
        for name, v in bundle.variants.items()
    ]
    about = [
        f"- **{name}**: {base.load(v.precision).ABOUT}"
        + (f"; left in fp32 so that it holds: {', '.join(v.kept)}" if v.kept else "")
        for name, v in bundle.variants.items()
    ]
    parity = next(iter(bundle.variants.values())).parity
    proof = (
        "Differences are of logits (vectors), from the PyTorch model, as a share of their standard deviation, on "
        f"{parity['rows']} inputs of {parity['shortest']} to {parity['longest']} tokens."
    )
    return "\n".join(
        [
            f"# {bundle.task}, {bundle.architecture['model_type']}",
            "",
            *([f"Labels: {', '.join(bundle.labels)}."] if bundle.labels else []),
            f"Longest input: {bundle.max_length} tokens.",
            "",
            head,
            "|---|--:|--:|--:|--:|--:|",
            *rows,
            "",
            *about,
            "",
            proof,
            "",
            "Open it with `headway.runtime.load`, or `fp32/` with any tool that reads ONNX.",
            "",
        ]
    )


def _size(bundle: Bundle, variant: str) -> str:
    total = sum(f.bytes for name, f in bundle.files.items() if name.startswith(f"{variant}/"))
    return f"{total / 1e6:.1f} MB"


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
