"""question-answering: a question and a context in; the span of the context that answers, or none, out."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, offsets, report
from headway.core.data import Record
from headway.core.tasks import Output, Row, Spec, encode

BEST = 20
"""spans that are candidates, and among which probabilities are"""

PLAIN = {2: ("question", "context")}
GRAPH = {"start_logits": ("batch", "length"), "end_logits": ("batch", "length")}
READ = ("start_logits", "end_logits")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    stride: int = 64
    """tokens that neighbouring windows of a long context share"""
    max_answer_tokens: int = 30
    unanswerable: bool = False
    """trained with questions that the context does not answer; else there is always an answer"""
    threshold: float = 0.0
    """how far the logits of "no answer" must be above the best answer's"""
    temperature: float = 1.0
    """divides the logits"""


@dataclass(frozen=True)
class Example:
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None
    """text and first character; empty for a question that the context does not answer"""
    id: Any
    record: Record


@dataclass(frozen=True)
class Candidate:
    answer: str
    start: int
    """in characters of the context"""
    end: int
    score: float
    """probability among all candidates and "no answer" """


@dataclass(frozen=True)
class Result:
    answer: str
    """"" for none"""
    start: int
    end: int
    score: float
    candidates: list[Candidate]
    truncated: bool = False
    """True if the question was longer than half the model and its end was cut off"""


def metric(settings: Settings) -> str:
    return "f1"


def read(record: Record, labelled: bool) -> Example:
    question, context = record.text("question"), record.text("context")
    answers = _answers(record, context) if labelled else None
    return Example(question, context, answers, record.fields.get("id"), record)


def _answers(record: Record, context: str) -> tuple[tuple[str, int], ...]:
    given = record.fields.get("answers")
    if not isinstance(given, dict) or not given.keys() >= {"text", "answer_start"}:
        raise record.error("must be an object with the lists 'text' and 'answer_start'", "answers")
    texts, starts = given["text"], given["answer_start"]
    if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
        raise record.error("'text' and 'answer_start' must be lists of the same length", "answers")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip() or type(start) is not int:
            raise record.error(f"answer {text!r} at {start!r} is not a text and a number", "answers")
        if start < 0 or context[start : start + len(text)] != text:
            found = context[max(0, start) : max(0, start) + len(text)]
            raise record.error(
                f"'{text}' is not at character {start} of the context: '{found}' is", "answers"
            )
    return tuple(zip(texts, starts, strict=True))


