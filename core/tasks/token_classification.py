"""token-classification: words in; a tag for each, and the entities that the tags make, out."""

from __future__ import annotations

import functools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, report, windows
from headway.core.data import Record
from headway.core.figures import f1_macro, f1_micro, precision_recall
from headway.core.offsets import is_format, token_spans
from headway.core.tasks import Output, Row, Spec, encode

IDEOGRAPHS = (
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f"
)
"""those of Chinese, Japanese and Korean, as BERT's tokenizer has them"""
LETTER = re.compile(rf"[^\W_{IDEOGRAPHS}]")
WORD = re.compile(rf"{LETTER.pattern}+|[{IDEOGRAPHS}]|[^\w\s]|[_\x0b\x0c\x1c-\x1f\x85]")
"""what is a word of a text that comes without tokens, before `words_of` joins what belongs together"""

Aggregation = Literal["first", "mean", "max", "strict"]
"""how a word's tokens become one: the first; the mean of their probabilities; the one that is surest; or the first
where all agree on the label, and else the fallback tag"""
IMPROBABLE = 1e-30
"""the least probability that decoding tells apart"""

PLAIN = {1: ("text",)}
GRAPH = {"logits": ("batch", "length", "classes"), "probabilities": ("batch", "length", "classes")}
READ = ("logits",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scheme: Literal["bio", "bioes", "plain"] = "bio"
    """how tags mark entities; plain: each word has a tag of its own"""
    stride: int = 32
    """tokens that neighbouring windows of a long text share"""
    fallback: str = "O"
    """tag of a word that the tokenizer makes nothing of"""
    temperature: float = 1.0
    """divides the logits"""


@dataclass(frozen=True)
class Example:
    text: str
    words: tuple[tuple[int, int], ...]
    """begin and end of each word, in characters"""
    has_tokens: bool
    """the words are the record's own"""
    tags: tuple[str, ...] | None
    id: Any
    record: Record


@dataclass(frozen=True)
class Entity:
    start: int
    """in characters"""
    end: int
    text: str
    label: str
    score: float
    """mean probability of its words' tags; or of the entity as a whole, where a call asks for that"""


@dataclass(frozen=True)
class Result:
    entities: list[Entity]
    tags: list[str] | None = None
    """one a word, when the input has tokens"""
    scores: list[float] | None = None
    """their probabilities"""
    truncated: bool = False
    """always False: long texts are read in windows"""


def metric(settings: Settings) -> str:
    return "token_accuracy" if settings.scheme == "plain" else "entity_f1"


def read(record: Record, labelled: bool) -> Example:
    if labelled or "tokens" in record.fields:
        tokens = record.texts("tokens")
        text = " ".join(tokens)  # tokens may hold spaces: their places are counted, not searched for
        ends = np.cumsum([len(t) + 1 for t in tokens]) - 1
        words = tuple((int(end) - len(t), int(end)) for t, end in zip(tokens, ends, strict=True))
    else:
        text = record.text("text")
        words = words_of(text)
    tags = record.texts("tags") if labelled else None
    if tags is not None and len(tags) != len(words):
        raise record.error(f"has {len(tags)} tags for {len(words)} tokens", "tags")
    return Example(text, words, "tokens" in record.fields, tags, record.fields.get("id"), record)


def words_of(text: str) -> tuple[tuple[int, int], ...]:
    """Begin and end of each word of a text, as BERT's tokenizer has them: runs of letters, digits and symbols that
    are not ASCII, and single other signs and ideographs.

    A combining mark belongs to what it stands on, and a control character inside a word to that word.
    """
    found = [match.span() for match in WORD.finditer(text)]
    if text.isascii() and text.isprintable():
        return tuple(found)
    words: list[tuple[int, int]] = []
    ends: list[
        int
    ] = []  # of each word with the control characters behind it, which may yet turn out to be inside
    for begin, end in found:
        category = unicodedata.category(text[begin])
        touches = bool(ends) and ends[-1] == begin
        if touches and (category[0] == "M" or (_runs(text[words[-1][0]]) and _runs(text[begin]))):
            words[-1], ends[-1] = (words[-1][0], end), end
        elif touches and (category[0] == "C" or text[begin] == "\ufffd"):
            ends[-1] = end
        else:
            words.append((begin, end))
            ends.append(end)
    return tuple(words)


def _runs(character: str) -> bool:
    """Whether it makes one word with such as itself."""
    symbol = not character.isascii() and unicodedata.category(character)[0] == "S"
    return symbol or LETTER.match(character) is not None


def scheme_of(tags: Sequence[str]) -> Literal["bio", "bioes", "plain"]:
    """The scheme that a set of tags is written in."""
    if not all(tag == "O" or re.match(r"[BIES]-.", tag) for tag in tags):
        return "plain"
    return "bioes" if any(tag[:2] in ("E-", "S-") for tag in tags) else "bio"


def check(example: Example, spec: Spec) -> None:
    check_scheme(example, spec.settings.scheme)
    for place, tag in enumerate(example.tags or ()):
        if tag not in spec.labels:
            raise example.record.error(
                f"entry {place} is the unknown tag '{tag}'; known: {', '.join(spec.labels)}", "tags"
            )


def check_scheme(example: Example, scheme: str) -> None:
    """Raise DataError for an I- or E- that continues nothing."""
    before = "O"
    for place, tag in enumerate(example.tags or ()):
        inside = scheme != "plain" and tag[:2] in ("I-", "E-")
        if inside and (before[:2] not in ("B-", "I-") or before[2:] != tag[2:]):
            raise example.record.error(
                f"entry {place} is {tag} after {before}, not inside a {tag[2:]}", "tags"
            )
        before = tag


@dataclass(frozen=True)
class Marks:
    """Where in a row the words are. Iterating gives each word that begins in it, and the place of its first token."""

    first: list[tuple[int, int]]
    words: list[int]
    """(T): the word that each token belongs to, or -1"""
    reached: list[int] = field(default_factory=list)
    """words that begin inside a token of one before"""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.first)


