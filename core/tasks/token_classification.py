"""token-classification: words in; a tag for each, and the entities that the tags make, out."""

from __future__ import annotations

import functools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import calibration, report, windows
from headway.core.data import Record
from headway.core.figures import f1_macro, f1_micro, precision_recall
from headway.core.offsets import is_format, token_spans
from headway.core.scripts import (
    HANGUL,
    IDEOGRAPHS,
    NO_SPACES,
    TOKEN_BOUNDARIES,
    UNSPACED,
    cluster_end,
    extends,
)
from headway.core.tag_schemes import (
    OUTSIDE,
    Scheme,
    continues,
    first_violation,
    may_follow,
    parse_labels,
    scheme_of,
    spans,
)
from headway.core.tasks import Output, Row, Spec, encode

LETTER = re.compile(rf"[^\W_{IDEOGRAPHS}]")
SPACED_LETTER = re.compile(rf"[^\W_{IDEOGRAPHS}{UNSPACED}{HANGUL}]")
_OTHERS = r"[^\w\s]|[_\x0b\x0c\x1c-\x1f\x85]"
WORD = re.compile(rf"{LETTER.pattern}+|[{IDEOGRAPHS}]|{_OTHERS}")
"""what is a word of a text that comes without tokens, before `words_of` joins what belongs together"""
UNIT = re.compile(rf"{SPACED_LETTER.pattern}+|[{IDEOGRAPHS}{UNSPACED}{HANGUL}]|{_OTHERS}")
"""the same with each character of its own in `TOKEN_BOUNDARIES`"""

Aggregation = Literal["first", "mean", "max", "strict"]
"""how a word's tokens become one: the first; the mean of their probabilities; the one that is surest; or the first
where all agree on the label, and else the fallback tag"""
Boundaries = Literal["auto", "word", "token"]
"""where an entity of a text without tokens of its own may begin and end. word: at words, which are runs of letters and
single ideographs; token: at the model's tokens; auto: at tokens in scripts that are written without spaces and in Korean,
else at words"""
IMPROBABLE = 1e-30
"""the least probability that decoding tells apart"""

PLAIN = {1: ("text",)}
GRAPH = {"logits": ("batch", "length", "classes"), "probabilities": ("batch", "length", "classes")}
READ = ("logits",)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scheme: Scheme = "bio"
    """how tags mark entities; plain: each word has a tag of its own"""
    boundaries: Boundaries = "auto"
    """where entities of texts without tokens of their own may begin and end"""
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


class Tags(list[str]):
    """Tags of one text, which know the model's labels: those of one text alone may be ambiguous (`PER` without an O)."""

    def __init__(self, tags: Sequence[str], spec: Spec) -> None:
        super().__init__(tags)
        self.scheme, self.labels = spec.settings.scheme, spec.labels


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


def words_of(text: str, runs: bool = False) -> tuple[tuple[int, int], ...]:
    """Begin and end of each word of a text, as BERT's tokenizer has them: runs of letters, digits and symbols that
    are not ASCII, and single other signs and ideographs.

    A combining mark, a joiner or a variation selector belongs to what it stands on, and a control character inside a
    word to that word. Of the scripts of `TOKEN_BOUNDARIES` each character is a word: what the tokenizer makes one token
    of is told by its first; or (`runs`) there, too, a run of letters.
    """
    pattern, letter = (WORD, LETTER) if runs else (UNIT, SPACED_LETTER)
    found = [match.span() for match in pattern.finditer(text)]
    if text.isascii() and text.isprintable():
        return tuple(found)
    words: list[tuple[int, int]] = []
    ends: list[
        int
    ] = []  # of each word with the control characters behind it, which may yet turn out to be inside
    for begin, end in found:
        category = unicodedata.category(text[begin])
        touches = bool(ends) and ends[-1] == begin
        if touches and (
            extends(text, begin) or (_runs(text[words[-1][0]], letter) and _runs(text[begin], letter))
        ):
            words[-1], ends[-1] = (words[-1][0], end), end
        elif touches and (category[0] == "C" or text[begin] == "\ufffd"):
            ends[-1] = end
        else:
            words.append((begin, end))
            ends.append(end)
    return tuple(words)


def _runs(character: str, letter: re.Pattern[str]) -> bool:
    """Whether it makes one word with such as itself."""
    symbol = not character.isascii() and unicodedata.category(character)[0] == "S"
    return symbol or letter.match(character) is not None


