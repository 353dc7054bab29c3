"""What an epoch of training costs, beside a plain PyTorch loop: `python -m headway.bench.epoch --help`."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from headway.core import data, hardware, tasks
from headway.core.tasks import Spec
from headway.core.tasks.text_classification import Example, Settings
from headway.core.threads import budget
from headway.train import fit
from headway.train.checkpoint import open_model, open_tokenizer
from headway.train.options import TrainOptions

TASK = "text-classification"


def main() -> None:
    """Train one epoch each way, in turns, and print the seconds and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.epoch", description=main.__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(budget())
    pairs = [
        (headway_epoch(options.model, options.train, options.batch_size),
         plain_epoch(options.model, options.train, options.batch_size))
        for _ in range(options.rounds)
    ]  # fmt: skip
    for ours, plain in pairs:
        print(f"headway {ours:.1f} s, plain {plain:.1f} s, ratio {ours / plain:.2f}")
    print(f"median ratio {statistics.median(ours / plain for ours, plain in pairs):.2f}")


def headway_epoch(model: str, train: Path, batch_size: int) -> float:
    """Seconds of `headway train` for one epoch: reading, tokenizing, all steps, saving."""
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions(
            model=model, train=train, output=Path(folder) / "out", epochs=1, batch_size=batch_size
        )
        begin = time.perf_counter()
        fit.train(TASK, options)
        return time.perf_counter() - begin


def plain_epoch(model: str, train: Path, batch_size: int) -> float:
    """Seconds of what people write by hand: random padded batches, AdamW, bf16 autocast where that is fast.

    Reading and opening are inside, saving is not.
    """
    begin = time.perf_counter()
    set_seed(13)
    task = tasks.load(TASK)
    examples = [e for r in data.read(train) if isinstance(e := task.read(r, labelled=True), Example)]
    labels = sorted({str(e.gold) for e in examples})
    spec, options = Spec(labels, 128, Settings()), TrainOptions(model=model, train=train, output=Path("none"))
    network, tokenizer = open_model(model, TASK, spec, options), open_tokenizer(model)
    random.shuffle(examples)
    _steps(network, tokenizer, examples, labels, batch_size)
    return time.perf_counter() - begin


def _steps(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    labels: Sequence[str],
    batch_size: int,
) -> None:
    fast_bf16 = hardware.has_fast_bf16(hardware.cpu_flags())
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0.01)
    network.train()
    for begin in range(0, len(examples), batch_size):
        batch = examples[begin : begin + batch_size]
        texts = [e.text for e in batch]
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        targets = torch.tensor([labels.index(str(e.gold)) for e in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16):
            loss = network(**encoded, labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
