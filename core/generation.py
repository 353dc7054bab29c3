"""What generated texts are, and how they are compared with references: ROUGE, BLEU, chrF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headway.core.errors import UnavailableError


@dataclass(frozen=True)
class Hypothesis:
    text: str
    score: float
    """sum of log probabilities, divided by length ** length_penalty where beams are searched"""
    tokens: list[int]
    """ids, prompt left out"""
    log_probabilities: list[float] = field(default_factory=list)
    """natural logarithm, of each token, as the settings changed it"""
    complete: bool = True
    """False where the text ends before it has the form of `regex` or `json_schema`, or all of `force_words_ids`"""


@dataclass(frozen=True)
class Result:
    text: str
    """of the best hypothesis"""
    score: float
    hypotheses: list[Hypothesis]
    truncated: bool = False
    """True if the source was longer than the model and its end was cut off"""


@dataclass(frozen=True)
class Scored:
    """How probable a model finds a given target."""

    score: float
    """sum of the log probabilities"""
    tokens: list[int]
    """of the target, end token included"""
    log_probabilities: list[float]
    """natural logarithm, of each token"""
    truncated: bool = False
    """True if the source was longer than the model and was cut"""


def compare(said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ROUGE-1, -2, -L (F, stemmed, best reference; rouge_score), corpus BLEU and chrF (sacrebleu), as shares."""
    try:
        import sacrebleu
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        remedy = "pip install 'headway[train]'"
        raise UnavailableError(f"'{error.name}', which compares texts,", remedy) from error
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score_multi(refs, text) for text, refs in zip(said, references, strict=True)]
    figures = {name: float(np.mean([s[name].fmeasure for s in scores])) for name in names}
    most = max(len(refs) for refs in references)
    columns: Any = [[refs[i] if i < len(refs) else None for refs in references] for i in range(most)]
    figures["bleu"] = sacrebleu.corpus_bleu(list(said), columns).score / 100
    figures["chrf"] = sacrebleu.corpus_chrf(list(said), columns).score / 100
    return figures


def likeness(said: str, references: Sequence[str]) -> float:
    """chrF of one text, as a share."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(said, list(references)).score / 100)