def check(example: Example, spec: Spec) -> None:
    """Any answer can be given; a question without one is judged too if the model always answers."""


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    """Windows of each context behind its question; `marks` is (T, 2): characters of each context token, or -1."""
    settings: Settings = spec.settings
    tokenizer.no_padding()
    tokenizer.no_truncation()
    most = spec.max_length // 2
    questions = [_shortened(e.question, tokenizer, most) for e in examples]
    stride = min(settings.stride, spec.max_length // 8)
    pairs = [(q, e.context) for q, e in zip(questions, examples, strict=True)]
    cut = [q != e.question for q, e in zip(questions, examples, strict=True)]
    found = []
    for number, encoding in enumerate(encode(tokenizer, pairs, spec.max_length, stride, "only_second")):
        windows = (encoding, *encoding.overflowing)
        spans = offsets.token_spans(examples[number].context, windows, sequence=1)
        for window, marks in zip(windows, spans, strict=True):
            found.append(Row(number, window.ids, window.type_ids, marks, cut[number]))
    return found


def answer_row(example: Example, number: int, tokenizer: Any, spec: Spec) -> tuple[Row, int, int] | None:
    """A window around the first gold answer, for one that no window of `rows` holds, and its first and last token there.

    `number`: the example's. None if the answer has more tokens than a window has for the context, or none.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    question = _shortened(example.question, tokenizer, spec.max_length // 2)
    encoding = tokenizer.encode(question, example.context)
    (marks,) = offsets.token_spans(example.context, [encoding], sequence=1)
    tokens = _answer_tokens(example, marks)
    context = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
    width = min(len(context), spec.max_length - (len(encoding.ids) - len(context)))
    if not tokens or tokens[-1] + 1 - tokens[0] > width:
        return None
    margin = width - (tokens[-1] + 1 - tokens[0])
    begin = min(max(tokens[0] - margin // 2, context[0]), context[-1] + 1 - width)
    kept = [*range(context[0]), *range(begin, begin + width), *range(context[-1] + 1, len(encoding.ids))]
    ids, types = ([values[place] for place in kept] for values in (encoding.ids, encoding.type_ids))
    row = Row(number, ids, types, marks[kept], question != example.question)
    return row, kept.index(tokens[0]), kept.index(tokens[-1])


def _shortened(question: str, tokenizer: Any, most: int) -> str:
    """As much of a question as has `most` tokens."""
    encoding = tokenizer.encode(question, add_special_tokens=False)
    while len(encoding.ids) > most:
        end = encoding.offsets[most - 1][1]
        question = question[
            : min(end, len(question) - 1)
        ]  # a part may have more tokens than it had in the whole
        encoding = tokenizer.encode(question, add_special_tokens=False)
    return question


@dataclass(frozen=True)
class Found:
    """What the windows of one example say."""

    spans: list[tuple[float, int, int]]
    """the best `BEST`, in order: sum of start and end logits, first character, character after the last"""
    none: float
    """the logits of "no answer", in the window that is least sure of it"""
    truncated: bool
    shown: list[tuple[float, int, int]]
    """those that are told of: all, or the best that share no character"""


Search = Callable[[Sequence[Example], Sequence[Output], int, int, bool], list[list[tuple[float, int, int]]]]
"""the best spans of each example, from its outputs, how many, tokens in the longest, and whether they may overlap"""


def find(
    examples: Sequence[Example],
    outputs: Sequence[Output],
    longest: int,
    candidates: int | None,
    search: Search,
) -> list[Found]:
    none = [float("inf")] * len(examples)
    cut = [False] * len(examples)
    for output in outputs:
        i = output.row.example
        none[i] = min(none[i], float(output.logits[0, 0]) + float(output.logits[0, 1]))
        cut[i] = output.row.truncated
    best = search(examples, outputs, BEST, longest, True)
    shown = best if candidates is None else search(examples, outputs, candidates, longest, False)
    return [Found(*parts) for parts in zip(best, none, cut, shown, strict=True)]


def best_spans(
    examples: Sequence[Example], outputs: Sequence[Output], count: int, longest: int, overlap: bool
) -> list[list[tuple[float, int, int]]]:
    """The plain search: all spans, sorted. `cpp_ext.spans` finds the same.

    The same characters in two windows count once, with the better score. Of equal scores the span that begins
    first, then the one that ends first. Unless `overlap`, none shares a character with a better one.
    """
    every: list[list[NDArray[np.float64]]] = [[np.zeros((0, 3))] for _ in examples]
    for output, (first, after) in zip(outputs, edges(examples, outputs), strict=True):
        start, end = np.asarray(output.logits, np.float64).T  # (T), (T)
        for length in range(min(longest, len(start))):
            a = np.arange(len(start) - length)
            b = a + length
            a = a[(first[a] >= 0) & (first[b] >= 0) & (after[b] > first[a])]
            b = a + length
            every[output.row.example].append(np.stack([start[a] + end[b], first[a], after[b]], 1))
    return [_first_apart(np.concatenate(own), count, overlap) for own in every]


def _first_apart(every: NDArray[np.float64], count: int, overlap: bool) -> list[tuple[float, int, int]]:
    """The best of (S, 3): score, first character, character after the last."""
    best: list[tuple[float, int, int]] = []
    for i in np.lexsort((every[:, 2], every[:, 1], -every[:, 0])):
        score, first, after = float(every[i, 0]), int(every[i, 1]), int(every[i, 2])
        if overlap:
            taken = any((first, after) == other[1:] for other in best)
        else:
            taken = any(first < other[2] and other[1] < after for other in best)
        if not taken:
            best.append((score, first, after))
        if len(best) == count:
            break
    return best


def edges(
    examples: Sequence[Example], outputs: Sequence[Output]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each row's tokens (T) the first character at or behind their begin that is no white space, or -1 where no
    answer can be, and the character after the last such before their end."""
    # byte-level tokenizers count the space before a word in
    solid = [offsets.solid_places(e.context) for e in examples]
    for output in outputs:
        own, marks = solid[output.row.example], output.row.marks  # (T, 2)
        follows, precedes = np.searchsorted(own, marks[:, 0]), np.searchsorted(own, marks[:, 1]) - 1
        inside = (marks[:, 0] >= 0) & (marks[:, 1] > marks[:, 0]) & (follows < len(own)) & (precedes >= 0)
        first, after = np.full(len(marks), -1), np.zeros(len(marks), np.int64)
        first[inside], after[inside] = own[follows[inside]], own[precedes[inside]] + 1
        yield first, after


def decode(
    examples: Sequence[Example],
    outputs: Sequence[Output],
    spec: Spec,
    candidates: int | None = None,
    longest_answer: int | None = None,
    search: Search = best_spans,
) -> list[Result]:
    """`candidates`: so many that share no character, instead of the best `BEST`; `longest_answer`: in tokens."""
    longest = longest_answer or spec.settings.max_answer_tokens
    found = find(examples, outputs, longest, candidates, search)
    return [_result(example, own, spec.settings) for example, own in zip(examples, found, strict=True)]


def _result(example: Example, found: Found, settings: Settings) -> Result:
    context = example.context
    logits = [score for score, _, _ in found.spans] + [found.none] * settings.unanswerable
    top = max(logits, default=0.0)

    def share(score: float) -> float:
        return math.exp((score - top) / settings.temperature)

    weight = sum(map(share, logits))

    candidates = [Candidate(context[a:b], a, b, share(score) / weight) for score, a, b in found.shown]
    if settings.unanswerable and margin(found) > settings.threshold:
        return Result("", 0, 0, share(found.none) / weight, candidates, found.truncated)
    if not candidates:
        return Result("", 0, 0, 1.0, candidates, found.truncated)
    best = candidates[0]
    return Result(best.answer, best.start, best.end, best.score, candidates, found.truncated)


def margin(found: Found) -> float:
    """How far the logits of "no answer" are above the best answer's."""
    return found.none - found.spans[0][0] if found.spans else float("inf")


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    """The threshold of best F1 (as SQuAD 2.0's script finds it), and a temperature for starts and ends."""
    settings: Settings = spec.settings
    changes: dict[str, float] = {"temperature": _fit_temperature(examples, outputs)}
    if settings.unanswerable:
        found = find(examples, outputs, settings.max_answer_tokens, None, best_spans)
        margins = np.array([margin(f) for f in found])
        spoken = np.array(
            [
                _best(e, e.context[f.spans[0][1] : f.spans[0][2]] if f.spans else "")[1]
                for e, f in zip(examples, found, strict=True)
            ]
        )
        silent = np.array([float(not e.answers) for e in examples])
        changes["threshold"] = _best_threshold(margins, spoken - silent)
    return msgspec.structs.replace(settings, **changes)


def _best_threshold(margins: NDArray[np.float64], gains: NDArray[np.float64]) -> float:
    """Where the sum of gains of all that is not above it is largest."""
    order = np.argsort(margins, kind="stable")
    ordered = margins[order]
    totals = np.concatenate(([0.0], np.cumsum(gains[order])))  # of the first n
    totals[1:-1][ordered[1:] == ordered[:-1]] = -np.inf  # equal margins cannot be parted
    n = int(totals.argmax())
    finite = ordered[np.isfinite(ordered)]
    if n == 0 or not len(finite):
        return float(finite[0] - 1) if len(finite) else 0.0
    after = ordered[n] if n < len(ordered) else np.inf
    return float((ordered[n - 1] + after) / 2) if np.isfinite(after) else float(finite[-1] + 1)


def _fit_temperature(examples: Sequence[Example], outputs: Sequence[Output]) -> float:
    longest = max(len(o.row.ids) for o in outputs)
    logits = np.full((2 * len(outputs), longest), -1e30)
    targets = np.zeros(2 * len(outputs), dtype=int)
    for i, output in enumerate(outputs):
        logits[2 * i : 2 * i + 2, : len(output.row.ids)] = output.logits.T
        targets[2 * i : 2 * i + 2] = target(examples[output.row.example], output.row)
    return calibration.fit_temperature(logits, targets)


def target(example: Example, row: Row) -> tuple[int, int]:
    """First and last token of the first gold answer in a window; (0, 0) if it is not wholly inside.

    Characters that are in no token are not looked for, so that an answer is found with and without the marks,
    spaces and format characters around it.
    """
    if not example.answers:
        return 0, 0
    marks = row.marks
    tokens = _answer_tokens(example, marks)
    if not tokens:
        return 0, 0
    start, end = _extent(example)
    inside = np.flatnonzero(marks[:, 1] > marks[:, 0])
    before, behind = slice(start, marks[tokens[0], 0]), slice(marks[tokens[-1], 1], end)
    cut_before = tokens[0] == inside[0] and example.context[before].strip()
    cut_behind = tokens[-1] == inside[-1] and example.context[behind].strip()
    return (0, 0) if cut_before or cut_behind else (tokens[0], tokens[-1])


def _answer_tokens(example: Example, marks: NDArray[np.int64]) -> list[int]:
    """The tokens that have characters of the first gold answer, as far as they are in a window."""
    context, (start, end) = example.context, _extent(example)
    begins, ends = marks[:, 0], marks[:, 1]
    tokens: list[int] = np.flatnonzero(
        (begins >= 0) & (ends > start) & (begins < end) & (ends > begins)
    ).tolist()
    # At an edge may be the token of a word beside the answer, with format characters that are the answer's as well.
    while tokens and _only_attached(context, slice(begins[tokens[0]], start), slice(start, ends[tokens[0]])):
        del tokens[0]
    while tokens and _only_attached(context, slice(end, ends[tokens[-1]]), slice(begins[tokens[-1]], end)):
        del tokens[-1]
    return tokens


def _only_attached(context: str, outside: slice, inside: slice) -> bool:
    """Whether a token has something outside an answer, and inside it nothing but what belongs to that."""
    return bool(context[outside].strip()) and offsets.is_attached(context[inside])


def _extent(example: Example) -> tuple[int, int]:
    """Begin and end of the first gold answer without the white space around it."""
    text, start = (example.answers or ())[0]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def ends_inside_token(example: Example, row: Row, first: int, last: int) -> bool:
    """Whether the first gold answer begins or ends inside one of its tokens, so that these say more than it does."""
    start, end = _extent(example)
    more = example.context[row.marks[first, 0] : start], example.context[end : row.marks[last, 1]]
    return not all(map(offsets.is_attached, more))


def has_token(example: Example, row: Row) -> bool:
    """Whether a window has a token of the first gold answer."""
    return bool(_answer_tokens(example, row.marks))


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    """SQuAD's exact match and F1 over all; over answerable questions; and share of right silences."""
    scores = np.array([_best(e, r.answer) for e, r in zip(examples, results, strict=True)])  # (N, 2)
    figures = {"exact_match": float(scores[:, 0].mean()), "f1": float(scores[:, 1].mean())}
    answerable = np.array([bool(e.answers) for e in examples])
    if answerable.all() or not answerable.any():
        return figures
    return figures | {
        "exact_match_answerable": float(scores[answerable, 0].mean()),
        "f1_answerable": float(scores[answerable, 1].mean()),
        "no_answer_accuracy": float(scores[~answerable, 0].mean()),
    }


def normalized(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space, as SQuAD's script compares answers."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _best(example: Example, answer: str) -> tuple[float, float]:
    """Exact match and F1 with the most similar gold answer.

    Format characters around an answer are not compared: they are invisible, and no model tells whether they belong to it.
    """
    golds = [g for g in (normalized(offsets.strip_format(t)) for t, _ in example.answers or ()) if g] or [""]
    said = normalized(offsets.strip_format(answer))
    return (
        max(float(said == g) for g in golds),
        max(_overlap(g.split(), said.split()) for g in golds),
    )


def _overlap(gold: list[str], said: list[str]) -> float:
    if not gold or not said:
        return float(gold == said)
    common = (Counter(gold) & Counter(said)).total()
    return 2 * common / (len(gold) + len(said))


def certainty(
    examples: Sequence[Example], results: Sequence[Result]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The answer's probability, and whether it matches exactly."""
    right = [_best(e, r.answer)[0] == 1 for e, r in zip(examples, results, strict=True)]
    return np.array([r.score for r in results]), np.array(right)


def tables(examples: Sequence[Example], results: Sequence[Result]) -> list[report.Table]:
    both = [(_best(e, r.answer)[1], e, r) for e, r in zip(examples, results, strict=True)]
    both = [row for row in both if row[0] < 1]
    both.sort(key=lambda row: (row[0], -row[2].score))
    rows = (
        [
            e.record.line,
            f1,
            e.question,
            " | ".join(t for t, _ in e.answers or ()) or "(none)",
            r.answer,
            r.score,
        ]
        for f1, e, r in both
    )
    return [report.worst(["line", "f1", "question", "gold", "answer", "score"], rows)]
