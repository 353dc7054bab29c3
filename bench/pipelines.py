"""Answers beside those of the Transformers pipelines, on real texts: `python -m headway.bench.pipelines --help`.

Every checkpoint that `headway.bench.quality` trained and `headway.bench.precisions` exported, for labels, tags and
answers to questions. A difference is the pipeline's mistake if the pipeline with that mistake mended answers as headway
does; any other is shown, and is headway's until somebody says more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from headway.bench import pipeline_answers
from headway.bench.quality import CASES, Case
from headway.core import data, tasks
from headway.core.errors import MeasurementError
from headway.core.tasks import Output, Spec
from headway.core.tolerance import PRECISION
from headway.runtime import load
from headway.runtime.pipeline import EncoderPipeline
from headway.runtime.tasks import base as decoders

LIMIT = PRECISION["fp32"].worst
"""largest difference of a score"""
AGGREGATIONS = dict(zip(("first", "mean", "max"), pipeline_answers.AGGREGATIONS, strict=True))
"""here and there"""
Answers = dict[str, list[Any]]
"""by setting of the call: one for each input"""


@dataclasses.dataclass(frozen=True)
class Side:
    """How one task is asked on both sides."""

    given: Callable[[Any], Any]
    """an example as the pipeline takes it"""
    asked: Callable[[Spec], dict[str, Any]]
    """the pipeline's settings that are the bundle's"""
    ours: Callable[[EncoderPipeline, Sequence[Any], Sequence[Output]], Answers]
    read: Callable[[Any, Spec], Any]
    """the pipeline's answer in the form of ours"""


def _labels(pipe: EncoderPipeline, examples: Sequence[Any], outputs: Sequence[Output]) -> Answers:
    def answer(result: Any) -> Any:
        if pipe.spec.settings.kind == "regression":
            return [[result.score]]
        chosen = [result.label] if pipe.spec.settings.kind == "single" else sorted(result.labels)
        return [chosen, *sorted(map(list, result.scores.items()))]

    return {"top_k=None": [answer(r) for r in _decoded(pipe, examples, outputs, temperature=1.0)]}


def _read_labels(scores: dict[str, float], spec: Spec) -> Any:
    if spec.settings.kind == "regression":
        return [list(scores.values())]
    limits = dict(zip(spec.labels, spec.settings.thresholds or [0.5] * len(spec.labels), strict=True))
    several = sorted(label for label, score in scores.items() if score >= limits[label])
    chosen = [max(scores, key=lambda label: scores[label])] if spec.settings.kind == "single" else several
    return [chosen, *sorted(map(list, scores.items()))]


def _entities(pipe: EncoderPipeline, examples: Sequence[Any], outputs: Sequence[Output]) -> Answers:
    plain = pipe.spec.settings.scheme == "plain"

    def answer(result: Any) -> Any:
        if not plain:
            return [[e.label, e.start, e.end, e.score] for e in result.entities]
        same = (list(run) for _, run in groupby(result.entities, lambda e: e.label))  # as the pipeline has it
        return [[r[0].label, r[0].start, r[-1].end, sum(e.score for e in r) / len(r)] for r in same]

    return {
        f"aggregation_strategy={there}": [
            answer(r)
            for r in _decoded(
                pipe, examples, outputs, {"aggregation": here, "constrained": False}, temperature=1.0
            )
        ]
        for here, there in AGGREGATIONS.items()
    }


def _spans(pipe: EncoderPipeline, examples: Sequence[Any], outputs: Sequence[Output]) -> Answers:
    return {
        f"handle_impossible_answer={none}": [
            [[r.start, r.end, r.answer]] if r.answer else []
            for r in _decoded(pipe, examples, outputs, unanswerable=none, threshold=0.0)
        ]
        for none in (False, True)
    }