def rows(examples: Sequence[Example], tokenizer: Any, spec: Spec) -> list[Row]:
    """Windows of each text; `marks` are `Marks`."""
    stride = min(spec.settings.stride, spec.max_length // 4)
    found = []
    encodings = encode(tokenizer, [e.text for e in examples], spec.max_length, stride)
    for number, (example, encoding) in enumerate(zip(examples, encodings, strict=True)):
        begins = [begin for begin, _ in example.words]
        first_seen: dict[int, int] = {}  # where each word's first token begins
        parts = (encoding, *encoding.overflowing)
        for window, characters in zip(parts, token_spans(example.text, parts), strict=True):
            marks = _marks(example, characters.tolist(), begins, first_seen)
            found.append(Row(number, window.ids, window.type_ids, marks))
    return found


def _marks(
    example: Example, token_characters: list[list[int]], begins: list[int], first_seen: dict[int, int]
) -> Marks:
    text, words = example.text, example.words
    first = []
    owners = []
    reached: list[int] = []
    seen = -1
    for place, (begin, end) in enumerate(token_characters):
        word = -1
        if begin < end:
            while begin < end - 1 and is_format(text[begin]):
                begin += 1  # tokens may have spaces and format characters before their word
            word = bisect_right(begins, begin) - 1
            if word >= 0 and begin >= words[word][1]:
                word = -1  # between words
            elif word >= 0 and end > words[word][1]:
                reached += range(word + 1, bisect_left(begins, end))
            if word > seen:
                seen = word
                if first_seen.setdefault(word, begin) == begin:
                    first.append((word, place))
        owners.append(word)
    return Marks(first, owners, reached)


@dataclass(frozen=True)
class Grammar:
    """Which of C tags may stand where."""

    follows: NDArray[np.bool_]  # (C, C): whether the second may stand right after the first
    begins: NDArray[np.bool_]  # (C): whether a text may begin with it
    ends: NDArray[np.bool_]  # (C): whether a text may end with it
    continues: NDArray[np.bool_]  # (C, C): whether the second continues the first one's entity


@functools.lru_cache(maxsize=16)
def grammar(labels: tuple[str, ...], scheme: str) -> Grammar:
    """No I- or E- without what it continues; with bioes, no B- or I- without its E-.

    A label that has no B- tag may begin with any, and one that has no E- may end with any.
    """
    continues = [[_continues(a, b) for b in labels] for a in labels]
    edge = "O"
    return Grammar(
        np.array([[_may_follow(a, b, labels, scheme) for b in labels] for a in labels]),
        np.array([_may_follow(edge, b, labels, scheme) for b in labels]),
        np.array([_may_follow(a, edge, labels, scheme) for a in labels]),
        np.array(continues),
    )


def _continues(before: str, after: str) -> bool:
    return after[:2] in ("I-", "E-") and before[:2] in ("B-", "I-") and before[2:] == after[2:]


def _may_follow(before: str, after: str, labels: Sequence[str], scheme: str) -> bool:
    if _continues(before, after):
        return True
    needs_before = after[:2] in ("I-", "E-") and f"B-{after[2:]}" in labels
    needs_after = scheme == "bioes" and before[:2] in ("B-", "I-") and f"E-{before[2:]}" in labels
    return not needs_before and not needs_after


def best_tags(scores: NDArray[np.floating], rules: Grammar) -> NDArray[np.int32]:
    """The allowed tags (W) of one text with the greatest sum of scores (W, C), by Viterbi's algorithm.

    Each word's first best tag where these are allowed, and where nothing is. Of equal sums the one with the
    lowest last tag, then the lowest before it, and so on. `cpp_ext.tags` does the same for many texts.
    """
    best = np.asarray(scores.argmax(-1), np.int32)
    steps = rules.follows[best[:-1], best[1:]].all()
    if not len(best) or (rules.begins[best[0]] and steps and rules.ends[best[-1]]):
        return best
    sums = np.where(rules.begins, scores[0], -np.inf)  # (C): of the best sequence that ends in the tag
    came = []  # the tag before, on that sequence
    for row in scores[1:]:
        reached = np.where(rules.follows, sums[:, None], -np.inf)  # (C, C)
        came.append(reached.argmax(0))
        sums = reached.max(0) + row
    sums = np.where(rules.ends, sums, -np.inf)
    if np.isneginf(sums).all():
        return best
    path = [int(sums.argmax())]
    for before in reversed(came):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1], np.int32)


