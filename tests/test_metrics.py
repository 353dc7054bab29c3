"""Every task's figures against the libraries that others compute them with, or against cases worked by hand."""

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sacrebleu
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from seqeval.metrics import sequence_labeling as seqeval
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, ndcg_score

from headway.core import figures, generation
from headway.core.data import Record
from headway.core.tasks import (
    question_answering,
    sentence_embedding,
    sequential_sentence_classification,
    text2text_generation,
    text_classification,
    text_generation,
    token_classification,
)
from tests.tolerance import TOLERANCE

CLOSE = TOLERANCE["float32"]
RECORD = Record({}, "data.jsonl", 1)
LABELS = ["a", "b", "c", "d", "é 漢"]
label = st.sampled_from(LABELS)
subset = st.lists(label, unique=True).map(lambda found: tuple(sorted(found)))
number = st.floats(-1e3, 1e3) | st.integers(-3, 3).map(float)  # the latter make ties


def classified(gold: list[str], said: list[str]) -> dict[str, float]:
    return text_classification.metrics(
        [text_classification.Example("text", None, g, None, RECORD) for g in gold],
        [text_classification.Result(s, 1.0, {}) for s in said],
    )


@given(st.lists(st.tuples(label, label), min_size=1, max_size=60))
def test_one_label_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    found = classified(gold, said)
    assert found.keys() == {"accuracy", "macro_f1"}
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
    micro = figures.f1_micro([[g] for g in gold], [[s] for s in said])
    assert micro == pytest.approx(f1_score(gold, said, average="micro"))


@given(st.lists(st.tuples(subset, subset), min_size=1, max_size=40))
def test_many_labels_equal_scikit_learn(pairs: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    found = text_classification.metrics(
        [text_classification.Example("text", None, g, None, RECORD) for g, _ in pairs],
        [text_classification.Labels(list(s), {}) for _, s in pairs],
    )
    assert found.keys() == {"micro_f1", "macro_f1"}
    gold, said = ([[c in pair[side] for c in LABELS] for pair in pairs] for side in (0, 1))
    given_or_said = np.any([gold, said], axis=(0, 1))
    if not given_or_said.any():
        assert found == {"micro_f1": 0.0, "macro_f1": 0.0}
        return
    for average in ("micro", "macro"):
        both = np.array(gold, dtype=int), np.array(said, dtype=int)
        expected = f1_score(*both, average=average, labels=np.flatnonzero(given_or_said), zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected)


@given(st.lists(st.tuples(st.lists(label, min_size=1, max_size=5), label), min_size=1, max_size=10))
def test_sentences_of_documents_equal_scikit_learn(documents: list[tuple[list[str], str]]) -> None:
    gold = [g for labels, _ in documents for g in labels]
    said = [s for labels, s in documents for _ in labels]
    task = sequential_sentence_classification
    found = task.metrics(
        [task.Example(("s",) * len(g), tuple(g), None, RECORD) for g, _ in documents],
        [task.Result([s] * len(g), [1.0] * len(g)) for g, s in documents],
    )
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))


@given(st.lists(st.tuples(number, number), min_size=2, max_size=50))
def test_correlations_equal_scipy(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    assume(np.std(a) > 1e-6 and np.std(b) > 1e-6)
    found = text_classification.metrics(
        [text_classification.Example("text", None, x, None, RECORD) for x in a],
        [text_classification.Score(y) for y in b],
    )
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(a, b).statistic, *CLOSE)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(a, b).statistic, *CLOSE)


@given(st.integers(-5, 5), st.lists(number, min_size=1, max_size=20))
def test_what_does_not_vary_has_no_correlation(same: int, others: list[float]) -> None:
    constant = [float(same)] * len(others)
    assert figures.pearson(constant, others) == figures.pearson(others, constant) == 0.0
    assert figures.spearman(constant, others) == figures.spearman(others, constant) == 0.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", [figures.pearson, figures.spearman])
def test_what_is_no_number_has_no_correlation(figure: Any, wrong: float) -> None:
    for said in ([1.0, wrong, 3.0], [2.0, 2.0, wrong]):
        assert math.isnan(figure([1.0, 2.0, 3.0], said))
        assert math.isnan(figure(said, [1.0, 1.0, 1.0]))


@given(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=30), st.integers(1, 12))
def test_ndcg_equals_scikit_learn(relevance: list[float], k: int) -> None:
    found = figures.ranking(relevance, [r for r in relevance if r > 0], k)
    falling = -np.arange(len(relevance))
    assert found[f"ndcg_at_{k}"] == pytest.approx(ndcg_score([relevance], [falling], k=k), *CLOSE)


