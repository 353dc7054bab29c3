"""Tags in every notation and scheme, against seqeval."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import sequence_labeling as seqeval
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE2, Entities

from headway.core import tag_schemes
from headway.core.tag_schemes import first_violation, parse_labels, scheme_of, scheme_of_data, spans
from headway.core.tasks import Output, token_classification
from tests.task_examples import complaint, read, spec_of

Piece = tuple[str, int]
"""an entity's type, or O, and its count of words"""
pieces = st.lists(st.tuples(st.sampled_from(["O", "x", "y"]), st.integers(1, 3)), min_size=1, max_size=8)


def written(found: list[Piece], scheme: str) -> list[str]:
    """Tags of stretches of words, by the definition of each scheme."""
    tags = []
    for i, (name, count) in enumerate(found):
        before = found[i - 1][0] if i else "O"
        after = found[i + 1][0] if i + 1 < len(found) else "O"
        if name == "O":
            tags += ["O"] * count
            continue
        letters = ["I"] * count
        if scheme == "bio" or (scheme == "iob1" and before == name):
            letters[0] = "B"
        if scheme == "ioe2" or (scheme == "ioe1" and after == name):
            letters[-1] = "E"
        if scheme == "bioes":
            letters[0], letters[-1] = "B", "E" if count > 1 else "S"
        tags += [f"{letter}-{name}" for letter in letters]
    return tags


def of_seqeval(tags: list[str], scheme: str) -> list[Any]:
    """Its strict mode; its IOE1 does not know an entity of one word at the beginning, its default mode does."""
    if scheme == "ioe1":
        return [(name, first, last + 1) for name, first, last in seqeval.get_entities(tags)]
    return [(e.tag, e.start, e.end) for e in Entities([tags], SCHEMES[scheme]).entities[0]]


SCHEMES: dict[str, Any] = {"bio": IOB2, "iob1": IOB1, "ioe2": IOE2, "bioes": IOBES}
ALPHABETS = {"bio": "BI", "iob1": "BI", "ioe1": "IE", "ioe2": "IE", "bioes": "BIES"}


def labels_of(scheme: str) -> list[str]:
    return ["O", *(f"{letter}-{name}" for letter in ALPHABETS[scheme] for name in "xy")]


@pytest.mark.parametrize("scheme", ALPHABETS)
@given(found=pieces)
def test_entities_are_those_of_seqevals_scheme(scheme: str, found: list[Piece]) -> None:
    tags, labels = written(found, scheme), labels_of(scheme)
    expected = of_seqeval(tags, scheme)
    assert spans(tags, scheme, labels) == spans(tags, "lenient", labels) == expected
    assert first_violation(tags, scheme, labels) is None
    if scheme in ("bio", "bioes", "iob1"):
        rules = token_classification.grammar(tuple(labels), scheme)
        numbers = [labels.index(tag) for tag in tags]
        assert rules.begins[numbers[0]]
        assert rules.ends[numbers[-1]]
        assert all(rules.follows[a, b] for a, b in pairwise(numbers))


@pytest.mark.parametrize("scheme", ["bio", "iob1", "ioe1", "ioe2"])
@given(
    tags=st.lists(
        st.sampled_from(["O", *(f"{letter}-{name}" for letter in "BIE" for name in "xy")]), max_size=6
    )
)
def test_what_breaks_a_scheme_is_what_seqeval_leaves_out(scheme: str, tags: list[str]) -> None:
    """Its strict mode reads fewer entities than its default one, or others, exactly where a rule is broken."""
    tags = [tag for tag in tags if tag[0] in "O" + ALPHABETS[scheme]]
    strict = of_seqeval(tags, scheme)
    if first_violation(tags, scheme, labels_of(scheme)) is None:
        assert strict == spans(tags, scheme, labels_of(scheme))
    if scheme == "bio" and first_violation(tags, scheme, labels_of(scheme)) is not None:
        assert strict != spans(tags, scheme, labels_of(scheme))


LETTERS = {"BIES": "BIES", "BILU": "BIES", "BMES": "BIES", "BMEW": "BIES"}


@pytest.mark.parametrize("separator", ["-", "_", "/", ":", ".", "|"])
@pytest.mark.parametrize("suffix", [False, True])
@pytest.mark.parametrize("letters", ["BI", "BIES", "BILU", "BMES", "BMEW", "bi"])
def test_every_notation_is_read(letters: str, suffix: bool, separator: str) -> None:
    """As BIOES with a hyphen before the type is."""
    usual = LETTERS.get(letters, "BI")
    meanings = {}
    for letter, kind in zip(letters, usual, strict=True):
        for name in ("PER", "LOC-2"):
            label = f"{name}{separator}{letter}" if suffix else f"{letter}{separator}{name}"
            meanings[label] = (kind, name)
    assert parse_labels(("O", *meanings)) == {"O": ("", "")} | meanings
    assert scheme_of(["O", *meanings]) == ("bioes" if len(letters) == 4 else "bio")


