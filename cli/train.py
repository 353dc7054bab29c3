"""headway train: fine-tune a model on labelled data."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from headway.cli.needs import needs
from headway.cli.screen import bar, figures, say
from headway.core import files
from headway.train.options import TrainOptions


def train(task: str, /, *, options: Annotated[TrainOptions, Parameter(name="*")]) -> None:
    """Fine-tune a pretrained model for TASK and write a checkpoint.

    Parameters
    ----------
    task
        text-classification, sequential-sentence-classification, token-classification, question-answering,
        text2text-generation, text-generation, sentence-embedding or text-ranking
    """
    if os.environ.get("RANK", "0") == "0":
        files.refuse_taken(options.output, options.overwrite)  # before seconds of imports
    with needs("train"):
        from headway.train import fit
    trained = fit.train(task, options, bar, say)
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process speaks
    for reason, count in trained.counts.items():
        say(f"{count} training examples: {reason}")
    measured = f" ({figures(trained.metrics)} on {options.eval})" if trained.metrics else ""
    say(f"checkpoint: {trained.checkpoint}{measured}")