@pytest.mark.parametrize(
    ("relevance", "ideal", "recall", "mrr", "ndcg"),
    [
        ([1, 0, 0], [1], 1, 1, 1),
        ([0, 1, 0], [1], 1, 1 / 2, 1 / math.log2(3)),
        ([0, 0, 1], [1, 1], 1 / 2, 1 / 3, (1 / 2) / (1 + 1 / math.log2(3))),
        ([0, 0, 0], [1], 0, 0, 0),
        ([0, 0, 0, 1], [1], 0, 0, 0),  # beyond k
        ([1, 2, 0], [2, 1], 1, 1, (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))),
        ([1, 1, 1], [1] * 4, 3 / 4, 1, 1),
        ([], [1], 0, 0, 0),
        ([], [], 0, 0, 0),
    ],
)
def test_ranking_counted_by_hand(
    relevance: list[float], ideal: list[float], recall: float, mrr: float, ndcg: float
) -> None:
    found = figures.ranking(relevance, ideal, 3)
    assert found == pytest.approx({"recall_at_3": recall, "mrr_at_3": mrr, "ndcg_at_3": ndcg})


def test_mean_of_figures() -> None:
    assert figures.mean([{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.0}]) == {"a": 0.5, "b": 0.0}


def tag(letters: str) -> st.SearchStrategy[str]:
    kinds = st.tuples(st.sampled_from(letters), st.sampled_from(["PER", "LOC", "X-Y"]))
    return st.just("O") | kinds.map("-".join)


def tagged(letters: str) -> st.SearchStrategy[list[str]]:
    return st.lists(tag(letters), max_size=15)


@pytest.mark.parametrize(("letters", "scheme"), [("BI", "bio"), ("BIES", "bioes")])
@given(data=st.data())
def test_spans_equal_seqeval(letters: str, scheme: str, data: st.DataObject) -> None:
    tags = data.draw(tagged(letters))
    expected = [(name, first, last + 1) for name, first, last in seqeval.get_entities(tags)]
    assert token_classification.spans(tags, scheme) == expected


@given(st.lists(st.sampled_from(["NOUN", "VERB", "O", "B-x"])))
def test_each_plain_tag_is_a_span(tags: list[str]) -> None:
    assert token_classification.spans(tags, "plain") == [(t, i, i + 1) for i, t in enumerate(tags)]


def token_figures(pairs: list[tuple[list[str], list[str]]]) -> dict[str, float]:
    task = token_classification
    examples, results = [], []
    for gold, said in pairs:
        words = tuple((2 * i, 2 * i + 1) for i in range(len(gold)))
        examples.append(task.Example(" ".join("x" * len(gold)), words, True, tuple(gold), None, RECORD))
        results.append(task.Result([], said, [1.0] * len(said)))
    return task.metrics(examples, results)


