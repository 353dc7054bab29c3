"""The bundle's README.md: what it is, how good, how large, how it was proven."""

from __future__ import annotations

from headway.core.manifest import Bundle
from headway.export.engine import base as engines
from headway.export.precision import base


def write(bundle: Bundle, metric: str) -> str:
    """The model card in Markdown."""
    head = (
        f"| variant | size | tokens/s | {metric} | worst difference | alone against in a batch "
        "| same answer as PyTorch |"
    )
    rows = [
        f"| {name} | {_size(bundle, name)} | {_speed(v.tokens_per_second)} | {_figure(v.quality.get(metric))} "
        f"| {v.parity['worst']:.2g} "
        f"| {v.parity['neighbours']:.2g} | {100 * v.parity['agreement']:.1f} % |"
        for name, v in bundle.variants.items()
    ]
    about = [
        f"- **{name}**: {base.load(v.precision).ABOUT}"
        + (f" ({engines.load(v.target).ABOUT})" if v.target != "cpu" else "")
        + (f"; left in fp32 so that it holds: {', '.join(v.kept)}" if v.kept else "")
        for name, v in bundle.variants.items()
    ]
    parity = next(iter(bundle.variants.values())).parity
    proof = (
        "Differences are of logits (vectors), from the PyTorch model, as a share of their standard deviation, on "
        f"{parity['rows']} inputs of {parity['shortest']} to {parity['longest']} tokens."
    )
    if compared := bundle.source.get("end_to_end"):
        proof += (
            f" What it answers to {compared['inputs']} raw strings was compared with {compared['reference']} on the "
            f"model's folder, by {compared['computed_by']}: the largest difference is {compared['worst']:.2g} of the reference's standard deviation."
        )
    simulated = [name for name, v in bundle.variants.items() if v.parity["by"] == "simulation"]
    if simulated:
        proof += (
            f" Those of {', '.join(simulated)} were measured on a processor, by fp32 ops whose results were rounded "
            "as the variant's are, not on the engine itself."
        )
    return "\n".join(
        [
            f"# {bundle.task}, {bundle.architecture['model_type']}",
            "",
            *([f"Labels: {', '.join(bundle.labels)}."] if bundle.labels else []),
            f"Longest input: {bundle.max_length} tokens{_truncation(bundle)}.",
            *_settings(bundle),
            *([str(bundle.source["vocabulary"])] if "vocabulary" in bundle.source else []),
            "",
            head,
            "|---|--:|--:|--:|--:|--:|--:|",
            *rows,
            "",
            *about,
            "",
            proof,
            "",
            "Open it with `headway.runtime.load`, or `fp32/` with any tool that reads ONNX."
            if "fp32" in bundle.variants
            else "Open it with `headway.runtime.load`.",
            "",
        ]
    )


def _truncation(bundle: Bundle) -> str:
    return "; of a longer one the end is read" if bundle.truncation_side == "left" else ""


def _settings(bundle: Bundle) -> list[str]:
    """What is done before and after the model, as far as it is not what a reader expects."""
    found, of = [], bundle.settings
    if prompts := of.get("prompts"):
        named = ", ".join(f"{name} {text!r}" for name, text in prompts.items())
        default = of.get("default_prompt_name")
        found.append(f"Prompts put before texts: {named}; by default {default or 'none'}.")
    if of.get("prompt"):
        found.append(f"Put before each query: {of['prompt']!r}.")
    if of.get("truncate_dim"):
        found.append(f"Vectors are cut to {of['truncate_dim']} dimensions.")
    if of.get("similarity_fn_name", "cosine") != "cosine":
        found.append(f"Similarity of vectors: {of['similarity_fn_name']}.")
    if bundle.task == "text-ranking":
        found.append(f"Activation of the score: {of.get('activation_fn', 'sigmoid')}.")
    return found


def _size(bundle: Bundle, variant: str) -> str:
    total = sum(f.bytes for name, f in bundle.files.items() if name.startswith(f"{variant}/"))
    return f"{total / 1e6:.1f} MB"


def _speed(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.0f}"


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
