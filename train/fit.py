"""The one training loop, for every task: read, train, keep the best, calibrate, report, write the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
from headway.core.errors import CheckpointError, OutputError, UnavailableError, UsageError
from headway.core.manifest import Checkpoint
from headway.core.progress import Progress, silent
from headway.core.report import Report
from headway.core.tasks import FIGURES_FALLING, Example, Spec, Task
from headway.core.threads import budget
from headway.train import adapt, encoder, few_shot, resume
from headway.train.checkpoint import open_model, open_tokenizer, refuse_missing_embeddings, truncation_side
from headway.train.options import TrainOptions
from headway.train.positions import max_positions, max_target_positions
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


def train(
    task_name: str,
    options: TrainOptions,
    progress: Progress = silent,
    notify: Callable[[str], None] = lambda message: None,
) -> Trained:
    """Fine-tune a model for a task and write the checkpoint whole, or not at all.

    An interrupted run leaves its epochs in `<output>.training`; the same call with `resume` goes on from the newest
    complete one and comes to the same weights, or is refused. `notify` is told from where.
    Under `torchrun` each process calls this alike; the steps are shared and the first process writes.
    Raises UsageError, DataError, CheckpointError, OutputError, UnavailableError.
    """
    task, specifics = tasks.load(task_name), base.load(task_name)
    options.refuse_foreign(task_name, specifics.OPTIONS)
    processes = PartialState(cpu=not torch.cuda.is_available())
    work = options.output.with_name(options.output.name + ".training")
    torch.set_num_threads(max(1, budget(options.threads) // processes.num_processes))
    run = resume.describe_run(task_name, options, processes.num_processes, _precision(options))
    if processes.is_main_process:
        files.refuse_taken(options.output, options.overwrite)
        if options.resume:
            resume.refuse_other_run(work, run)
        else:
            _clear(work, notify)
    processes.wait_for_everyone()
    set_seed(options.seed)
    examples, held_out, tokenizer, spec = _read(task, specifics, options)
    model = _open(task_name, task, specifics, tokenizer, spec, options)
    run = msgspec.structs.replace(run, model=resume.fingerprint(model, tokenizer))
    begin: Path | None = None
    if options.resume:
        if processes.is_main_process:
            resume.refuse_other_run(work, run)
            _discard_incomplete(work, notify)
        processes.wait_for_everyone()
        begin = resume.latest(work)
    prepared = specifics.prepare(examples, tokenizer, model, spec, options)
    if options.lora:
        adapt.add_adapters(model, options.lora)
    if options.freeze:
        adapt.freeze(model, options.freeze)

    args = _arguments(options, task.metric(spec.settings), work, processes.num_processes)
    if begin is not None and (end := resume.stopped_at(begin)) is not None:
        args.max_steps = end  # nothing is left to train: the best epoch is opened again
    if options.few_shot and begin is None:  # what is resumed is after this phase
        few_shot.train(
            model, prepared.rows, specifics.collate(tokenizer), spec.labels, args, options, progress
        )
    trainer = _Trainer(
        model=model,
        args=args,
        train_dataset=prepared.rows,
        eval_dataset=list(held_out) or None,
        data_collator=specifics.collate(tokenizer),
        callbacks=[_Epochs(work), *([EarlyStoppingCallback(options.patience)] if held_out else [])],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.options = options
    trainer.objective = specifics.objective(examples, spec, options)
    trainer.measure = lambda now: _measure(task, specifics, now, tokenizer, held_out, spec)[1]
    _report_steps(trainer, progress)
    if processes.is_main_process and begin is None:
        run.write(work)
    with quiet():
        trainer.train(resume_from_checkpoint=None if begin is None else str(begin))
    _refuse_divergence(cast(torch.nn.Module, trainer.model), options)
    metrics: dict[str, float] = {}
    if processes.is_main_process:
        best = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        adapt.merge_adapters(best)
        report = None
        if held_out:
            spec, metrics, report = _judge(task_name, specifics, best, tokenizer, held_out, spec, progress)
            report = msgspec.structs.replace(report, counts=prepared.counts)
        _write(specifics, best, tokenizer, spec, options, run, metrics, report)
        shutil.rmtree(work, ignore_errors=True)
    processes.wait_for_everyone()
    return Trained(options.output, metrics, prepared.counts)


def _refuse_divergence(model: Any, options: TrainOptions) -> None:
    """Raise UsageError if a trained weight is NaN or infinite: the model would give the same answer to all texts."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise UsageError(
                "--learning-rate",
                f"with {options.learning_rate:g} training has diverged: {name} has weights that are no numbers",
            )


def _clear(work: Path, notify: Callable[[str], None]) -> None:
    """Remove what an interrupted run left. Raises OutputError."""
    if work.is_symlink():  # whose target would be emptied
        raise OutputError(work, "it is a link; remove it to begin anew")
    if work.exists() and not work.is_dir():
        raise OutputError(work, "it is a file")
    if work.exists():
        notify(f"beginning anew: the epochs in {work} are removed")
        shutil.rmtree(work)