@pytest.mark.parametrize("letters", ["BI", "BIES"])
@given(data=st.data())
def test_entity_figures_equal_seqeval(letters: str, data: st.DataObject) -> None:
    both = st.lists(st.tuples(tag(letters), tag(letters)), min_size=1, max_size=12)
    documents = data.draw(st.lists(both, min_size=1, max_size=6))
    gold, said = ([[pair[side] for pair in d] for d in documents] for side in (0, 1))
    assume(any(t != "O" for d in [*gold, *said] for t in d))
    found = token_figures(list(zip(gold, said, strict=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty side, whose figures are 0
        precision, recall, f1, _ = seqeval.precision_recall_fscore_support(gold, said, average="micro")
    assert found["entity_f1"] == pytest.approx(f1)
    assert (found["precision"], found["recall"]) == pytest.approx((precision, recall))
    assert found["token_accuracy"] == pytest.approx(seqeval.accuracy_score(gold, said))


@given(st.lists(st.tuples(label, label), min_size=1, max_size=30))
def test_plain_tags_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    found = token_figures([(gold, said)])
    assert found.keys() == {"token_accuracy", "macro_f1"}
    assert found["token_accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat", "cat"),
        ("a the an", ""),
        ("  two \t words\n", "two words"),
        ("U.S.A.", "usa"),
        ("the-end", "theend"),  # punctuation goes first, so that this is no article
        ("another theme", "another theme"),
        ("$5,000 (est.)", "5000 est"),
        ("“café”", "“café”"),  # only ASCII punctuation, as in SQuAD's script
        ("...", ""),
        ("", ""),
    ],
)
def test_squad_normalisation(text: str, expected: str) -> None:
    assert question_answering.normalized(text) == expected


@pytest.mark.parametrize(
    ("golds", "said", "exact", "f1"),
    [
        (["Paris"], "Paris", 1, 1),
        (["Paris"], "the paris.", 1, 1),
        (["Paris"], "London", 0, 0),
        (["Paris"], "", 0, 0),
        ([], "", 1, 1),
        ([], "Paris", 0, 0),
        ([], "the", 1, 1),  # nothing is left of it
        (["the"], "", 1, 1),  # nor of this gold answer
        (["the", "Paris"], "", 0, 0),  # gold answers of which nothing is left count only where no other is
        (["red apple pie"], "apple pie", 0, 2 * 2 / 5),
        (["apple"], "apple apple", 0, 2 * 1 / 3),  # counted as often as in both
        (["apple apple"], "apple apple", 1, 1),
        (["green pear", "red apple", "red apple pie"], "apple", 0, 2 * 1 / 3),  # the best of several
        (["green pear", "pear"], "a pear", 1, 1),
    ],
)
def test_squad_figures(golds: list[str], said: str, exact: float, f1: float) -> None:
    answers = tuple((g, 0) for g in golds)
    example = question_answering.Example("q", "c", answers, None, RECORD)
    result = question_answering.Result(said, 0, len(said), 1.0, [])
    expected = pytest.approx({"exact_match": exact, "f1": f1})
    assert question_answering.metrics([example], [result]) == expected
    _, right = question_answering.certainty([example], [result])
    assert right.tolist() == [bool(exact)]


def test_squad_figures_of_answerable_and_other_questions() -> None:
    golds, said = ["x y", "x", None, None, None], ["x", "", "", "x", "y"]
    found = question_answering.metrics(
        [
            question_answering.Example("q", "c", ((g, 0),) if g is not None else (), None, RECORD)
            for g in golds
        ],
        [question_answering.Result(s, 0, len(s), 1.0, []) for s in said],
    )
    assert found == pytest.approx(
        {
            "exact_match": 1 / 5,
            "f1": (2 / 3 + 0 + 1) / 5,
            "exact_match_answerable": 0,
            "f1_answerable": (2 / 3) / 2,
            "no_answer_accuracy": 1 / 3,
        }
    )


words = st.sampled_from(["the", "cat", "cats", "sat", "on", "a", "mat", "runs", "running", "ü", "."])
sentences = st.lists(words, max_size=12).map(" ".join)


def text2text_figures(said: list[str], references: list[list[str]]) -> dict[str, float]:
    task = text2text_generation
    return task.metrics(
        [task.Example("source", tuple(r), None, RECORD) for r in references],
        [generation.Result(s, 0.0, []) for s in said],
    )


@settings(max_examples=50)
@given(st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_bleu_and_chrf_equal_sacrebleu(pairs: list[tuple[str, list[str]]]) -> None:
    """A reference given twice changes nothing, so that all can have three for sacrebleu."""
    said = [s for s, _ in pairs]
    columns = [[(refs * 3)[i] for _, refs in pairs] for i in range(3)]
    found = text2text_figures(said, [refs for _, refs in pairs])
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, columns).score / 100)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, columns).score / 100)


@settings(max_examples=50)
@given(st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_rouge_l_equals_rouge_score(pairs: list[tuple[str, list[str]]]) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    expected = np.mean([scorer.score_multi(refs, s)["rougeL"].fmeasure for s, refs in pairs])
    found = text2text_figures([s for s, _ in pairs], [refs for _, refs in pairs])
    assert found["rougeL"] == pytest.approx(expected)


@settings(max_examples=50)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6))
def test_rouge_of_one_reference_equals_rouge_score(pairs: list[tuple[str, str]]) -> None:
    scorer = RougeScorer(["rouge1", "rouge2"], use_stemmer=True)
    found = text2text_figures([s for s, _ in pairs], [[r] for _, r in pairs])
    for name in ("rouge1", "rouge2"):
        expected = np.mean([scorer.score(r, s)[name].fmeasure for s, r in pairs])
        assert found[name] == pytest.approx(expected)


def test_a_right_text_is_all_right() -> None:
    found = text2text_figures(["the cat sat on a mat"], [["no", "the cat sat on a mat"]])
    assert found == pytest.approx(dict.fromkeys(["rouge1", "rouge2", "rougeL", "bleu", "chrf"], 1.0))
    assert generation.likeness("abc", ["no", "abc"]) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9))
def test_perplexity(texts: list[tuple[float, int, int]]) -> None:
    """Of all tokens together, not the mean of the texts' perplexities."""
    task = text_generation
    examples = [task.Example("", "text", None, RECORD)] * len(texts)
    found = task.metrics(examples, [task.Result(*t) for t in texts])
    loss = math.fsum(t[0] for t in texts)
    assert found["perplexity"] == pytest.approx(math.exp(loss / sum(t[1] for t in texts)))
    assert found["word_perplexity"] == pytest.approx(math.exp(loss / sum(t[2] for t in texts)))