def test_bilou_equals_seqeval() -> None:
    tags = ["B-PER", "I-PER", "L-PER", "O", "U-LOC", "U-LOC", "B-LOC", "L-LOC"]
    expected = [(e.tag, e.start, e.end) for e in Entities([tags], BILOU).entities[0]]
    assert spans(tags, "bioes") == expected == [("PER", 0, 3), ("LOC", 4, 5), ("LOC", 5, 6), ("LOC", 6, 8)]


@pytest.mark.parametrize(
    ("labels", "scheme", "meanings"),
    [
        ("O PER LOC", "io", {"PER": ("I", "PER"), "LOC": ("I", "LOC")}),
        ("O I-PER", "io", {"I-PER": ("I", "PER")}),
        ("O I-x E-x", "ioe2", {"E-x": ("E", "x")}),
        ("O B I", "bio", {"B": ("B", "_"), "I": ("I", "_")}),
        ("B M E S", "bioes", {"M": ("I", "_"), "S": ("S", "_")}),
        ("o b-per i-per", "bio", {"o": ("", ""), "b-per": ("B", "per")}),
        ("O B-PER I-PER X [CLS]", "bio", {"X": ("I", "X"), "[CLS]": ("I", "[CLS]")}),
        ("O B-PER I_PER", "bio", {"I_PER": ("I", "PER")}),
        ("O B_cell T_cell DNA", "io", {"B_cell": ("I", "B_cell")}),
        ("O e-mail url", "io", {"e-mail": ("I", "e-mail")}),
        ("O E-mail URL", "io", {"E-mail": ("I", "E-mail")}),
        ("LABEL_0 LABEL_1", "plain", None),
        ("NOUN VERB X", "plain", None),
        ("N-prop V-ind", "plain", None),
        ("O", "bio", {}),
    ],
)
def test_other_sets_of_labels(labels: str, scheme: str, meanings: dict[str, Any] | None) -> None:
    assert scheme_of(labels.split()) == scheme
    read_as = parse_labels(tuple(labels.split()))
    assert read_as is None if meanings is None else meanings.items() <= dict(read_as or {}).items()


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ("X-y O", "X-y"),
        ("O B-PER X-PER", "X-PER"),
        ("O B_PER I_PER X_PER", "X_PER"),
        ("O PER-B PER-I PER-Q", "PER-Q"),
    ],
)
def test_unknown_letters_are_named(labels: str, named: str) -> None:
    with pytest.raises(
        ValueError, match=f"label '{named}' has a letter for its place in an entity that is none of B"
    ):
        scheme_of(labels.split())


def test_problems_of_label_maps() -> None:
    assert tag_schemes.label_problem(["O", "B-first name"]) is None
    assert tag_schemes.label_problem(["O", ""]) == "label 1 is empty"
    assert tag_schemes.label_problem(["O", "x", "O"]) == "labels 0 and 2 are both 'O'"


def test_neighbours_of_one_type_are_joined_and_o_is_none() -> None:
    tags = ["PER", "PER", "O", "O", "LOC", "O"]
    assert spans(tags, "io", ["O", "PER", "LOC"]) == [("PER", 0, 2), ("LOC", 4, 5)]


@pytest.mark.parametrize("scheme", ["bio", "iob1", "ioe1", "ioe2", "bioes"])
@given(documents=st.lists(pieces, min_size=1, max_size=4))
def test_the_scheme_of_data(scheme: str, documents: list[list[Piece]]) -> None:
    """The one in which they are written, or one with which they agree as well."""
    data, labels = [written(d, scheme) for d in documents], labels_of(scheme)
    found = scheme_of_data(data, labels)
    assert all(first_violation(tags, found, labels) is None for tags in data)
    expected = {"iob1": {"bio", "iob1"}, "ioe1": {"ioe1", "ioe2"}}.get(scheme, {scheme})
    assert found in expected