def check(example: Example, spec: Spec) -> None:
    for place, tag in enumerate(example.tags or ()):
        if tag not in spec.labels:
            raise example.record.error(
                f"entry {place} is the unknown tag '{tag}'; known: {', '.join(spec.labels)}", "tags"
            )
    check_scheme(example, spec.settings.scheme, spec.labels)


def check_scheme(example: Example, scheme: str, labels: Sequence[str] | None = None) -> None:
    """Raise DataError for the first tag that breaks the scheme's rules. `labels`: all there are, or those of the example."""
    tags = example.tags or ()
    found = first_violation(tags, scheme, list(dict.fromkeys(tags)) if labels is None else labels)
    if found is not None:
        raise example.record.error(f"entry {found[0]} {found[1]}", "tags")


@dataclass(frozen=True)
class Marks:
    """Where in a row the words are. Iterating gives each word that begins in it, and the place of its first token."""

    first: list[tuple[int, int]]
    words: list[int]
    """(T): the word that each token belongs to, or -1"""
    reached: list[int] = field(default_factory=list)
    """words that begin inside a token of one before"""
    characters: list[list[int]] = field(default_factory=list)
    """(T, 2): first character of each token and the character after its last; (-1, -1) for special ones"""

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


def inner_tokens(example: Example, marks: Marks) -> list[int]:
    """Places of tokens inside words of which a text without tokens would make words of their own."""
    first = {place for _, place in marks.first}
    found = []
    for place, word in enumerate(marks.words):
        if word >= 0 and place not in first:
            begin, end = marks.characters[place]
            begin += len(example.text[begin:end]) - len(example.text[begin:end].lstrip())
            if begin > example.words[word][0] and TOKEN_BOUNDARIES.match(example.text, begin):
                found.append(place)
    return found


def with_boundaries(
    examples: Sequence[Example], outputs: Sequence[Output], boundaries: str
) -> tuple[Sequence[Example], Sequence[Output]]:
    """The same with other words in texts that have no tokens of their own, and marks of these words.

    `read` and `rows` make those of "auto".
    """
    if boundaries == "auto" or all(e.has_tokens for e in examples):
        return examples, outputs
    windows_of: list[list[Any]] = [[] for _ in examples]
    for output in outputs:
        windows_of[output.row.example].append(output.row.marks.characters)
    changed = [
        e if e.has_tokens else replace(e, words=_words_between(e.text, boundaries, found))
        for e, found in zip(examples, windows_of, strict=True)
    ]
    seen: list[dict[int, int]] = [{} for _ in examples]
    marked = []
    for output in outputs:
        example, characters = changed[output.row.example], output.row.marks.characters
        if not example.has_tokens:
            begins = [begin for begin, _ in example.words]
            marks = _marks(example, characters, begins, seen[output.row.example])
            output = replace(output, row=replace(output.row, marks=marks))
        marked.append(output)
    return changed, marked


def _words_between(
    text: str, boundaries: str, windows_of: Sequence[list[list[int]]]
) -> tuple[tuple[int, int], ...]:
    """`windows_of`: first character of each token and the character after its last, in each window."""
    if boundaries == "word":
        return words_of(text, runs=True)
    pieces = {(begin, end) for characters in windows_of for begin, end in characters if begin < end}
    words: list[tuple[int, int]] = []
    for begin, end in sorted(pieces):
        end = begin + len(text[begin:end].rstrip())
        begin = end - len(text[begin:end].lstrip())
        if begin == end:
            continue
        if words and (begin < words[-1][1] or extends(text, begin)):  # parts of one character
            words[-1] = (words[-1][0], max(words[-1][1], cluster_end(text, end)))
        else:
            words.append((begin, cluster_end(text, end)))
    return tuple(words)


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
    return Marks(first, owners, reached, token_characters)


@dataclass(frozen=True)
class Grammar:
    """Which of C tags may stand where."""

    follows: NDArray[np.bool_]  # (C, C): whether the second may stand right after the first
    begins: NDArray[np.bool_]  # (C): whether a text may begin with it
    ends: NDArray[np.bool_]  # (C): whether a text may end with it
    continues: NDArray[np.bool_]  # (C, C): whether the second continues the first one's entity