def _decoded(
    pipe: EncoderPipeline,
    examples: Sequence[Any],
    outputs: Sequence[Output],
    call: dict[str, Any] | None = None,
    **changed: Any,
) -> list[Any]:
    """Results under settings of the call, and with settings of the bundle that the pipelines do not know undone."""
    name = pipe.manifest.task
    spec = dataclasses.replace(pipe.spec, settings=msgspec.structs.replace(pipe.spec.settings, **changed))
    return list(decoders.load(name).decode(examples, outputs, spec, decoders.settings(name, call or {})))


SIDES = {
    "text-classification": Side(
        lambda e: e.text if e.pair is None else [e.text, e.pair],
        lambda spec: {"max_length": spec.max_length},
        _labels,
        _read_labels,
    ),
    "token-classification": Side(
        lambda e: e.text,
        lambda spec: {
            "max_length": spec.max_length,
            "stride": min(spec.settings.stride, spec.max_length // 4),
        },
        _entities,
        lambda answer, spec: answer,
    ),
    "question-answering": Side(
        lambda e: [e.question, e.context],
        lambda spec: {
            "max_seq_len": spec.max_length,
            "doc_stride": min(spec.settings.stride, spec.max_length // 8),
            "max_answer_len": spec.settings.max_answer_tokens,
        },
        _spans,
        lambda answer, spec: [answer] if answer[-1] else [],
    ),
}


class Compared(msgspec.Struct, frozen=True):
    """One data set under one setting of the call."""

    data: str
    task: str
    call: str
    texts: int
    answers: int
    """of headway: entities, labels, spans"""
    identical: int
    mistakes: dict[str, int]
    """of the pipeline: texts in which mending it gives headway's answer"""
    different: int


def compare(
    name: str, task: str, ours: Answers, theirs: list[Any], read: Callable[[Any], Any]
) -> list[Compared]:
    """`theirs`: for each input, by setting of the call, by mended mistake. Prints every answer that is not identical."""
    found = []
    for call, answers in ours.items():
        causes: list[str | None] = []
        for number, (own, other) in enumerate(zip(answers, theirs, strict=True)):
            said = {mended: read(answer) for mended, answer in other[call].items()}
            cause = next((mended for mended, answer in said.items() if same(own, answer)), None)
            causes.append(cause)
            if cause != "":
                shown = {
                    "headway": _apart(own, said[""]),
                    "pipeline": _apart(said[""], own),
                    "because": cause,
                }
                print(json.dumps({"data": name, "call": call, "text": number} | shown), flush=True)
        mistakes = {cause: causes.count(cause) for cause in causes if cause}
        count = sum(len(own[0] if task == "text-classification" else own) for own in answers)
        found.append(
            Compared(
                name, task, call, len(answers), count, causes.count(""), mistakes, causes.count(None)
            )
        )  # fmt: skip
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two answers are: names and places equal, scores within LIMIT."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return abs(one - other) <= LIMIT if isinstance(one, float) else bool(one == other)


def _apart(one: list[Any], other: list[Any]) -> list[Any]:
    return [part for part in one if not any(type(o) is type(part) and same(part, o) for o in other)]


def main() -> None:
    """Compare what has no result in the folder yet, printing every answer that is not the pipeline's; write the table."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.pipelines", description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the folder of headway.bench.quality")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="file for the table, in Markdown")
    parser.add_argument("--python", default=sys.executable, help="one with transformers<5, for questions")
    parser.add_argument("--texts", type=int, default=1000, help="of each data set")
    parser.add_argument(
        "--plain", type=Path, help="more texts to tag, one a line, that nobody cut into tokens"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", help="a case; may be given several times")
    given = parser.parse_args()
    for case in CASES:
        result = given.work / f"{case.name}-pipelines.json"
        ready = case.task in SIDES and (given.work / f"{case.name}-bundle").is_dir()
        if not ready or result.exists() or (given.only and case.name not in given.only):
            continue
        rows = [
            row
            for name, examples in _sets(case, given.data, given.plain).items()
            for row in beside(case, name, examples[: given.texts], given.work, given.python, given.threads)
        ]
        result.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    given.output.write_text(table(given.work), encoding="utf-8")


def _sets(case: Case, folder: Path, plain: Path | None) -> dict[str, list[Any]]:
    """The examples of a case, and texts that nobody cut into tokens."""
    task = tasks.load(case.task)
    columns = data.parse_columns(case.options.get("columns"))
    files = [folder / case.folder / f"{split}.jsonl" for split in ("test", "dev", "train")]
    examples: list[Any] = [e for f in files for e in tasks.read_labelled(task, f, columns)]
    if case.task != "token-classification":
        return {case.name: examples}
    sets = {case.name: [e.text for e in examples]}  # the pipeline finds words in texts by itself
    if plain is not None:
        sets[f"{plain.stem}, by {case.name}"] = [t for t in plain.read_text("utf-8").split("\n") if t.strip()]
    return {name: [tasks.read_input(task, t, i) for i, t in enumerate(own)] for name, own in sets.items()}


def beside(
    case: Case, name: str, examples: list[Any], work: Path, python: str, threads: int
) -> list[Compared]:
    """The case's bundle and checkpoint, asked the same. Raises MeasurementError."""
    side = SIDES[case.task]
    pipe = load(work / f"{case.name}-bundle", precision="fp32", backend="onnxruntime", threads=threads)
    assert isinstance(pipe, EncoderPipeline)
    spec = pipe.spec
    job = {"task": case.task, "checkpoint": str(work / f"{case.name}-checkpoint"), "threads": threads}
    job |= {"inputs": [side.given(e) for e in examples], "settings": side.asked(spec)}
    interpreter = python if case.task == "question-answering" else sys.executable
    script = [interpreter, pipeline_answers.__file__]
    ran = subprocess.run(script, input=json.dumps(job), capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise MeasurementError("the Transformers pipeline", ran.stderr[-2000:].strip())
    ours = side.ours(pipe, examples, pipe.outputs(examples))
    return compare(name, case.task, ours, json.loads(ran.stdout), lambda answer: side.read(answer, spec))


INTRODUCTION = """# Answers beside the Transformers pipelines

Written by `python -m headway.bench.pipelines --work FOLDER --data DATA --plain mixed_lengths.txt --python OLD --output
docs/pipelines.md`. The same checkpoint: headway runs its fp32 bundle, the pipeline the model in PyTorch (OLD: a Python
with Transformers 4.57, as 5 has no pipeline for questions). Scores may differ by 1e-4; names and places must be equal.

- Asked alike: headway without temperature, tags unconstrained, answers against a threshold of 0; the pipeline with the
  bundle's lengths and strides and `align_to_words=False`. Neighbouring words of the same plain tag count as one, as the
  pipeline has it. Labels of `goemotions` are those above the bundle's thresholds.
- "answers": what headway gave for all texts together: labels, entities, spans.
- A mistake is the pipeline's if the pipeline answers as headway does once that one is mended
  (`bench/pipeline_answers.py`). (a): {words}. (b): {cuts}. (c): {scales}.
"""


def table(work: Path) -> str:
    """All results as one page in Markdown."""
    names = {
        "words": pipeline_answers.WORDS,
        "cuts": pipeline_answers.CUTS,
        "scales": pipeline_answers.SCALES,
    }
    lines = [
        INTRODUCTION.format(**names),
        "| data | task | call | texts | answers | identical | pipeline (a) | (b) | (c) | different |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in CASES:
        path = work / f"{case.name}-pipelines.json"
        for row in msgspec.json.decode(path.read_bytes(), type=list[Compared]) if path.exists() else ():
            mistakes = [row.mistakes.get(name, 0) for name in names.values()]
            counts = (row.texts, row.answers, row.identical, *mistakes, row.different)
            cells = [row.data, row.task, f"`{row.call}`", *(f"{count:,}" for count in counts)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