@pytest.mark.parametrize(
    ("tags", "scheme", "problem"),
    [
        ("I-x O B-x", "iob1", "entry 2 is B-x after O; in IOB1 tags it parts neighbours of one type"),
        ("I-y B-x", "iob1", "entry 1 is B-x after I-y; in IOB1 tags it parts neighbours of one type"),
        ("I-x E-x O", "ioe1", "entry 1 is E-x before O; in IOE1 tags it parts neighbours of one type"),
        ("E-x I-x O", "ioe2", "entry 1 is I-x before O, but no x ends there"),
        ("O I-x", "bio", "entry 1 is I-x after O, not inside a x"),
    ],
)
def test_tags_that_break_a_scheme(tags: str, scheme: str, problem: str) -> None:
    example = read("token-classification", tokens=["w"] * len(tags.split()), tags=tags.split())
    spec = spec_of(token_classification, labels_of(scheme), scheme=scheme)
    expected = f"data.jsonl:7: field 'tags': {problem}"
    assert complaint(lambda: token_classification.check(example, spec)) == expected
    for other in ("lenient", "plain", "io"):
        token_classification.check(example, spec_of(token_classification, labels_of(scheme), scheme=other))


def test_an_unknown_tag_is_told_before_the_scheme() -> None:
    example = read("token-classification", tokens=["a"], tags=["Q"])
    spec = spec_of(token_classification, ["O", "B-x", "I-x"], scheme="iob1")
    assert "unknown tag 'Q'" in complaint(lambda: token_classification.check(example, spec))


@pytest.mark.parametrize("scheme", ["lenient", "iob1", "ioe1", "io"])
@given(seed=st.integers(0, 2**32 - 1))
def test_these_schemes_forbid_nothing(scheme: str, seed: int) -> None:
    """So the default call finds what the unconstrained one does."""
    labels = labels_of("ioe1" if scheme == "ioe1" else "iob1")
    scores = np.random.default_rng(seed).normal(size=(6, len(labels)))
    rules = token_classification.grammar(tuple(labels), scheme)
    np.testing.assert_array_equal(token_classification.best_tags(scores, rules), scores.argmax(-1))


def test_a_type_without_a_single_tag_may_begin_alone() -> None:
    """B, I, E without S: a word alone is a B-."""
    labels = ("O", "B-x", "I-x", "E-x", "B-y", "E-y", "S-y")
    rules = token_classification.grammar(labels, "bioes")
    assert rules.ends[labels.index("B-x")]
    assert not rules.ends[labels.index("I-x")]
    assert not rules.ends[labels.index("B-y")]


@pytest.mark.parametrize(
    "labels", [["O", "PER", "LOC"], ["O", "B_PER", "I_PER", "B_LOC", "I_LOC"], ["PER-B", "PER-I", "O"]]
)
@given(data=st.data())
def test_figures_equal_seqeval(labels: list[str], data: st.DataObject) -> None:
    """With its own notation of the same tags; predictions know the model's labels."""
    spec = spec_of(token_classification, labels, scheme="lenient")
    meanings = parse_labels(tuple(labels)) or {}
    usual = {label: "-".join(tag) if tag.kind else "O" for label, tag in meanings.items()}
    tags = st.lists(st.tuples(st.sampled_from(labels), st.sampled_from(labels)), min_size=1, max_size=8)
    documents = data.draw(st.lists(tags, min_size=1, max_size=4))
    examples, results = [], []
    for pairs in documents:
        examples.append(read("token-classification", tokens=["w"] * len(pairs), tags=[g for g, _ in pairs]))
        said = token_classification.Tags([s for _, s in pairs], spec)
        results.append(token_classification.Result([], said, [1.0] * len(pairs)))
    found = token_classification.metrics(examples, results)
    gold, said = ([[usual[pair[side]] for pair in pairs] for pairs in documents] for side in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty side, whose figures are 0
        wanted = seqeval.precision_recall_fscore_support(gold, said, average="micro")
    assert (found["precision"], found["recall"], found["entity_f1"]) == pytest.approx(wanted[:3])
    table = token_classification.tables(examples, results)[0]
    assert {row[0] for row in table.rows} <= {tag.type for tag in meanings.values() if tag.kind}


def test_tags_of_results_are_the_models_own() -> None:
    task: Any = token_classification
    spec = spec_of(task, ["O", "B_PER", "I_PER"], scheme="lenient")
    example = read("token-classification", tokens=["Anna", "Berg", "sings"], tags=["I_PER", "I_PER", "O"])
    marks = task.Marks([(0, 0), (1, 1), (2, 2)], [0, 1, 2])
    from headway.core.tasks import Row

    output = Output(Row(0, [0] * 3, [0] * 3, marks), np.array([[0, 0, 9], [0, 0, 9], [9, 0, 0]], np.float32))
    (result,) = task.decode([example], [output], spec)
    assert result.tags == ["I_PER", "I_PER", "O"]
    assert [(e.label, e.text) for e in result.entities] == [("PER", "Anna Berg")]
