"""text-classification: one text or a pair in; one of several labels, any number of them, or a score out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, report
from headway.core.data import Record
from headway.core.errors import DataError
from headway.core.figures import f1_macro, f1_micro, pearson, spearman
from headway.core.tasks import Output, Row, Spec, encode

GOLD = {"single": "label", "multi": "labels", "regression": "score"}
"""where each kind has its gold answer; of several that a record carries, the first is read by default"""

PLAIN = {1: ("text",), 2: ("text1", "text2")}
GRAPH = {"logits": ("batch", "classes"), "probabilities": ("batch", "classes")}
READ = ("logits",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kind: Literal["single", "multi", "regression"] = "single"
    """one label a text, any number of labels, or a score"""
    pair: bool | None = False
    """the input is two texts; None: not known, and both are accepted"""
    pooling: Literal["model", "cls", "mean", "max", "attention"] = "model"
    """how token vectors become one; model: the model's own head"""
    temperature: float = 1.0
    """divides the logits"""
    thresholds: list[float] = []
    """multi: probability from which a label is given, for each label"""
    score_range: list[float] = []
    """regression: declared lowest and highest score"""
    activation_fn: Literal["identity", "sigmoid"] = "identity"
    """regression: what makes the score of the model's output"""


@dataclass(frozen=True)
class Example:
    text: str
    pair: str | None
    gold: str | tuple[str, ...] | float | None
    id: Any
    record: Record

    @property
    def kind(self) -> str:
        return {str: "single", tuple: "multi", float: "regression"}[type(self.gold)]


@dataclass(frozen=True)
class Result:
    label: str
    """the most probable label"""
    score: float
    """its probability"""
    scores: dict[str, float]
    """every label's probability"""
    truncated: bool = False
    """True if the text was longer than the model and its end was cut off"""


@dataclass(frozen=True)
class Labels:
    labels: list[str]
    """those whose probability reaches their threshold"""
    scores: dict[str, float]
    """every label's probability"""
    truncated: bool = False


@dataclass(frozen=True)
class Score:
    score: float
    truncated: bool = False


def metric(settings: Settings) -> str:
    return {"single": "accuracy", "multi": "micro_f1", "regression": "spearman"}[settings.kind]


def read(record: Record, labelled: bool, gold: str | None = None) -> Example:
    """`gold`: which kind is read of a record that carries several; the first, where it does not carry that."""
    pair = None
    if "text1" in record.fields or "text2" in record.fields:
        text, pair = record.text("text1"), record.text("text2")
    else:
        text = record.text("text")
    return Example(text, pair, _gold(record, gold) if labelled else None, record.fields.get("id"), record)


def gold_kinds(record: Record) -> tuple[str, ...]:
    """Kinds of gold answer that a record carries, the one that is read by default first."""
    return tuple(kind for kind, field in GOLD.items() if field in record.fields)


def gold_of(settings: Settings) -> tuple[str, ...]:
    """Kind of gold answer that a model with these settings is judged by."""
    return (settings.kind,)


def is_readable(record: Record, kind: str) -> bool:
    """Whether a record's gold answer of a kind can be used."""
    try:
        _gold(record, kind)
    except DataError:
        return False
    return kind in gold_kinds(record)


def _gold(record: Record, wanted: str | None) -> str | tuple[str, ...] | float:
    kinds = gold_kinds(record) or ("single",)
    match wanted if wanted in kinds else kinds[0]:
        case "multi":
            return tuple(sorted(set(record.labels("labels", least=0))))
        case "regression":
            return record.number("score")
        case _:
            return record.label("label")


def uniform(examples: Sequence[Example]) -> None:
    """Raise DataError at the first example that is of another form than the first one."""
    for example in examples:
        _check_form(example, examples[0].kind, examples[0].pair is not None)


def check_input(example: Example, spec: Spec) -> None:
    """Raise DataError if the example is one text and the model reads two, or the reverse."""
    settings: Settings = spec.settings
    if settings.pair is not None and settings.pair != (example.pair is not None):
        raise example.record.error(
            "the model reads two texts, text1 and text2; this is one"
            if settings.pair
            else "the model reads one text, 'text'; these are two",
            "text" if settings.pair else "text1",
        )


def check(example: Example, spec: Spec) -> None:
    settings: Settings = spec.settings
    _check_form(example, settings.kind, example.pair is not None if settings.pair is None else settings.pair)
    if settings.kind == "regression":
        check_score(example, settings.score_range)
        return
    for label in [example.gold] if isinstance(example.gold, str) else example.gold:  # type: ignore[union-attr]
        if label not in spec.labels:
            raise example.record.error(
                f"unknown label '{label}'; known: {', '.join(spec.labels)}", GOLD[settings.kind]
            )


def check_score(example: Example, allowed: Sequence[float]) -> None:
    """Raise DataError if a score is outside the declared range, where one is."""
    if allowed and not allowed[0] <= example.gold <= allowed[1]:  # type: ignore[operator]
        raise example.record.error(
            f"{example.gold:g} is outside the declared range {allowed[0]:g} to {allowed[1]:g}", "score"
        )


def _check_form(example: Example, kind: str, pair: bool) -> None:
    if (example.pair is not None) != pair:
        raise example.record.error(
            "the other records have " + ("two texts, text1 and text2" if pair else "one text, 'text'"),
            "text" if pair else "text1",
        )
    if example.kind != kind:
        problem = (
            "missing; the other records have it"
            if GOLD[kind] not in example.record.fields
            else (f"the other records have no '{GOLD[example.kind]}', which goes before it")
        )
        raise example.record.error(problem, GOLD[kind])


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    texts = [e.text if e.pair is None else (e.text, e.pair) for e in examples]
    return [
        Row(i, e.ids, e.type_ids, truncated=bool(e.overflowing))
        for i, e in enumerate(
            encode(tokenizer, texts, spec.max_length, offsets=False, side=spec.truncation_side)
        )
    ]


