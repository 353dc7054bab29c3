"""Proof of an encoder: its answers to rows of every length, alone and among others, against PyTorch's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from importlib import resources
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import onnx_ir as ir

from headway.core import tasks
from headway.core.errors import UnavailableError
from headway.core.manifest import RAGGED, Graph
from headway.core.progress import Progress, silent
from headway.core.tasks import EncoderTask, Example, Output, Row, Spec
from headway.export import contract, graph, ragged, store
from headway.export.precision.base import Feeds, Remembered
from headway.export.proof import Answers, Parity, Proof, differences, largest
from headway.export.unpacked import OnProcessor
from headway.runtime.backends.base import Backend, engines_for, load_engine
from headway.runtime.pipeline import EncoderPipeline
from headway.runtime.ragged import Ragged
from headway.train import checkpoint
from headway.train.checkpoint import Opened

ENGINE = "onnxruntime"
"""what the proof runs on"""
ROLE = "model"
"""of the one graph"""
BATCHES = (2, 5, 16, 64)
"""rows in a batch; rows of all lengths meet, so that each is padded in many ways"""
BATCH_TOKENS = 32_768
"""padded tokens in a batch, at most: 64 rows of 512"""
OWN = 192
"""of the user's examples, evenly spread over the file"""
LONGEST = 2048
"""tokens; a model that takes more is compared up to here"""
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
"""tokens of rows that are cut from a long one"""
WORK = (8, 128)
"""texts and their tokens, to time a variant by"""
SAMPLES = 32
"""rows on which layers are measured, of many lengths"""


def declare(opened: Opened, task: EncoderTask, width: int) -> dict[str, Graph]:
    """What the graph must take and give."""
    classes = max(1, len(opened.spec.labels))
    return {ROLE: contract.declare(task, opened.tokenizer.model_input_names, classes, width)}


@dataclass(frozen=True)
class EncoderProof(Proof):
    own: list[Row]
    """of the user's examples"""
    compared: list[Row]
    expected: Answers
    """PyTorch's, of the compared rows"""

    @property
    def encoder(self) -> EncoderTask:
        return cast(EncoderTask, self.task)

    @property
    def declared(self) -> Graph:
        return self.draft.graphs[ROLE]

    def feeds(self, role: str) -> Feeds:
        return self._fed

    @cached_property
    def _fed(self) -> Feeds:
        return Remembered(feed(row, self.declared) for row in self.own)

    def written(self, folder: Path) -> dict[str, Path]:
        beside = folder / f"{RAGGED}.onnx"
        return self.graphs(folder) | ({RAGGED: beside} if beside.is_file() else {})

    def without_padding(self, role: str, model: ir.Model) -> ir.Model | None:
        return ragged.rewrite(store.twin(model)) if RAGGED in self.draft.graphs else None

    def measure(self, folder: Path, progress: Progress, label: str) -> Parity:
        """Of all graphs that a variant has the worst figures."""
        backends: list[Backend] = [self._open(folder)]
        if (path := self.written(folder).get(RAGGED)) is not None:
            backends.append(OnProcessor(path, self.draft.graphs[RAGGED], self.encoder.READ, self.threads))
        given = self.compared, self.expected, progress, label
        found = [measure(self.encoder, self.spec, backend, *given) for backend in backends]
        return reduce(Parity.worst_of, found)

    def judge(self, folder: Path, precision: str) -> tuple[Any, dict[str, float]]:
        """fp32 keeps the checkpoint's settings."""
        task, spec = self.encoder, self.spec
        pipe = EncoderPipeline(self.draft, precision, task, spec, self.tokenizer, self._open(folder))
        rows = task.rows(self.examples, self.tokenizer, spec)
        outputs = [Output(row, answer) for row, answer in zip(rows, pipe.answers(rows), strict=True)]
        if precision != "fp32":
            spec = replace(spec, settings=task.calibrate(self.examples, outputs, spec))
        return spec.settings, task.metrics(self.examples, task.decode(self.examples, outputs, spec))

    def pipeline(self) -> EncoderPipeline:
        with tempfile.TemporaryDirectory() as name:  # onnxruntime has read the graph when it is opened
            for role, path in self.graphs(Path(name)).items():
                store.write(store.twin(self.fp32[role]), path)
            spec = tasks.spec(self.task, self.draft)
            backend = self._open(Path(name))
        return EncoderPipeline(self.draft, "fp32", self.encoder, spec, self.tokenizer, backend)

    def answers(self, folder: Path) -> Answers:
        return alone(self.encoder, self._open(folder), sampled(self.compared), silent, "")

    def work(self, folder: Path) -> Callable[[], int]:
        """Eight texts of 128 tokens, or as many as the model takes."""
        backend, length = self._open(folder, engines_for("cpu")), min(WORK[1], self.spec.max_length)
        (long,) = [row for row in self.compared if len(row.ids) >= length][:1]
        row = Row(0, long.ids[:length], long.types[:length])
        batch = Ragged.of([row] * WORK[0])

        def once() -> int:
            backend.run([batch])
            return len(batch.ids)

        return once

    def _open(self, folder: Path, among: Sequence[str] = (ENGINE,)) -> Backend:
        """By the first of some engines that takes the graph."""
        path, (name, *others) = self.graphs(folder)[ROLE], among
        try:
            return load_engine(name).open_graph(
                path, self.declared, self.encoder.READ, self.draft.pad_id, "cpu", self.threads
            )
        except UnavailableError:
            if not others:
                raise
            return self._open(folder, others)


