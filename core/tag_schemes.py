"""Tags of entities: how labels are written, what they mean, and which sequences of them a scheme allows."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Scheme = Literal["bio", "iob1", "io", "ioe1", "ioe2", "bioes", "lenient", "plain"]
"""bio: also called IOB2; bioes: also BILOU, BMES, BMEWO, and with E- but without S- or B-. lenient: BIO or IOB1, or IOE1
or IOE2, it is not known which. io: every tag is inside, neighbours of one type are one entity. plain: each word has a tag
of its own."""

KINDS = dict(zip("BIMELSUWbimelsuw", "BIIEESSSBIIEESSS", strict=True))
"""begin, inside, end and single of all schemes, as those of BIOES: BILOU has L and U, BMES M, BMEWO M and W"""
SEPARATORS = "-_/:.|"
NO_TYPE = "_"
"""type of the tags B, I, O that name none, as in seqeval"""


class Tag(NamedTuple):
    """What a label means."""

    kind: str
    """B, I, E or S; empty for the outside tag"""
    type: str


OUTSIDE = Tag("", "")


def label_problem(labels: Sequence[str]) -> str | None:
    """What is wrong with the names of a model's labels, or None."""
    for place, label in enumerate(labels):
        if not label.strip():
            return f"label {place} is empty"
        if label in labels[:place]:
            return f"labels {labels.index(label)} and {place} are both '{label}'"
    return None


@functools.lru_cache(maxsize=64)
def parse_labels(labels: tuple[str, ...]) -> Mapping[str, Tag] | None:
    """What each label means, or None where they are plain tags, as parts of speech.

    One notation for all of them is sought: a letter of `KINDS` before or after a separator, or alone. Where it is found,
    a label without it is inside an entity of its own name, as the Transformers pipelines have it. Labels with an O and no
    letters at all are types (IO).

    Raises ValueError, naming a label whose letter is unknown.
    """
    names = tuple(label for label in labels if label != "O")
    has_outside = len(names) < len(labels)
    if not has_outside and "o" in names and _notation(tuple(n for n in names if n != "o"), True):
        names, has_outside = tuple(n for n in names if n != "o"), True
    outside = {label: OUTSIDE for label in labels if label not in names}
    if not names:
        return outside or None
    found = _notation(names, has_outside)
    if found is not None:
        return outside | found
    return outside | {name: Tag("I", name) for name in names} if has_outside else None


def _notation(names: tuple[str, ...], has_outside: bool) -> dict[str, Tag] | None:
    """Tags of the labels but the outside one, if they are written with letters for begin and inside."""
    alone = [KINDS.get(name, "") for name in names]
    if all(alone) and {"B", "I"} & {*alone} and (has_outside or {"B", "I"} <= {*alone}):
        return {name: Tag(kind, NO_TYPE) for name, kind in zip(names, alone, strict=True)}
    best: dict[str, Tag] = {}
    at_end = False
    for suffix in (False, True):
        for separator in SEPARATORS:
            known = _known(names, separator, suffix)
            usual = separator == "-" and not suffix
            if len(known) > len(best) and _is_convincing(known, names, has_outside, usual):
                best, at_end = known, suffix
    types = {tag.type for tag in best.values()}
    for name in names:
        for separator in SEPARATORS if name not in best else "":
            letter, kind_of = _split(name, separator, at_end)
            if kind_of in types and letter in KINDS:  # another separator than the others have
                best[name] = Tag(KINDS[letter], kind_of)
            elif kind_of in types or (letter and separator == "-" and best and not at_end):
                raise _unknown(name)
    if not best and has_outside and all(_split(name, "-", False)[0].isupper() for name in names):
        raise _unknown(names[0])
    return best | {name: Tag("I", name) for name in names if name not in best} if best else None


def _unknown(name: str) -> ValueError:
    letters = ", ".join(letter for letter in KINDS if letter.isupper())
    return ValueError(f"label '{name}' has a letter for its place in an entity that is none of {letters}")


def _split(name: str, separator: str, suffix: bool) -> tuple[str, str]:
    """The letter and the type; two empty texts if the label has no such parts."""
    letter, found, rest = name.rpartition(separator)[::-1] if suffix else name.partition(separator)
    is_letter = bool(found) and len(letter) == 1 and letter.isascii() and letter.isalpha()
    return (letter, rest or NO_TYPE) if is_letter else ("", "")


def _known(names: Sequence[str], separator: str, suffix: bool) -> dict[str, Tag]:
    """Those of the labels that have a known letter."""
    pairs = {name: _split(name, separator, suffix) for name in names}
    return {name: Tag(KINDS[letter], kind_of) for name, (letter, kind_of) in pairs.items() if letter in KINDS}


def _is_convincing(known: Mapping[str, Tag], names: Sequence[str], has_outside: bool, usual: bool) -> bool:
    """Whether labels that could be read as letter and type are likely to be meant so: B_cell and e-mail are types."""
    kinds: dict[str, set[str]] = {}
    for kind, kind_of in known.values():
        kinds.setdefault(kind_of, set()).add(kind)
    every = set().union(*kinds.values())
    if any(len(found) > 1 and found & {"B", "I"} for found in kinds.values()):
        return True  # one type with several letters
    if usual and all(name[0].isupper() for name in known):
        return len(known) == len(names) or bool(every & {"B", "I"})
    return len(known) == len(names) and has_outside and bool(every & {"B", "I", "S"})