@functools.lru_cache(maxsize=16)
def grammar(labels: tuple[str, ...], scheme: str) -> Grammar:
    """What a scheme allows, by `tag_schemes.may_follow`; an outside tag is before the first word and behind the last."""
    read = {} if scheme == "plain" else parse_labels(labels) or {}
    tags = [read.get(label, OUTSIDE) for label in labels]
    every = frozenset(tags)
    return Grammar(
        np.array([[may_follow(a, b, every, scheme) for b in tags] for a in tags]),
        np.array([may_follow(OUTSIDE, b, every, scheme) for b in tags]),
        np.array([may_follow(a, OUTSIDE, every, scheme) for a in tags]),
        np.array([[continues(a, b) for b in tags] for a in tags]),
    )


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
        read = None if spec.settings.scheme == "plain" else parse_labels(tuple(spec.labels))
        names = spec.labels if read is None else [read[label].type for label in spec.labels]
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
    boundaries: Boundaries | None = None,
) -> list[Result]:
    """`constrained`: only sequences of tags that the scheme allows; else each word's best tag.

    `boundaries`: of the entities of texts without tokens of their own; None: as the settings have it.
    """
    examples, outputs = with_boundaries(examples, outputs, boundaries or spec.settings.boundaries)
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
        [
            (name, begin + a, begin + b)
            for name, a, b in spans(tags[begin:end], spec.settings.scheme, spec.labels)
        ]
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
        told = (Tags(tags[begin:end], spec), scores[begin:end]) if example.has_tokens else ()
        results.append(Result(entities, *told))
    return results


def _entity(example: Example, label: str, first: int, last: int, score: float) -> Entity:
    start, stop = example.words[first][0], example.words[last][1]
    return Entity(start, stop, example.text[start:stop], label, score)


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
    scheme, labels = _scheme(examples, results)
    if scheme == "plain":
        return accuracy | {"macro_f1": f1_macro([[g] for g, _ in pairs], [[s] for _, s in pairs])}
    gold, said = _entities(examples, results, scheme, labels)
    precision, recall = precision_recall(gold, said)
    return {"entity_f1": f1_micro(gold, said), "precision": precision, "recall": recall} | accuracy


def without_tokens(examples: Sequence[Example], judged: Sequence[Result]) -> list[Example]:
    """The same texts as a user would give them: not as tokens. None of plain tags, which are judged by words alone.

    Tokens are joined by spaces, but not between two characters of a script that is written without them.

    Args:
        examples: with gold tags.
        judged: results of `examples`, which say how tags are to be read.
    """
    if _scheme(examples, judged)[0] == "plain":
        return []
    texts = [_raw_text(e)[0] for e in examples]
    return [
        Example(text, words_of(text), False, None, e.id, e.record)
        for e, text in zip(examples, texts, strict=True)
    ]


def metrics_as_text(
    examples: Sequence[Example], judged: Sequence[Result], results: Sequence[Result]
) -> dict[str, float]:
    """Entity-F1 of the same texts without their tokens, entities compared by their characters.

    Args:
        examples: with gold tags.
        judged: results of `examples`, which say how tags are to be read.
        results: results of `without_tokens(examples, judged)`.
    """
    scheme, labels = _scheme(examples, judged)
    gold = []
    for example in examples:
        words = _raw_text(example)[1]
        found = spans(example.tags or (), scheme, labels)
        gold.append([(name, words[first][0], words[after - 1][1]) for name, first, after in found])
    said = [[(e.label, e.start, e.end) for e in r.entities] for r in results]
    return {"entity_f1_as_text": f1_micro(gold, said)}


def _raw_text(example: Example) -> tuple[str, list[tuple[int, int]]]:
    """The text of an example with tokens as it is written, and its words' places there."""
    text = ""
    words = []
    for begin, end in example.words:
        token = example.text[begin:end]
        if text and not (NO_SPACES.match(text[-1]) and NO_SPACES.match(token)):
            text += " "
        words.append((len(text), len(text) + len(token)))
        text += token
    return text, words


def _scheme(examples: Sequence[Example], results: Sequence[Result]) -> tuple[str, Sequence[str]]:
    """The scheme of the tags, and all labels: the model's, where the results tell them."""
    for result in results:
        if isinstance(result.tags, Tags):
            return result.tags.scheme, result.tags.labels
    tags: list[Sequence[str]] = [example.tags or () for example in examples]
    tags += [result.tags or () for result in results]
    labels = list(dict.fromkeys(tag for own in tags for tag in own))
    return scheme_of(labels), labels


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
    scheme, labels = _scheme(examples, results)
    if scheme == "plain":
        shown = [report.per_label([[g] for g in gold], [[s] for s in said])]
    else:
        shown = [_per_entity(*_entities(examples, results, scheme, labels))]
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


def _entities(
    examples: Sequence[Example], results: Sequence[Result], scheme: str, labels: Sequence[str]
) -> tuple[list[Any], list[Any]]:
    return (
        [spans(e.tags or (), scheme, labels) for e in examples],
        [spans(r.tags or (), scheme, labels) for r in results],
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