def test_perplexity_of_a_uniform_model() -> None:
    task = text_generation
    found = task.metrics(
        [task.Example("", "text", None, RECORD)] * 2,
        [task.Result(3 * math.log(50), 3, 1), task.Result(5 * math.log(50), 5, 1)],
    )
    assert found["perplexity"] == pytest.approx(50)


def test_perplexity_stays_finite() -> None:
    task = text_generation
    found = task.metrics([task.Example("", "text", None, RECORD)], [task.Result(1e6, 1, 0)])
    assert math.isfinite(found["perplexity"])
    assert math.isfinite(found["word_perplexity"])


def compared(similarities: list[list[float]]) -> list[sentence_embedding.Compared]:
    return [sentence_embedding.Compared([], s) for s in similarities]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(-1, 1)), min_size=1, max_size=40, unique_by=lambda p: p[1])
)
def test_average_precision_equals_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    task = sentence_embedding
    found = task.metrics(
        [task.Example(("a", "b"), "label", str(int(g)), None, RECORD) for g in gold],
        compared([[s] for s in said]),
    )
    expected = average_precision_score(gold, said) if any(gold) else 0.0
    assert found == {"average_precision": pytest.approx(expected)}


@given(st.lists(st.tuples(number, st.floats(-1, 1)), min_size=2, max_size=30))
def test_similarities_correlate_with_scores_as_in_scipy(pairs: list[tuple[float, float]]) -> None:
    gold, said = [g for g, _ in pairs], [s for _, s in pairs]
    assume(np.std(gold) > 1e-6 and np.std(said) > 1e-6)
    task = sentence_embedding
    examples = [task.Example(("a", "b"), "score", g, None, RECORD) for g in gold]
    found = task.metrics(examples, compared([[s] for s in said]))
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(gold, said).statistic, *CLOSE)
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(gold, said).statistic, *CLOSE)


def test_triplet_accuracy() -> None:
    """Of anchors nearer to the positive than to the negative; as near is not nearer."""
    task = sentence_embedding
    examples = [task.Example(("a", "b", "c"), "triplet", None, None, RECORD)] * 4
    found = task.metrics(examples, compared([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [-0.1, -0.2]]))
    assert found == {"triplet_accuracy": 0.5}


@pytest.mark.parametrize("form", ["pair", "collection"])
@given(data=st.data())
@settings(max_examples=30)
def test_retrieval_by_vectors_counted_by_hand(form: str, data: st.DataObject) -> None:
    seed, n = data.draw(st.integers(0, 2**31)), data.draw(st.integers(1, 15))
    queries, documents = np.random.default_rng(seed).normal(size=(2, n, 4))
    task = sentence_embedding
    if form == "pair":
        examples = [task.Example((f"q{i}", f"d{i}"), "pair", None, None, RECORD) for i in range(n)]
        results = [
            task.Compared([q.tolist(), d.tolist()], [0.0]) for q, d in zip(queries, documents, strict=True)
        ]
    else:
        examples = [task.Example((f"d{i}",), "document", None, f"d{i}", RECORD) for i in range(n)]
        examples += [
            task.Example((f"q{i}",), "query", None, f"q{i}", RECORD, {f"d{i}": 1.0}) for i in range(n)
        ]
        results = [task.Result(v.tolist()) for v in (*documents, *queries)]
    ranks = []
    for i, query in enumerate(queries):
        cosine = [float(d @ query / np.linalg.norm(d) / np.linalg.norm(query)) for d in documents]
        ranks.append(1 + sum(c > cosine[i] for c in cosine))
    found = task.metrics(examples, results)
    assert found["mrr_at_10"] == pytest.approx(np.mean([1 / r if r <= 10 else 0 for r in ranks]))
    assert found["recall_at_10"] == pytest.approx(np.mean([r <= 10 for r in ranks]))
    assert found["ndcg_at_10"] == pytest.approx(
        np.mean([1 / math.log2(1 + r) if r <= 10 else 0 for r in ranks])
    )


def test_spans_are_in_order_and_apart() -> None:
    tags = ["B-x", "I-x", "I-y", "O", "E-y", "S-x", "S-x"]
    found = token_classification.spans(tags, "bioes")
    assert [t for t, _, _ in found] == ["x", "y", "y", "x", "x"]
    assert all(end <= begin for (_, _, end), (_, begin, _) in pairwise(found))