def scheme_of(labels: Iterable[str]) -> Scheme:
    """The scheme that labels are written in. BIO and IOB1 have the same labels: bio; so have IOE2 and IOE1: ioe2.

    Raises ValueError, naming a label that cannot be read.
    """
    tags = parse_labels(tuple(dict.fromkeys(labels)))
    if tags is None:
        return "plain"
    kinds = {tag.kind for tag in tags.values()}
    if "S" in kinds or {"B", "E"} <= kinds:
        return "bioes"
    if "E" in kinds:
        return "ioe2"
    return "io" if "I" in kinds and "B" not in kinds else "bio"


def scheme_of_data(sequences: Sequence[Sequence[str]], labels: Sequence[str]) -> Scheme:
    """As `scheme_of`, and of BIO and IOB1, or IOE2 and IOE1, the first whose rules all the sequences keep to.

    Where they keep to neither, it is BIO or IOE2, whose `first_violation` says where. Raises ValueError.
    """
    scheme = scheme_of(labels)
    other: Scheme | None = {"bio": "iob1", "ioe2": "ioe1"}.get(scheme)  # type: ignore[assignment]
    if other is not None and any(first_violation(tags, scheme, labels) for tags in sequences):
        return scheme if any(first_violation(tags, other, labels) for tags in sequences) else other
    return scheme


def first_violation(tags: Sequence[str], scheme: str, labels: Sequence[str]) -> tuple[int, str] | None:
    """Place and description of the first tag that breaks the scheme's rules; None if there is none."""
    read = parse_labels(tuple(labels))
    if scheme in ("plain", "lenient", "io") or read is None:
        return None
    for place, tag in enumerate(tags):
        kind, name = read[tag]
        before = tags[place - 1] if place else "O"
        after = tags[place + 1] if place + 1 < len(tags) else "O"
        inside = continues(read.get(before, OUTSIDE), Tag("I", name))
        goes_on = continues(Tag("I", name), read.get(after, OUTSIDE))
        if scheme in ("bio", "bioes") and kind in {"I", "E"} and not inside:
            return place, f"is {tag} after {before}, not inside a {name}"
        if scheme == "iob1" and kind == "B" and not inside:
            return place, f"is {tag} after {before}; in IOB1 tags it parts neighbours of one type"
        if scheme == "ioe1" and kind == "E" and not goes_on:
            return place, f"is {tag} before {after}; in IOE1 tags it parts neighbours of one type"
        if scheme == "ioe2" and kind == "I" and not goes_on:
            return place, f"is {tag} before {after}, but no {name} ends there"
    return None


def continues(before: Tag, after: Tag) -> bool:
    """Whether the second continues the first one's entity."""
    return after.kind in {"I", "E"} and before.kind in {"B", "I"} and before.type == after.type


def inner_label(label: str, labels: Sequence[str], scheme: str) -> str | None:
    """The label of the further tokens of a word, where each is to have one; None if the scheme or the labels have none.

    With an E- or an S- the first token's label would depend on the count of tokens.
    """
    read = parse_labels(tuple(labels))
    if scheme == "plain" or read is None:
        return label
    meaning = read[label]
    if scheme not in ("bio", "iob1", "io") or meaning.kind != "B":
        return label if scheme in ("bio", "iob1", "io") else None
    return next((name for name, tag in read.items() if tag == Tag("I", meaning.type)), None)


def may_follow(before: Tag, after: Tag, tags: frozenset[Tag], scheme: str) -> bool:
    """Whether a tag may stand right after another.

    With bio and bioes no I- or E- without what it continues; with bioes and ioe2 no B- or I- without its E-. A type that
    has no B- tag may begin with any, one that has no E- may end with any, and one that has no S- may be a B- alone.
    In all other schemes every sequence has a meaning.
    """
    if continues(before, after):
        return True
    kind, name = before
    begun = Tag("B", after.type) in tags
    needs_before = scheme in ("bio", "bioes") and after.kind in {"I", "E"} and begun
    has_end, has_single = Tag("E", name) in tags, Tag("S", name) in tags
    ends = scheme in ("bioes", "ioe2") and has_end
    needs_after = ends and (kind == "I" or (kind == "B" and has_single))
    return not needs_before and not needs_after


def spans(
    tags: Sequence[str], scheme: str, labels: Sequence[str] | None = None
) -> list[tuple[str, int, int]]:
    """Entities (type, first word, word after the last), read as conlleval and seqeval do, whatever the scheme.

    An I- or E- that continues nothing begins an entity, as these two have it. Plain tags: each word is one. `labels` are
    all that the tags may be; none: those that occur.
    """
    read = (
        None if scheme == "plain" else parse_labels(tuple(dict.fromkeys(tags if labels is None else labels)))
    )
    if read is None:
        return [(tag, i, i + 1) for i, tag in enumerate(tags)]
    found: list[tuple[str, int, int]] = []
    before = OUTSIDE
    for i, tag in enumerate(tags):
        meaning = read.get(tag, OUTSIDE)
        if meaning != OUTSIDE:
            name, begin, _ = found.pop() if continues(before, meaning) else (meaning.type, i, i)
            found.append((name, begin, i + 1))
        before = meaning
    return found
