"""The one training loop, for every task: read, train, keep the best, write the checkpoint."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from headway.core import data, files, hardware, tasks
from headway.core.errors import DataError, UsageError
from headway.core.manifest import Checkpoint
from headway.core.progress import Progress, silent
from headway.core.tasks import Example, Task
from headway.core.threads import budget
from headway.train.checkpoint import open_model, open_tokenizer
from headway.train.options import TrainOptions
from headway.train.quiet import quiet
from headway.train.tasks import base


@dataclass(frozen=True)
class Report:
    """What training came to."""

    checkpoint: Path
    metrics: dict[str, float]
    """on the eval file, of the epoch that was kept; empty without an eval file"""
    truncated: int
    """training texts that were longer than --max-length and were cut"""


def train(task_name: str, options: TrainOptions, progress: Progress = silent) -> Report:
    """Fine-tune a model for a task and write the checkpoint whole, or not at all.

    An interrupted run leaves its epochs in `<output>.training`; the same call with `resume` goes on from there.
    Raises UsageError, DataError, CheckpointError, OutputError.
    """
    task, specifics = tasks.load(task_name), base.load(task_name)
    files.refuse_taken(options.output, options.overwrite)
    work = _work_folder(options)
    torch.set_num_threads(budget(options.threads))
    set_seed(options.seed)
    examples, held_out, labels = _read(task, options)
    tokenizer = open_tokenizer(options.model)
    model = open_model(options.model, task_name, labels)
    _refuse_too_long(options, model.config)

    features = partial(specifics.features, tokenizer=tokenizer, labels=labels, max_length=options.max_length)
    trainer = _Trainer(
        model=model,
        args=_arguments(options, task, work),
        train_dataset=features(examples),
        eval_dataset=features(held_out) if held_out else None,
        data_collator=specifics.collator(tokenizer),
        compute_metrics=partial(_metrics, task, held_out, labels, specifics),
        callbacks=[EarlyStoppingCallback(options.patience)] if held_out else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.task_loss = specifics.loss
    trainer.class_weights = (
        _class_weights(task, examples, labels) if options.class_weights == "balanced" else None
    )
    _report_steps(trainer, progress)
    with quiet():
        trainer.train(resume_from_checkpoint=options.resume)
        metrics = _clean(trainer.evaluate()) if held_out else {}
    if trainer.is_world_process_zero():
        _write(trainer, tokenizer, task_name, labels, options, metrics)
        shutil.rmtree(work, ignore_errors=True)
    return Report(options.output, metrics, _count_cut(task, examples, tokenizer, options.max_length))


def _work_folder(options: TrainOptions) -> Path:
    work = options.output.with_name(options.output.name + ".training")
    if options.resume and not any(work.glob("checkpoint-*")):
        raise UsageError("--resume", f"there is nothing to resume in {work}")
    if work.exists() and not options.resume:
        shutil.rmtree(work)
    return work


def _read(task: Task, options: TrainOptions) -> tuple[list[Example], list[Example], list[str]]:
    columns = data.parse_columns(options.columns)
    examples = tasks.read_labelled(task, options.train, columns)
    labels = task.labels(examples)
    if len(labels) < 2:
        raise DataError(f"has {len(labels)} label; training needs two or more", file=str(options.train))
    if options.eval is None:
        return examples, [], labels
    held_out = tasks.read_labelled(task, options.eval, columns, labels)
    return examples, held_out, labels


def _refuse_too_long(options: TrainOptions, config: Any) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and options.max_length > longest:
        raise UsageError(
            "--max-length", f"is {options.max_length}, but {options.model} ends at {longest} tokens"
        )


def _arguments(options: TrainOptions, task: Task, work: Path) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    fast_bf16 = torch.cuda.is_bf16_supported() if on_gpu else hardware.has_fast_bf16(hardware.cpu_flags())
    every = "no" if options.eval is None else "epoch"
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,  # below 1: a share of all steps
        weight_decay=options.weight_decay,
        train_sampling_strategy="group_by_length",
        bf16=options.precision == "bf16" or (options.precision == "auto" and fast_bf16),
        use_cpu=not on_gpu,
        eval_strategy=every,
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=options.eval is not None,
        metric_for_best_model=task.METRIC if options.eval is not None else None,
        greater_is_better=True,
        seed=options.seed,
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=on_gpu,
    )


class _Trainer(Trainer):
    """transformers' loop with the task's own loss."""

    task_loss: Any
    class_weights: torch.Tensor | None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        targets = inputs.pop("labels")
        outputs = model(**inputs)
        weights = None if self.class_weights is None else self.class_weights.to(targets.device)
        loss = self.task_loss(outputs, targets, weights)
        return (loss, outputs) if return_outputs else loss

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        return SequentialSampler(eval_dataset)  # transformers would group these too, and lose the order


def _metrics(
    task: Task,
    examples: Sequence[Example],
    labels: list[str],
    specifics: base.TrainTask,
    seen: EvalPrediction,
) -> dict[str, float]:
    named = specifics.outputs(torch.from_numpy(np.asarray(seen.predictions)))
    results = task.decode({name: value.numpy() for name, value in named.items()}, labels)
    return task.metrics(examples, results)


def _class_weights(task: Task, examples: Sequence[Any], labels: Sequence[str]) -> torch.Tensor:
    """One weight a label: N / (labels * count), so that the average over the data is 1 (as in scikit-learn)."""
    counts = Counter(example.label for example in examples)
    return torch.tensor([len(examples) / (len(labels) * counts[label]) for label in labels])


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


def _clean(metrics: dict[str, float]) -> dict[str, float]:
    """The task's own figures out of what Trainer reports."""
    clock = ("runtime", "per_second", "loss", "epoch", "_time")
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in metrics.items()
        if name.startswith("eval_") and not name.endswith(clock)
    }


def _write(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    task_name: str,
    labels: list[str],
    options: TrainOptions,
    metrics: dict[str, float],
) -> None:
    sources = {"train": options.train, "eval": options.eval}
    model = trainer.accelerator.unwrap_model(trainer.model)
    with files.whole_folder(options.output, options.overwrite) as folder:
        with quiet():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        Checkpoint(
            task=task_name,
            labels=labels,
            max_length=options.max_length,
            model=Path(options.model).name,
            training_data={role: files.sha256(path) for role, path in sources.items() if path is not None},
            options=_portable(options),
            metrics=metrics,
        ).write(folder)


def _portable(options: TrainOptions) -> dict[str, Any]:
    """The options without paths, which mean nothing on another machine."""
    machine = ("model", "train", "eval", "output", "resume", "overwrite", "threads")
    return {name: value for name, value in asdict(options).items() if name not in machine}


def _count_cut(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> int:
    lengths = tokenizer([task.inputs(e) for e in examples], return_length=True)["length"]
    return sum(length > max_length for length in lengths)