def decode(
    examples: Sequence[Example], outputs: Sequence[Output], spec: Spec
) -> list[Result] | list[Labels] | list[Score]:
    settings: Settings = spec.settings
    logits = np.stack([o.logits for o in outputs]).astype(np.float64)  # (B, C)
    cut = [o.row.truncated for o in outputs]
    if settings.kind == "regression":
        scores = calibration.sigmoid(logits) if settings.activation_fn == "sigmoid" else logits
        return [Score(float(row[0]), c) for row, c in zip(scores, cut, strict=True)]
    if settings.kind == "multi":
        chances = calibration.sigmoid(logits / settings.temperature)
        thresholds = np.array(settings.thresholds or [0.5] * len(spec.labels))
        return [
            Labels(
                [label for label, given in zip(spec.labels, row >= thresholds, strict=True) if given],
                dict(zip(spec.labels, row.tolist(), strict=True)),
                c,
            )
            for row, c in zip(chances, cut, strict=True)
        ]
    chances = calibration.softmax(logits / settings.temperature)
    return [
        Result(
            spec.labels[i],
            float(row[i]),
            dict(zip(spec.labels, row.tolist(), strict=True)),
            c,
        )
        for i, row, c in zip(chances.argmax(-1), chances, cut, strict=True)
    ]


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    settings: Settings = spec.settings
    logits = np.stack([o.logits for o in outputs])  # (B, C)
    if settings.kind == "single":
        gold = np.array([spec.labels.index(str(e.gold)) for e in examples])
        return msgspec.structs.replace(settings, temperature=calibration.fit_temperature(logits, gold))
    if settings.kind == "multi":
        given = np.array([[label in e.gold for label in spec.labels] for e in examples])  # type: ignore[operator]
        temperature = calibration.fit_temperature_binary(logits, given)
        chances = calibration.sigmoid(logits / temperature)
        thresholds = calibration.fit_thresholds(chances, given)
        return msgspec.structs.replace(settings, temperature=temperature, thresholds=thresholds)
    return settings


def metrics(examples: Sequence[Example], results: Sequence[Any]) -> dict[str, float]:
    """Accuracy and macro-F1; micro- and macro-F1; or Pearson's and Spearman's correlation."""
    if isinstance(results[0], Score):
        gold, said = [float(e.gold) for e in examples], [r.score for r in results]  # type: ignore[arg-type]
        return {"pearson": pearson(gold, said), "spearman": spearman(gold, said)}
    golds, answers = _sets(examples, results)
    macro = f1_macro(golds, answers)
    if isinstance(results[0], Labels):
        return {"micro_f1": f1_micro(golds, answers), "macro_f1": macro}
    return {
        "accuracy": float(np.mean([g == a for g, a in zip(golds, answers, strict=True)])),
        "macro_f1": macro,
    }


def certainty(
    examples: Sequence[Example], results: Sequence[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Of the best label; with several labels, of every yes or no."""
    if isinstance(results[0], Score):
        return None
    if isinstance(results[0], Labels):
        chances = np.array([list(r.scores.values()) for r in results])
        given = np.array([[label in e.gold for label in results[0].scores] for e in examples])  # type: ignore[operator]
        return np.maximum(chances, 1 - chances).ravel(), ((chances >= 0.5) == given).ravel()
    right = [r.label == e.gold for e, r in zip(examples, results, strict=True)]
    return np.array([r.score for r in results]), np.array(right)


def tables(examples: Sequence[Example], results: Sequence[Any]) -> list[report.Table]:
    both = list(zip(examples, results, strict=True))
    if isinstance(results[0], Score):
        both.sort(key=lambda p: -abs(p[0].gold - p[1].score))
        return [
            report.worst(["line", "gold", "predicted", "text"], (_line(e, e.gold, r.score) for e, r in both))
        ]
    golds, answers = _sets(examples, results)
    shown = [report.per_label(golds, answers)]
    if isinstance(results[0], Labels):
        wrong = [(e, r) for e, r in both if set(r.labels) != set(e.gold)]  # type: ignore[arg-type]
        wrong.sort(key=lambda p: -max(abs((k in p[0].gold) - v) for k, v in p[1].scores.items()))  # type: ignore[operator]
        rows = (_line(e, ", ".join(e.gold), ", ".join(r.labels)) for e, r in wrong)  # type: ignore[arg-type]
    else:
        shown.append(report.confusion([g[0] for g in golds], [a[0] for a in answers]))
        wrong = [(e, r) for e, r in both if r.label != e.gold]
        wrong.sort(key=lambda p: -p[1].score)
        rows = (_line(e, e.gold, f"{r.label} ({r.score:.3f})") for e, r in wrong)
    return [*shown, report.worst(["line", "gold", "predicted", "text"], rows)]


def _sets(examples: Sequence[Example], results: Sequence[Any]) -> tuple[list[tuple[str, ...]], list[Any]]:
    golds = [(e.gold,) if isinstance(e.gold, str) else e.gold for e in examples]
    return golds, [r.labels if isinstance(r, Labels) else (r.label,) for r in results]  # type: ignore[return-value]


def _line(example: Example, gold: Any, said: Any) -> list[Any]:
    text = example.text if example.pair is None else f"{example.text} ⟂ {example.pair}"
    return [example.record.line, gold, said, text]
