"""Main path of export: graph, variants, contract, proof, bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec
import tokenizers
import torch

from headway.core import data, files, offsets, tasks
from headway.core.errors import CheckpointError, GateError, UnavailableError, UsageError
from headway.core.manifest import NAME, Bundle, Checkpoint, File, Variant
from headway.core.progress import Progress, silent
from headway.core.tasks import EncoderTask, Example, Task
from headway.core.threads import budget
from headway.export import (
    card,
    encoders,
    gate,
    generation,
    generation_settings,
    graph,
    speed,
    vocabulary,
    writers,
)
from headway.export.end_to_end import check
from headway.export.options import ExportOptions
from headway.export.proof import Proof
from headway.export.vocabulary import Trimmed
from headway.runtime.load import TOKENIZER
from headway.runtime.tokenize import open_tokenizer
from headway.train import checkpoint, converted_tokenizers, foreign
from headway.train.checkpoint import Opened

CONFIG = "config.json"
TAKING_PART = ("headway", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "optimum")


@dataclass(frozen=True)
class Report:
    """What export came to."""

    bundle: Path
    variants: dict[str, Variant]
    reference: dict[str, float]
    """the checkpoint's own figures on the eval file; empty without one"""


def export(folder: Path, options: ExportOptions, progress: Progress = silent) -> Report:
    """Turn a checkpoint into a bundle of proven variants, written whole or not at all.

    Raises UsageError, DataError, CheckpointError, OutputError, and GateError when a variant is not good enough.
    """
    files.refuse_taken(options.output, options.overwrite)
    torch.set_num_threads(budget(options.threads))
    folder = foreign.located(folder)
    name = _task_name(folder, options)
    task = tasks.load(name)
    columns = data.parse_columns(options.columns)
    examples: list[Example] = []
    trained = checkpoint.open_checkpoint(folder) if (folder / NAME).is_file() else None
    if options.eval is not None:
        spec = None if trained is None else trained.spec
        examples = tasks.read_labelled(task, options.eval, columns, spec, split="dev")
    opened = checkpoint.open_foreign(folder, name, examples) if trained is None else trained
    examples = tasks.read_again(task, examples, opened.spec)
    own = examples
    if options.calibration is not None:
        records = data.read(options.calibration, columns, split="train")
        own = [tasks.read_unlabelled(task, record, opened.spec) for record in records]
    with files.whole_folder(options.output, options.overwrite) as out:
        reference: dict[str, float] = {}
        if examples:
            reference = task.metrics(examples, checkpoint.predict(opened, examples, progress))
        trimmed = None
        if options.trim_vocabulary is not None:
            trimmed = vocabulary.trim(opened, options.trim_vocabulary, progress)
            opened = trimmed.opened
        held = _prove(opened, trimmed, task, examples, own, reference, out, options, progress)
        variants = {}
        for precision in options.precisions:
            folder = out / options.variant(precision)
            folder.mkdir()
            shutil.copyfile(out / CONFIG, folder / CONFIG)  # for other tools
            variants[folder.name] = gate.make(precision, held, folder, progress)
        if options.speed:
            variants = speed.measure(variants, held, out, progress)
        draft = _with(held.draft, variants=variants)
        if (
            trimmed is None
            and (compared := check.check(opened, held.pipeline(), _user_texts(own))) is not None
        ):
            draft = _with(draft, source=draft.source | {"end_to_end": asdict(compared)})
        _finish(draft, held.metric, out)
    return Report(options.output, variants, reference)


def _prove(
    opened: Opened,
    trimmed: Trimmed | None,
    task: Task,
    examples: list[Example],
    own: Sequence[Example],
    reference: dict[str, float],
    out: Path,
    options: ExportOptions,
    progress: Progress,
) -> Proof:
    """Write what all variants share, trace the graphs, and let PyTorch answer."""
    draft = _draft(opened, trimmed, out)
    tokenizer = open_tokenizer(out / TOKENIZER)
    _check_tokenizer(opened, tokenizer)
    _check_conversion(opened, tokenizer, _user_texts(own))
    offsets.check(opened.manifest.task, opened.folder, tokenizer, own, encoders.shipped())
    common: dict[str, Any] = {
        "task": task,
        "spec": opened.spec,
        "tokenizer": tokenizer,
        "examples": examples,
        "reference": reference,
        "max_drop": options.max_drop,
        "target": options.target,
        "threads": budget(options.threads),
        "checkpoint": str(opened.folder),
    }
    if hasattr(task, "GRAPH"):
        graphs = encoders.declare(opened, cast(EncoderTask, task), draft.architecture["hidden_size"])
        return encoders.prove(opened, own, progress, draft=_with(draft, graphs=graphs), **common)
    if options.target == "cpu" and "bf16" in options.precisions:
        remedy = "export int8; OpenVINO, by which processors compute bf16, runs no model that writes here"
        raise UnavailableError("bf16 of a model that writes, for --target cpu,", remedy)
    search = generation_settings.read(opened)
    traced = generation.build(opened)
    draft = _with(
        draft,
        graphs=writers.declare(traced, options.target),
        search=msgspec.to_builtins(search),
        longest=generation_settings.longest(opened),
    )
    return writers.prove(opened, traced, own, progress, draft=draft, **common)


