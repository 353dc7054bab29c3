"""Sources that are longer than the model: read in parts, which end with sentences, whose texts are joined."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from headway.core import windows
from headway.core.errors import InputError, UsageError
from headway.core.generation import Hypothesis, Result

LongSources = Literal["cut", "refuse", "join", "combine"]
"""what is read of a source that is longer than the model: its beginning; nothing (an InputError); all of it, in parts
whose texts are joined; or the same, and the joined texts as a source again until they fit (map and combine)"""
SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’)\]]*\s+|[。！？]\s*|\n\s*|\Z)", re.DOTALL)
"""a sentence with the white space behind it"""


def check(way: str) -> None:
    """Raises UsageError."""
    if way not in get_args(LongSources):
        raise UsageError("long_sources", f"must be one of {', '.join(get_args(LongSources))}, not '{way}'")


def parts(text: str, tokenizer: Any, room: int) -> list[str]:
    """The text in parts of at most about `room` tokens; sentences, and parts of longer ones, stay whole.

    White space around a part is left out, and so is a part that has nothing else.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    if len(offsets) <= room:
        return [text]
    ends = [end for _, end in offsets]
    cuts, count = [0], [0]  # characters, and tokens before them
    for sentence in SENTENCE.finditer(text):
        last = bisect_right(ends, sentence.end())
        if last < len(offsets) and offsets[last][0] < sentence.end():
            continue  # in the middle of a token
        for token in range(count[-1] + room, last, room):
            cuts.append(ends[token - 1])
            count.append(token)
        cuts.append(sentence.end())
        count.append(last)
    lengths = [b - a for a, b in pairwise(count)]
    found = [text[cuts[a] : cuts[b]].strip() for a, b in windows.cut(lengths, room, overlap=0.0)]
    return [part for part in found if part]


def read(
    texts: Sequence[str],
    way: LongSources,
    split: Callable[[str], list[str]],
    write: Callable[[list[str]], list[Result]],
) -> list[Result]:
    """What the model writes of all of each text.

    Args:
        split: a text in parts that the model can read.
        write: what it writes of each part.
    Raises InputError, with the place of the text, for a part that cannot be read.
    """
    split_up = [split(text) for text in texts]
    try:
        written = iter(write([part for own in split_up for part in own]))
    except InputError as error:
        owners = [i for i, own in enumerate(split_up) for _ in own]
        raise InputError(owners[error.index], error.problem) from error
    found = [_joined([next(written) for _ in own]) for own in split_up]
    again = [i for i, own in enumerate(split_up) if len(own) > 1 and 0 < len(found[i].text) < len(texts[i])]
    if way == "combine" and again:
        try:
            combined = read([found[i].text for i in again], way, split, write)
        except InputError as error:
            raise InputError(again[error.index], error.problem) from error
        for i, result in zip(again, combined, strict=True):
            found[i] = result
    return found


def _joined(results: list[Result]) -> Result:
    """Their texts, one after another, with their mean score."""
    if len(results) == 1:
        return results[0]
    text = " ".join(result.text.strip() for result in results if result.text.strip())
    score = float(np.mean([result.score for result in results]))
    best = [hypothesis for result in results for hypothesis in result.hypotheses[:1]]
    tokens = [token for hypothesis in best for token in hypothesis.tokens]
    logs = [log for hypothesis in best for log in hypothesis.log_probabilities]
    whole = Hypothesis(text, score, tokens, logs, all(hypothesis.complete for hypothesis in best))
    return Result(text, score, [whole], any(result.truncated for result in results))