def prove(opened: Opened, own: Sequence[Example], progress: Progress, **common: Any) -> EncoderProof:
    """Trace the graph, and let PyTorch answer. `own`: examples of the kind that the model will see."""
    task = cast(EncoderTask, common["task"])
    tokenizer = common["tokenizer"]
    chosen = own_rows(task, tokenizer, opened.spec, own)
    compared = chosen + rows(tokenizer, opened.spec)
    declared = common["draft"].graphs[ROLE]
    model = graph.build(opened, declared)
    if common["target"] == "cuda" and (flat := ragged.rewrite(store.twin(model))) is not None:
        draft = common["draft"]
        graphs = draft.graphs | {RAGGED: ragged.declare(flat)}
        common = common | {"draft": msgspec.structs.replace(draft, graphs=graphs)}
    return EncoderProof(
        fp32={ROLE: model},
        traced={ROLE: declared},
        own=chosen,
        compared=compared,
        expected=reference(opened, task, compared, progress),
        **common,
    )


def feed(row: Row, declared: Graph) -> dict[str, Any]:
    """A row as the graph takes it, without padding."""
    values = {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "token_type_ids": row.types}
    return {tensor.name: np.array([values[tensor.name]], np.int64) for tensor in declared.inputs}


def sampled(found: Sequence[Row]) -> list[Row]:
    """Some rows of every length."""
    ordered = sorted(found, key=lambda row: len(row.ids))
    return ordered[:: max(1, len(ordered) // SAMPLES)]


def shipped() -> list[str]:
    """headway's own texts, in many scripts."""
    return resources.files("headway.export").joinpath("parity_texts.txt").read_text("utf-8").splitlines()


def own_rows(task: EncoderTask, tokenizer: Any, spec: Spec, own: Sequence[Example]) -> list[Row]:
    """Inputs of the user's examples, evenly spread. `tokenizer` is a `tokenizers.Tokenizer`."""
    short = replace(spec, max_length=min(spec.max_length, LONGEST))
    every = max(1, len(own) // OWN)
    return task.rows(own[::every][:OWN], tokenizer, short)[:OWN] if own else []


def rows(tokenizer: Any, spec: Spec) -> list[Row]:
    """Inputs of headway's own texts in many scripts, of pairs of them, and of every length."""
    longest, texts = min(spec.max_length, LONGEST), shipped()
    pairs = list(zip(texts[::3], texts[1::3], strict=False))
    found = [Row(0, e.ids, e.type_ids) for e in tasks.encode(tokenizer, texts, longest)]
    found += [Row(0, e.ids, e.type_ids) for e in tasks.encode(tokenizer, pairs, longest)]
    endless = " ".join(texts * (1 + longest // len(texts)))
    (long,) = tasks.encode(tokenizer, [endless], longest)
    return found + [Row(0, long.ids[:n], long.type_ids[:n]) for n in (*LENGTHS, longest) if n <= longest]


def reference(opened: Opened, task: EncoderTask, compared: Sequence[Row], progress: Progress) -> Answers:
    """PyTorch's answers, each row alone and so without any padding."""
    return [
        tasks.joined(task, checkpoint.outputs(opened, [row]))[0]
        for row in progress(compared, "PyTorch", len(compared))
    ]


def alone(
    task: EncoderTask, backend: Backend, compared: Sequence[Row], progress: Progress, label: str
) -> Answers:
    """A graph's answers, each row alone."""
    ragged = Ragged.of(compared)
    return [
        tasks.joined(task, backend.run([ragged.take(np.array([i]))])[0])[0]
        for i in progress(range(len(compared)), label, len(compared))
    ]


def measure(
    task: EncoderTask,
    spec: Spec,
    backend: Backend,
    compared: Sequence[Row],
    expected: Answers,
    progress: Progress,
    label: str,
) -> Parity:
    """Run the rows alone and in batches through the runtime's own engine."""
    ragged = Ragged.of(compared)
    found = alone(task, backend, compared, progress, label)
    apart = []
    longest = int(ragged.lengths.max())
    for size in sorted({min(size, max(2, BATCH_TOKENS // longest)) for size in BATCHES}):
        mixed = np.random.default_rng(size).permutation(len(compared))
        parts = [mixed[i : i + size] for i in range(0, len(mixed), size)]
        for part, outputs in zip(parts, backend.run([ragged.take(p) for p in parts]), strict=True):
            for i, answer in zip(part, tasks.joined(task, outputs), strict=True):
                own = answer[: len(found[i])] if answer.ndim == 2 else answer
                apart.append(float(np.abs(own - found[i]).max()))
    worst, mean, spread = differences(found, expected)
    return Parity(
        rows=len(compared),
        shortest=int(ragged.lengths.min()),
        longest=longest,
        worst=worst,
        mean=mean,
        neighbours=largest(apart) / spread,
        agreement=agreement(task, spec, found, expected),
    )


def agreement(task: EncoderTask, spec: Spec, found: Answers, expected: Answers) -> float:
    """How far two lists of answers come to the same; NaN where any answer is no number."""
    if not all(np.isfinite(answer).all() for answer in (*found, *expected)):
        return float("nan")
    if "width" in task.GRAPH[task.READ[0]]:
        ours, theirs = np.stack(found).astype(np.float64), np.stack(expected).astype(np.float64)
        lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
        return float(np.mean((ours * theirs).sum(-1) / np.maximum(lengths, 1e-12)))
    if "classes" not in task.GRAPH[task.READ[0]]:  # starts and ends: (T, 2)
        same = [f.argmax(0) == e.argmax(0) for f, e in zip(found, expected, strict=True)]
        return float(np.mean(np.concatenate(same)))
    if found[0].shape[-1] == 1:
        both = np.corrcoef(np.concatenate(found).ravel(), np.concatenate(expected).ravel())
        return float(np.nan_to_num(both[0, 1], nan=1.0))
    if getattr(spec.settings, "kind", "single") == "multi":
        return float(np.mean((np.stack(found) > 0) == (np.stack(expected) > 0)))
    same = [np.atleast_1d(f.argmax(-1) == e.argmax(-1)) for f, e in zip(found, expected, strict=True)]
    return float(np.mean(np.concatenate(same)))