def _task_name(folder: Path, options: ExportOptions) -> str:
    """The task that a checkpoint was trained for; of other models the one asked for, or what its files tell."""
    if options.task is not None:
        tasks.load(options.task, "--task")
    if not folder.is_dir():
        raise CheckpointError(folder, "there is no such folder")
    if not (folder / NAME).is_file():
        return options.task or foreign.infer_task(folder)
    trained = Checkpoint.read(folder).task
    if options.task not in (None, trained):
        raise UsageError("--task", f"is {options.task}, but {folder} was trained for {trained}")
    return trained


def _draft(opened: Opened, trimmed: Trimmed | None, out: Path) -> Bundle:
    """Write tokenizer and configuration, and describe the model as far as no graph is needed for it."""
    (out / TOKENIZER).write_text(_tokenizer_json(opened), encoding="utf-8")
    if trimmed is None:
        shutil.copyfile(opened.folder / CONFIG, out / CONFIG)
    else:
        (out / CONFIG).write_text(opened.model.config.to_json_string(), encoding="utf-8")
    return Bundle(
        task=opened.manifest.task,
        labels=opened.manifest.labels,
        max_length=opened.manifest.max_length,
        truncation_side=opened.spec.truncation_side,
        pad_id=opened.tokenizer.pad_token_id or 0,
        settings=msgspec.to_builtins(opened.spec.settings),
        graphs={},
        variants={},
        architecture=graph.architecture(opened),
        made_by={name: version(name) for name in TAKING_PART},
        source=_source(opened, trimmed),
        files={},
    )


def _user_texts(own: Sequence[Any]) -> list[str]:
    """A text of each of some of the user's examples, evenly spread."""
    chosen = own[:: max(1, len(own) // check.OWN)][: check.OWN]
    names = ("text", "query", "source", "target")
    every = [next((t for n in names if (t := getattr(example, n, None))), None) for example in chosen]
    return [text for text in every if text]


def _check_tokenizer(opened: Opened, tokenizer: Any) -> None:
    """Raise GateError if the bundle's tokenizer splits a text otherwise than the model's own does."""
    texts, longest = encoders.shipped(), opened.spec.max_length
    own = opened.tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    bundled = [e.ids for e in tasks.encode(tokenizer, texts, longest, side=opened.spec.truncation_side)]
    other = sum(a != b for a, b in zip(own, bundled, strict=True))
    if other:
        raise GateError("parity", "tokenizer", "texts split into other tokens", other, 0)


def _check_conversion(opened: Opened, tokenizer: Any, own_texts: Sequence[str]) -> None:
    """Raise CheckpointError if a converted tokenizer splits or joins a text otherwise than Transformers' does.

    The texts are headway's in many scripts, and the user's.
    """
    original = converted_tokenizers.original(opened.tokenizer)
    if original is None:
        return
    tokenizer.no_truncation()
    for text in (*encoders.shipped(), *own_texts):
        ids = original(text, verbose=False)["input_ids"]
        joined = original.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if tokenizer.encode(text).ids != ids or tokenizer.decode(ids) != joined:
            raise CheckpointError(
                opened.folder,
                f"its tokenizer ({type(original).__name__}) has no tokenizer.json form that reads {text[:60]!r} as it does",
            )


def _tokenizer_json(opened: Opened) -> str:
    """The tokenizer as transformers runs it (which may differ from the file beside the model), without a length."""
    raw = tokenizers.Tokenizer.from_str(opened.tokenizer.backend_tokenizer.to_str())
    raw.no_padding()
    raw.no_truncation()
    return str(raw.to_str(pretty=True))


def _finish(proven: Bundle, metric: str, out: Path) -> None:
    (out / "README.md").write_text(
        card.write(_with(proven, files=_list_files(out)), metric), encoding="utf-8"
    )
    _with(proven, files=_list_files(out)).write(out)


def _source(opened: Opened, trimmed: Trimmed | None) -> dict[str, Any]:
    smaller = {} if trimmed is None else {"vocabulary": trimmed.describe()}
    return smaller | {
        "weights_sha256": files.sha256_of_weights(opened.folder),
        "started_from": opened.manifest.model,
        "training_data": opened.manifest.training_data,
        "metrics": opened.manifest.metrics,
    }


def _list_files(out: Path) -> dict[str, File]:
    paths = sorted(p for p in out.rglob("*") if p.is_file() and p.name != NAME)
    return {
        p.relative_to(out).as_posix(): File(bytes=p.stat().st_size, sha256=files.sha256(p)) for p in paths
    }


def _with(struct: Any, **changes: Any) -> Any:
    """A copy of a frozen manifest part with some fields changed."""
    return msgspec.structs.replace(struct, **changes)