@dataclass(frozen=True)
class Words:
    """W words of E examples, end to end. Of a text without tokens of its own, only words that have a token."""

    offsets: NDArray[np.int64]  # (E + 1): of the examples' words
    numbers: NDArray[np.int64]  # (W): which of its example's words it is
    lasts: NDArray[np.int64]  # (W): the same, or the last of those without a token that its own reach
    chances: NDArray[np.float64]  # (W, C): probabilities of the tags; 0 where the word has no token
    scores: NDArray[
        np.float32
    ]  # (W, C): their logarithms; a word without a token can only have the fallback tag
    seen: NDArray[np.bool_]  # (W): whether the word has a token


def words_in(
    examples: Sequence[Example],
    outputs: Sequence[Output],
    spec: Spec,
    aggregation: Aggregation = "first",
) -> Words:
    """What the model says of each word, each from the window that saw most around it."""
    offsets = np.fromiter(accumulate((len(e.words) for e in examples), initial=0), np.int64)
    logits, owners = _tokens(examples, outputs, offsets, aggregation)
    tokens = calibration.softmax(logits / spec.settings.temperature)  # (N, C)
    places, own = _aggregated(tokens, owners, spec, aggregation)
    count, classes = int(offsets[-1]), tokens.shape[1]
    seen = np.zeros(count, np.bool_)
    seen[places] = True
    chances = np.zeros((count, classes))
    chances[places] = own
    scores = np.log(np.maximum(chances, IMPROBABLE)).astype(np.float32)
    numbers = np.arange(count) - np.repeat(offsets[:-1], np.diff(offsets))
    if len(places) == count:
        return Words(offsets, numbers, numbers, chances, scores, seen)
    scores[~seen] = np.where(_fallback(spec), 0, -np.inf)
    kept = seen | np.repeat([e.has_tokens for e in examples], np.diff(offsets))
    before = np.cumsum(kept)  # (count): of the words up to each
    reached = [offsets[o.row.example] + word for o in outputs for word in o.row.marks.reached]
    joined = np.array([word for word in reached if not kept[word]], np.int64)
    lasts = numbers[kept]
    np.maximum.at(lasts, before[joined] - 1, numbers[joined])
    offsets = np.concatenate(([0], before))[offsets]
    return Words(offsets, numbers[kept], lasts, chances[kept], scores[kept], seen[kept])


def _fallback(spec: Spec) -> NDArray[np.bool_]:  # (C): whether it is the fallback tag; any, if none is
    given = np.array([label == spec.settings.fallback for label in spec.labels])
    return given if given.any() else np.ones_like(given)