def _discard_incomplete(work: Path, notify: Callable[[str], None]) -> None:
    """Leave the newest complete epoch, and the best so far, in the folder. Raises UsageError if there is none."""
    newest, skipped = resume.newest_complete(work)
    for problem in skipped:
        notify(f"not complete, and left out: {problem}")
    resume.keep_only(work, resume.step_of(newest), resume.best_step(newest))
    notify(f"going on after epoch {resume.epoch_of(newest):g} ({newest})")


def _read(
    task: Task, specifics: TrainTask, options: TrainOptions
) -> tuple[list[Example], list[Example], PreTrainedTokenizerBase, Spec]:
    columns = data.parse_columns(options.columns)
    wanted_gold = getattr(specifics, "wanted_gold", lambda options, training: ())
    examples = tasks.read_labelled(task, options.train, columns, wanted=wanted_gold(options, ()))
    held_out: list[Example] = []
    if options.eval is not None:
        held_out = tasks.read_labelled(
            task, options.eval, columns, split="dev", wanted=wanted_gold(options, examples)
        )
    if options.from_scratch:
        tokenizer = specifics.new_tokenizer(examples, options)  # type: ignore[attr-defined]
    else:
        tokenizer = open_tokenizer(str(options.model))
    spec = specifics.describe(examples, held_out, tokenizer, options)
    spec = replace(spec, truncation_side=truncation_side(tokenizer))
    for example in held_out:
        task.check(example, spec)
    return examples, held_out, tokenizer, spec


def _open(
    task_name: str,
    task: Task,
    specifics: TrainTask,
    tokenizer: PreTrainedTokenizerBase,
    spec: Spec,
    options: TrainOptions,
) -> Any:
    if options.from_scratch:
        return specifics.new_model(tokenizer, options)  # type: ignore[attr-defined]
    model = open_model(str(options.model), task_name, spec, options)
    refuse_missing_embeddings(options.name, tokenizer, model)
    if hasattr(task, "GRAPH"):
        encoder.match_token_types(model, tokenizer, options.name, task_name, spec)
    _check_lengths(model.config, options)
    return model


def _check_lengths(config: Any, options: TrainOptions) -> None:
    """Raise UsageError for texts or targets that are longer than the model can take."""
    longest = max_positions(config)
    if longest is not None and options.max_length > longest:
        raise UsageError(
            "--max-length", f"is {options.max_length}, but {options.model} ends at {longest} tokens"
        )
    if not config.is_encoder_decoder:
        return
    longest = max_target_positions(config)
    if longest is not None and options.max_target_length > longest:
        raise UsageError(
            "--max-target-length",
            f"is {options.max_target_length}, but the decoder of {options.model} ends at {longest} tokens",
        )


def _precision(options: TrainOptions) -> str:
    """Of the products in a step: fp32, bf16 or fp16."""
    if options.precision != "auto":
        return options.precision
    on_gpu = torch.cuda.is_available()
    fast_bf16 = torch.cuda.is_bf16_supported() if on_gpu else hardware.has_fast_bf16(hardware.cpu_flags())
    return "bf16" if fast_bf16 else "fp32"


def _arguments(options: TrainOptions, metric: str, work: Path, processes: int) -> TrainingArguments:
    on_gpu, precision = torch.cuda.is_available(), _precision(options)
    if precision == "fp16" and not on_gpu:
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
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not on_gpu,
        ddp_backend="gloo" if processes > 1 and not on_gpu else None,
        ddp_find_unused_parameters=True if processes > 1 else None,
        eval_strategy="epoch" if held_out else "no",
        save_strategy="epoch",
        save_total_limit=None,  # _Epochs removes old ones, once the new one is complete
        restore_callback_states_from_checkpoint=True,
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


class _Epochs(TrainerCallback):
    """Marks each saved epoch as complete and removes those that are no longer needed."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.best_global_step:  # the saved path is that of the interrupted run, from its working folder
            state.best_model_checkpoint = str(self._work / f"checkpoint-{state.best_global_step}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        PartialState().wait_for_everyone()  # each process has written its random state
        if state.is_world_process_zero:
            resume.mark_complete(self._work / f"checkpoint-{state.global_step}")
            resume.keep_newest(self._work)


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
    specifics: TrainTask,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    spec: Spec,
    options: TrainOptions,
    run: resume.Run,
    metrics: dict[str, float],
    report: Report | None,
) -> None:
    with files.whole_folder(options.output, options.overwrite) as folder:
        with quiet():
            specifics.save(model, tokenizer, spec, folder)
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(options.name, "its tokenizer has no tokenizer.json form")
        if report is not None:
            report.write(folder)
        Checkpoint(
            task=run.task,
            labels=spec.labels,
            max_length=spec.max_length,
            model=options.name,
            training_data={role: digest for role, digest in run.data.items() if digest is not None},
            options=run.options,
            metrics=metrics,
            settings=msgspec.to_builtins(spec.settings),
        ).write(folder)
