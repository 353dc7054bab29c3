"""headway train: fine-tune a model on labelled data."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from headway.cli.needs import needs
from headway.cli.screen import bar, percent, say
from headway.train.options import TrainOptions


def train(task: str, /, *, options: Annotated[TrainOptions, Parameter(name="*")]) -> None:
    """Fine-tune a pretrained model for TASK and write a checkpoint.

    Parameters
    ----------
    task
        what goes in and what comes out: text-classification
    """
    with needs("train"):
        from headway.train import fit
    report = fit.train(task, options, bar)
    figures = ", ".join(f"{name} {percent(value)}" for name, value in report.metrics.items())
    say(f"checkpoint: {report.checkpoint}" + (f" ({figures} on {options.eval})" if figures else ""))
    if report.truncated:
        say(
            f"{report.truncated} texts were longer than {options.max_length} tokens and were cut (--max-length)"
        )
