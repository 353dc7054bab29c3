"""Main path of export: graph, variants, contract, proof, bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir
import torch

from headway.core import data, files, tasks
from headway.core.errors import GateError, UnavailableError, UsageError
from headway.core.manifest import NAME, Bundle, File, Variant
from headway.core.progress import Progress, silent
from headway.core.tasks import Example, Task
from headway.core.tasks.text_classification import Settings
from headway.core.threads import budget
from headway.export import card, contract, graph, parity
from headway.export.options import ExportOptions
from headway.export.precision import base
from headway.runtime.backends.base import load_engine
from headway.runtime.load import TOKENIZER, load
from headway.runtime.tokenize import Tokenizer
from headway.train import checkpoint
from headway.train.checkpoint import Opened

METRIC = "accuracy"
"""the figure that the quality gate watches"""
ENGINE = "onnxruntime"
"""what the proof runs on"""
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
    opened = checkpoint.open_checkpoint(folder)
    _check_task(opened, options)
    task = tasks.load(opened.manifest.task)
    columns = data.parse_columns(options.columns)
    examples: list[Example] = []
    if options.eval is not None:
        examples = tasks.read_labelled(task, options.eval, columns, opened.spec)
    own_texts = _own_texts(task, examples, options)
    with files.whole_folder(options.output, options.overwrite) as out:
        draft = _write_variants(opened, options, out, progress)
        variants = _prove(opened, draft, own_texts, out, options, progress)
        reference: dict[str, float] = {}
        if examples:
            reference = task.metrics(examples, checkpoint.predict(opened, examples, progress))
            variants = _judge(task, examples, variants, reference, out, options, progress)
        _finish(draft, variants, out)
    return Report(options.output, variants, reference)


def _check_task(opened: Opened, options: ExportOptions) -> None:
    trained = opened.manifest.task
    if options.task is not None:
        tasks.load(options.task, "--task")
        if options.task != trained:
            raise UsageError("--task", f"is {options.task}, but {opened.folder} was trained for {trained}")
    settings = opened.spec.settings
    if not isinstance(settings, Settings) or settings != Settings(temperature=settings.temperature):
        what = trained if not isinstance(settings, Settings) else f"{settings.kind} {trained} as trained here"
        remedy = "this version exports text-classification with one text, one label and the model's own head"
        raise UnavailableError(f"export of {what}", remedy)


def _own_texts(task: Task, examples: Sequence[Example], options: ExportOptions) -> list[str]:
    if options.calibration is not None:
        records = data.read(options.calibration, data.parse_columns(options.columns))
        examples = [task.read(record, labelled=False) for record in records]
    return tasks.texts(examples)


def _write_variants(opened: Opened, options: ExportOptions, out: Path, progress: Progress) -> Bundle:
    """Write every file but the card, and a manifest without figures, which is enough to run the variants."""
    inputs, outputs = contract.declare(opened.tokenizer.model_input_names, len(opened.manifest.labels))
    architecture = graph.architecture(opened)
    shutil.copyfile(opened.folder / TOKENIZER, out / TOKENIZER)
    shutil.copyfile(opened.folder / "config.json", out / "config.json")
    reference = None
    for precision in progress(options.precisions, "exporting", len(options.precisions)):
        reference = reference or ir.to_proto(graph.build(opened, inputs, outputs))
        model = base.load(precision).convert(ir.from_proto(reference))
        contract.check(model, inputs, outputs, str(opened.folder))
        (out / precision).mkdir()
        ir.save(model, out / precision / "model.onnx")
        shutil.copyfile(opened.folder / "config.json", out / precision / "config.json")  # for other tools
    draft = Bundle(
        task=opened.manifest.task,
        labels=opened.manifest.labels,
        max_length=opened.manifest.max_length,
        pad_id=opened.tokenizer.pad_token_id or 0,
        settings=msgspec.to_builtins(opened.spec.settings),
        inputs=inputs,
        outputs=outputs,
        variants={p: Variant(precision=p, graphs={"model": f"{p}/model.onnx"}) for p in options.precisions},
        architecture=architecture,
        made_by={name: version(name) for name in TAKING_PART},
        source=_source(opened),
        files=_list_files(out),
    )
    draft.write(out)
    return draft


def _prove(
    opened: Opened, draft: Bundle, own: Sequence[str], out: Path, options: ExportOptions, progress: Progress
) -> dict[str, Variant]:
    """Compare each variant with PyTorch. Raises GateError."""
    compared = parity.texts(own)
    expected = parity.reference(opened, compared, progress)
    tokenizer = Tokenizer(out / TOKENIZER, draft.max_length)
    proven = {}
    for name, variant in draft.variants.items():
        path = out / variant.graphs["model"]
        backend = load_engine(ENGINE).open_graph(path, draft, "cpu", budget(options.threads))
        measured = parity.measure(tokenizer, backend, compared, expected, progress, f"parity {name}")
        parity.gate(variant.precision, measured)
        proven[name] = _with(variant, parity=measured.as_manifest(variant.precision))
    return proven


def _judge(
    task: Task,
    examples: Sequence[Example],
    variants: dict[str, Variant],
    reference: dict[str, float],
    out: Path,
    options: ExportOptions,
    progress: Progress,
) -> dict[str, Variant]:
    """Measure each variant's quality through the runtime. Raises GateError if it lost more than --max-drop."""
    judged = {}
    texts = tasks.texts(examples)
    for name, variant in variants.items():
        pipe = load(out, precision=name, threads=options.threads)
        results = list(progress(pipe.stream(texts), f"quality {name}", len(texts)))
        quality = task.metrics(examples, results)
        drop = reference[METRIC] - quality[METRIC]
        if options.max_drop is not None and drop > options.max_drop:
            raise GateError("quality", name, f"drop in {METRIC}", drop, options.max_drop)
        judged[name] = _with(variant, quality=quality)
    return judged


def _finish(draft: Bundle, variants: dict[str, Variant], out: Path) -> None:
    proven = _with(draft, variants=variants)
    (out / "README.md").write_text(card.write(proven, METRIC), encoding="utf-8")
    _with(proven, files=_list_files(out)).write(out)


def _source(opened: Opened) -> dict[str, Any]:
    weights = opened.folder / "model.safetensors"
    return {
        "weights_sha256": files.sha256(weights) if weights.is_file() else "",
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