def _tokens(
    examples: Sequence[Example], outputs: Sequence[Output], offsets: NDArray[np.int64], aggregation: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of the words' tokens (N, C), in order, and the word of each (N): its first, or all in its window."""
    parts = []
    owners: list[int] = []
    for output, mine in _owned(examples, outputs):
        marks: Marks = output.row.marks
        if aggregation == "first":
            pairs = marks.first if mine is None else [(w, p) for w, p in marks.first if w in mine]
        else:
            own = {w for w, _ in marks.first} if mine is None else mine
            pairs = [(w, p) for p, w in enumerate(marks.words) if w in own]
        parts.append(output.logits[[place for _, place in pairs]])
        begin = int(offsets[output.row.example])
        owners += [begin + word for word, _ in pairs]
    return np.concatenate(parts), np.array(owners, np.int64)


def _owned(
    examples: Sequence[Example], outputs: Sequence[Output]
) -> Iterator[tuple[Output, set[int] | None]]:
    """Each window with the words that it answers for: None for all, where a text has no other window."""
    parts: list[list[Output]] = [[] for _ in examples]
    for output in outputs:
        parts[output.row.example].append(output)
    for own in parts:
        if len(own) == 1:
            yield own[0], None
        else:
            yield from zip(own, windows.owners([[w for w, _ in o.row.marks] for o in own]), strict=True)


def _aggregated(
    tokens: NDArray[np.float64], owners: NDArray[np.int64], spec: Spec, aggregation: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The words (M) that have tokens, and their probabilities (M, C), of those of their tokens (N, C)."""
    if aggregation == "first" or not len(owners):
        return owners, tokens
    order = np.argsort(owners, kind="stable")
    if aggregation == "max":
        order = np.lexsort((-tokens.max(-1), owners))  # each word's surest token first
    ordered = tokens[order]
    words, begins, counts = np.unique(owners[order], return_index=True, return_counts=True)
    if aggregation == "mean":
        return words, np.add.reduceat(ordered, begins) / counts[:, None]
    chances = ordered[begins]
    if aggregation == "strict":
        names = [label if spec.settings.scheme == "plain" else label[2:] for label in spec.labels]
        said = np.array([names.index(name) for name in names])[ordered.argmax(-1)]
        split = np.minimum.reduceat(said, begins) != np.maximum.reduceat(said, begins)
        chances[split] = np.where(_fallback(spec), chances[split], 0)
    return words, chances


def decode(
    examples: Sequence[Example],
    outputs: Sequence[Output],
    spec: Spec,
    aggregation: Aggregation = "first",
    constrained: bool = True,
) -> list[Result]:
    """`constrained`: only sequences of tags that the scheme allows; else each word's best tag."""
    words = words_in(examples, outputs, spec, aggregation)
    chosen = words.scores.argmax(-1)  # (W)
    if constrained and spec.settings.scheme != "plain":
        rules = grammar(tuple(spec.labels), spec.settings.scheme)
        parts = np.split(words.scores.astype(np.float64), words.offsets[1:-1])
        chosen = np.concatenate([best_tags(part, rules) for part in parts])
    return results_of(examples, words, chosen, spec)


Rate = Callable[[list[tuple[int, int]]], Sequence[float]]
"""scores of entities, from their words [first, after)"""


def results_of(
    examples: Sequence[Example],
    words: Words,
    chosen: NDArray[np.integer],
    spec: Spec,
    rate: Rate | None = None,
) -> list[Result]:
    """Results of the tags chosen for the words (W); entities have the mean of their words' scores, or what `rate` says."""
    scores: list[float] = words.chances[np.arange(len(chosen)), chosen].tolist()
    tags = [spec.labels[tag] for tag in chosen.tolist()]
    for word in np.flatnonzero(~words.seen).tolist():
        tags[word] = spec.settings.fallback
    ends, numbers, lasts = words.offsets.tolist(), words.numbers.tolist(), words.lasts.tolist()
    found = [
        [(name, begin + a, begin + b) for name, a, b in spans(tags[begin:end], spec.settings.scheme)]
        for begin, end in pairwise(ends)
    ]
    if rate is not None:
        rated = iter(rate([(first, after) for own in found for _, first, after in own]))
    else:
        rated = (sum(scores[first:after]) / (after - first) for own in found for _, first, after in own)
    results = []
    for i, (example, own) in enumerate(zip(examples, found, strict=True)):
        begin, end = ends[i], ends[i + 1]
        entities = [_entity(example, label, numbers[a], lasts[b - 1], next(rated)) for label, a, b in own]
        told = (tags[begin:end], scores[begin:end]) if example.has_tokens else ()
        results.append(Result(entities, *told))
    return results


def _entity(example: Example, label: str, first: int, last: int, score: float) -> Entity:
    start, stop = example.words[first][0], example.words[last][1]
    return Entity(start, stop, example.text[start:stop], label, score)


def spans(tags: Sequence[str], scheme: str) -> list[tuple[str, int, int]]:
    """Entities (label, first word, word after the last), read as conlleval and seqeval do.

    An I- or E- that continues nothing begins an entity, as these two have it. Plain tags: each word is one.
    """
    if scheme == "plain":
        return [(tag, i, i + 1) for i, tag in enumerate(tags)]
    found: list[tuple[str, int, int]] = []
    before = "O"
    for i, tag in enumerate(tags):
        if tag != "O":
            continues = tag[0] in "IE" and before[0] in "BI" and before[2:] == tag[2:]
            label, begin, _ = found.pop() if continues else (tag[2:], i, i)
            found.append((label, begin, i + 1))
        before = tag
    return found


def calibrate(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec) -> Settings:
    offsets = np.fromiter(accumulate((len(e.words) for e in examples), initial=0), np.int64)
    logits, words = _tokens(examples, outputs, offsets, "first")
    tags = [tag for e in examples for tag in e.tags or ()]
    settings: Settings = spec.settings
    if not len(words):
        return settings
    gold = np.array([spec.labels.index(tags[word]) for word in words.tolist()])
    temperature = calibration.fit_temperature(logits, gold)
    return msgspec.structs.replace(settings, temperature=temperature)


def metrics(examples: Sequence[Example], results: Sequence[Result]) -> dict[str, float]:
    """Entity-F1, precision and recall of exact spans (as seqeval), or macro-F1 of plain tags; token accuracy."""
    pairs = [
        (g, s)
        for e, r in zip(examples, results, strict=True)
        for g, s in zip(e.tags or (), r.tags or (), strict=True)
    ]
    accuracy = {"token_accuracy": float(np.mean([g == s for g, s in pairs]))}
    if scheme_of([tag for pair in pairs for tag in pair]) == "plain":
        return accuracy | {"macro_f1": f1_macro([[g] for g, _ in pairs], [[s] for _, s in pairs])}
    gold, said = _entities(examples, results)
    precision, recall = precision_recall(gold, said)
    return {"entity_f1": f1_micro(gold, said), "precision": precision, "recall": recall} | accuracy


def certainty(
    examples: Sequence[Example], results: Sequence[Result]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    right = [
        g == s
        for e, r in zip(examples, results, strict=True)
        for g, s in zip(e.tags or (), r.tags or (), strict=True)
    ]
    return np.array([score for r in results for score in r.scores or ()]), np.array(right)


def tables(examples: Sequence[Example], results: Sequence[Result]) -> list[report.Table]:
    gold = [tag for e in examples for tag in e.tags or ()]
    said = [tag for r in results for tag in r.tags or ()]
    if scheme_of([*gold, *said]) == "plain":
        shown = [report.per_label([[g] for g in gold], [[s] for s in said])]
    else:
        shown = [_per_entity(*_entities(examples, results))]
    wrong: list[list[Any]] = [
        [e.record.line, w, e.text[slice(*e.words[w])], (e.tags or ())[w], f"{tag} ({score:.3f})", score]
        for e, r in zip(examples, results, strict=True)
        for w, (tag, score) in enumerate(zip(r.tags or (), r.scores or (), strict=True))
        if tag != (e.tags or ())[w]
    ]
    wrong.sort(key=lambda row: -row[-1])
    return [
        *shown,
        report.confusion(gold, said),
        report.worst(["line", "word", "text", "gold", "predicted"], (row[:-1] for row in wrong)),
    ]


def _entities(examples: Sequence[Example], results: Sequence[Result]) -> tuple[list[Any], list[Any]]:
    return (
        [spans(e.tags or (), "bio") for e in examples],
        [spans(r.tags or (), "bio") for r in results],
    )


def _per_entity(gold: Sequence[Any], said: Sequence[Any]) -> report.Table:
    """As `report.per_label`, by the type of entity; an entity is right if type and span are."""
    types = sorted({label for found in (*gold, *said) for label, _, _ in found})
    rows = []
    for t in types:
        g, s = ([[x for x in found if x[0] == t] for found in side] for side in (gold, said))
        precision, recall = precision_recall(g, s)
        rows.append([t, precision, recall, f1_micro(g, s), sum(map(len, g)), sum(map(len, s))])
    return report.Table("Per label", ["label", "precision", "recall", "f1", "gold", "predicted"], rows)
