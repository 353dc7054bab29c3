"""headway export: a checkpoint to a bundle of proven variants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headway.cli.needs import needs
from headway.cli.screen import bar, percent, say
from headway.core import files
from headway.export.options import ExportOptions


def export(checkpoint: Path, /, *, options: Annotated[ExportOptions, Parameter(name="*")]) -> None:
    """Export a checkpoint to ONNX in several precisions, each compared with PyTorch on real texts.

    Parameters
    ----------
    checkpoint
        folder that `headway train` wrote
    """
    files.refuse_taken(options.output, options.overwrite)  # before seconds of imports
    with needs("export"):
        from headway.export import bundle
    report = bundle.export(checkpoint, options, bar)
    say(f"bundle: {report.bundle}")
    for name, value in report.reference.items():
        say(f"  checkpoint: {name} {percent(value)} on {options.eval}")
    for variant, proof in report.variants.items():
        p = proof.parity
        figures = "".join(f", {name} {percent(value)}" for name, value in proof.quality.items())
        say(
            f"  {variant}: worst difference {p['worst']:.2g}, among neighbours {p['neighbours']:.2g}, "
            f"same answer {percent(p['agreement'])} of {p['rows']} inputs{figures}"
        )
        if proof.kept:
            say(f"    left in fp32, the most sensitive first: {', '.join(proof.kept)}")
