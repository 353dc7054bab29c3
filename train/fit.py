"""The one training loop, for every task: read, train, keep the best, calibrate, report, write the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from headway.core import data, files, hardware, tasks
from headway.core.calibration import expected_calibration_error
from headway.core.errors import CheckpointError, UnavailableError, UsageError
from headway.core.manifest import Checkpoint
from headway.core.progress import Progress, silent
from headway.core.report import Report
from headway.core.tasks import FIGURES_FALLING, Example, Spec, Task
from headway.core.threads import budget
from headway.train import adapt, few_shot
from headway.train.checkpoint import open_model, open_tokenizer
from headway.train.options import TrainOptions
from headway.train.quiet import quiet
from headway.train.tasks import base
from headway.train.tasks.base import Objective, TrainTask


@dataclass(frozen=True)
class Trained:
    """What training came to."""

    checkpoint: Path
    metrics: dict[str, float]
    """on the eval file, of the epoch that was kept; empty without an eval file"""
    counts: dict[str, int]
    """training examples that were cut or left out by rule, by reason"""


def train(task_name: str, options: TrainOptions, progress: Progress = silent) -> Trained:
    """Fine-tune a model for a task and write the checkpoint whole, or not at all.

    An interrupted run leaves its epochs in `<output>.training`; the same call with `resume` goes on from there.
    Under `torchrun` each process calls this alike; the steps are shared and the first process writes.
    Raises UsageError, DataError, CheckpointError, OutputError, UnavailableError.
    """
    task, specifics = tasks.load(task_name), base.load(task_name)
    options.refuse_foreign(task_name, specifics.OPTIONS)
    processes = PartialState(cpu=not torch.cuda.is_available())
    work = options.output.with_name(options.output.name + ".training")
    if processes.is_main_process:
        files.refuse_taken(options.output, options.overwrite)
        _prepare_work(work, options)
    processes.wait_for_everyone()
    torch.set_num_threads(max(1, budget(options.threads) // processes.num_processes))
    set_seed(options.seed)
    examples, held_out, tokenizer, spec = _read(task, specifics, options)
    model = _open(task_name, specifics, tokenizer, spec, options)
    prepared = specifics.prepare(examples, tokenizer, model, spec, options)
    if options.lora:
        adapt.add_adapters(model, options.lora)
    if options.freeze:
        adapt.freeze(model, options.freeze)

    args = _arguments(options, task.metric(spec.settings), work, processes.num_processes)
    if options.few_shot and not options.resume:  # what is resumed is after this phase
        few_shot.train(
            model, prepared.rows, specifics.collate(tokenizer), spec.labels, args, options, progress
        )
    trainer = _Trainer(
        model=model,
        args=args,
        train_dataset=prepared.rows,
        eval_dataset=list(held_out) or None,
        data_collator=specifics.collate(tokenizer),
        callbacks=[EarlyStoppingCallback(options.patience)] if held_out else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.options = options
    trainer.objective = specifics.objective(examples, spec, options)
    trainer.measure = lambda now: _measure(task, specifics, now, tokenizer, held_out, spec)[1]
    _report_steps(trainer, progress)
    with quiet():
        trainer.train(resume_from_checkpoint=options.resume)
    metrics: dict[str, float] = {}
    if processes.is_main_process:
        best = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        adapt.merge_adapters(best)
        report = None
        if held_out:
            spec, metrics, report = _judge(task_name, specifics, best, tokenizer, held_out, spec, progress)
            report = msgspec.structs.replace(report, counts=prepared.counts)
        _write(task_name, specifics, best, tokenizer, spec, options, metrics, report)
        shutil.rmtree(work, ignore_errors=True)
    processes.wait_for_everyone()
    return Trained(options.output, metrics, prepared.counts)


def _prepare_work(work: Path, options: TrainOptions) -> None:
    if options.resume and not any(work.glob("checkpoint-*")):
        raise UsageError("--resume", f"there is nothing to resume in {work}")
    if work.exists() and not options.resume:
        shutil.rmtree(work)


def _read(
    task: Task, specifics: TrainTask, options: TrainOptions
) -> tuple[list[Example], list[Example], PreTrainedTokenizerBase, Spec]:
    columns = data.parse_columns(options.columns)
    examples = tasks.read_labelled(task, options.train, columns)
    held_out: list[Example] = []
    if options.eval is not None:
        held_out = tasks.read_labelled(task, options.eval, columns, split="dev")
    if options.from_scratch:
        tokenizer = specifics.new_tokenizer(examples, options)  # type: ignore[attr-defined]
    else:
        tokenizer = open_tokenizer(str(options.model))
    spec = specifics.describe(examples, held_out, tokenizer, options)
    for example in held_out:
        task.check(example, spec)
    return examples, held_out, tokenizer, spec


def _open(
    task_name: str,
    specifics: TrainTask,
    tokenizer: PreTrainedTokenizerBase,
    spec: Spec,
    options: TrainOptions,
) -> Any:
    if options.from_scratch:
        return specifics.new_model(tokenizer, options)  # type: ignore[attr-defined]
    model = open_model(str(options.model), task_name, spec, options)
    longest = getattr(model.config, "max_position_embeddings", None)
    if isinstance(longest, int) and options.max_length > longest:
        raise UsageError(
            "--max-length", f"is {options.max_length}, but {options.model} ends at {longest} tokens"
        )
    return model


def _arguments(options: TrainOptions, metric: str, work: Path, processes: int) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    fast_bf16 = torch.cuda.is_bf16_supported() if on_gpu else hardware.has_fast_bf16(hardware.cpu_flags())
    if options.precision == "fp16" and not on_gpu:
        raise UnavailableError("fp16 training on a processor", "use --precision bf16 or fp32, or a GPU")
    if options.batch_size % (options.accumulate * processes):
        parts = f"{processes} processes times {options.accumulate} parts"
        raise UsageError("--batch-size", f"is {options.batch_size}, which {parts} do not share evenly")
    held_out = options.eval is not None
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size // (options.accumulate * processes),
        gradient_accumulation_steps=options.accumulate,
        activation_checkpointing=options.gradient_checkpointing,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,  # below 1: a share of all steps
        weight_decay=options.weight_decay,
        bf16=options.precision == "bf16" or (options.precision == "auto" and fast_bf16),
        fp16=options.precision == "fp16",
        use_cpu=not on_gpu,
        ddp_backend="gloo" if processes > 1 and not on_gpu else None,
        ddp_find_unused_parameters=True if processes > 1 else None,
        eval_strategy="epoch" if held_out else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=held_out,
        metric_for_best_model=metric if held_out else None,
        greater_is_better=metric not in FIGURES_FALLING,
        seed=options.seed,
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
    )


class _Trainer(Trainer):
    """transformers' loop with the task's own loss and figures."""

    options: TrainOptions
    objective: Objective
    measure: Callable[[Any], dict[str, float]]
    model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.model_accepts_loss_kwargs = False  # the objective is a mean, to be divided by --accumulate
        return self.objective(model, inputs)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in self.measure(self.model).items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        opened: Any = self.model if model is None else model
        if self.optimizer is None and self.options.layer_decay < 1:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, opened)
            groups = adapt.parameter_groups(
                opened,
                set(self.get_decay_parameter_names(opened)),
                self.args.weight_decay,
                self.args.learning_rate,
                self.options.layer_decay,
            )
            self.optimizer = kind(groups, **settings)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer


def _measure(
    task: Task,
    specifics: TrainTask,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    spec: Spec,
    progress: Progress = silent,
) -> tuple[Any, dict[str, float], Spec]:
    """What the model says to held-out examples, its figures, and the spec calibrated on them."""
    outputs = specifics.infer(model, tokenizer, examples, spec, progress)
    calibrated = replace(spec, settings=task.calibrate(examples, outputs, spec))
    return outputs, task.metrics(examples, task.decode(examples, outputs, calibrated)), calibrated


def _judge(
    task_name: str,
    specifics: TrainTask,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    spec: Spec,
    progress: Progress,
) -> tuple[Spec, dict[str, float], Report]:
    """The final figures in fp32, with the calibrated spec and the report."""
    task = tasks.load(task_name)
    outputs, metrics, calibrated = _measure(task, specifics, model, tokenizer, examples, spec, progress)
    results = task.decode(examples, outputs, calibrated)
    calibration: dict[str, float] = {}
    before = task.certainty(examples, task.decode(examples, outputs, spec))
    after = task.certainty(examples, results)
    if before is not None and after is not None:
        calibration = {
            "temperature": calibrated.settings.temperature,
            "expected calibration error before": expected_calibration_error(*before),
            "expected calibration error after": expected_calibration_error(*after),
        }
    tables = task.tables(examples, results)
    report = Report(task=task_name, n=len(examples), metrics=metrics, calibration=calibration, tables=tables)
    return calibrated, metrics, report


def _report_steps(trainer: Trainer, progress: Progress) -> None:
    """Draw one bar over the steps of the whole training."""

    class Steps(TrainerCallback):
        bar: Iterator[int] | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                steps = range(state.global_step, state.max_steps + 1)
                self.bar = iter(progress(steps, "training", len(steps) - 1))
                next(self.bar, None)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.bar is not None:
                next(self.bar, None)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.bar is not None and hasattr(self.bar, "close"):
                self.bar.close()

    trainer.add_callback(Steps())


def _write(
    task_name: str,
    specifics: TrainTask,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    spec: Spec,
    options: TrainOptions,
    metrics: dict[str, float],
    report: Report | None,
) -> None:
    sources = {"train": options.train, "eval": options.eval}
    with files.whole_folder(options.output, options.overwrite) as folder:
        with quiet():
            specifics.save(model, tokenizer, spec, folder)
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(options.name, "its tokenizer has no tokenizer.json form")
        if report is not None:
            report.write(folder)
        Checkpoint(
            task=task_name,
            labels=spec.labels,
            max_length=spec.max_length,
            model=options.name,
            training_data={r: files.sha256_of_data(p) for r, p in sources.items() if p is not None},
            options=_portable(options),
            metrics=metrics,
            settings=msgspec.to_builtins(spec.settings),
        ).write(folder)


def _portable(options: TrainOptions) -> dict[str, Any]:
    """The options without paths, which mean nothing on another machine."""
    machine = ("model", "train", "eval", "output", "resume", "overwrite", "threads")
    return {name: value for name, value in asdict(options).items() if name not in machine}
