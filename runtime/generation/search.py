"""The search for the next tokens of a batch: the graphs' logits go through the kernel, its choices to the graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

import numpy as np
from numpy.typing import NDArray

from headway.core.errors import InputError
from headway.core.generation import Hypothesis
from headway.core.search import Search
from headway.runtime.generation.base import Floats, Found, Ints, Writer
from headway.runtime.generation.batch import Batch, prompts
from headway.runtime.generation.lexicon import Lexicon

MANY = 2
"""sources for each thread, at least, that make it worth a part of its own"""


def search(
    engine: Writer,
    sources: Sequence[Sequence[int]],
    settings: Search,
    decode: Callable[[list[int]], str],
    lexicon: Lexicon | None = None,
) -> list[list[Hypothesis]]:
    """The best continuations of each prompt, or texts for each source, best first.

    Of many sources each thread of the engine takes a part, which is faster than all of them on one batch.

    Args:
        sources: tokens of each; an encoder-decoder's for its encoder.
        decode: makes the text of a hypothesis' tokens.
        lexicon: of the model's tokenizer, for settings that are about texts.
    Raises:
        UsageError: a setting that does not fit the model.
        UnavailableError: a form is asked for, and llguidance is not there.
        InputError: a source without tokens, a prompt that leaves no room, or a source after which the model's scores
            are not finite numbers.
    """
    begun = prompts(engine, sources, settings)
    if begun and (whole := engine.search(sources, settings, begun)) is not None:
        return [[_hypothesis(one, decode) for one in every] for every in whole]
    stopped = Event()

    def write(part: Sequence[int]) -> list[list[Hypothesis]]:
        batch = Batch(engine if len(parts) == 1 else engine.on_one_thread, lexicon)
        keys = batch.add([sources[i] for i in part], settings)
        while len(batch) and not stopped.is_set():
            try:
                batch.step()
            except InputError as error:
                raise InputError(part[keys.index(error.index)], error.problem) from error
        return [batch.found(key, decode) for key in keys]

    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    shares = engine.threads if len(sources) >= MANY * engine.threads else 1
    parts = [order[share::shares] for share in range(shares)]
    written = engine.workers.map(write, parts) if shares > 1 else map(write, parts)
    found: list[list[Hypothesis]] = [[] for _ in sources]
    try:
        for part, own in zip(parts, written, strict=True):
            for i, hypotheses in zip(part, own, strict=True):
                found[i] = hypotheses
    finally:
        stopped.set()  # after an error, or Ctrl-C, nobody waits for the other parts
    return found


def _hypothesis(found: Found, decode: Callable[[list[int]], str]) -> Hypothesis:
    tokens, score, logs = found
    return Hypothesis(decode(tokens), score, tokens, logs)


def score(
    engine: Writer, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], start: int
) -> list[list[float]]:
    """Log probability of each token of a target, given its source and the target's tokens before it.

    Args:
        sources: tokens of each; an encoder-decoder's for its encoder.
        targets: tokens of each, at least one.
        start: the token that a decoder behind an encoder begins with.
    """
    ids = np.zeros((len(targets), max(map(len, targets))), np.int64)
    for row, target in zip(ids, targets, strict=True):
        row[: len(target)] = target
    found = np.empty(ids.shape)
    at = 0
    for logits in engine.before(sources, targets, start):
        columns = slice(at, at + logits.shape[1])
        found[:, columns] = log_probabilities(logits, ids[:, columns])
        at = columns.stop
    return [row[: len(target)].tolist() for row, target in zip(found, targets, strict=True)]


def log_probabilities(logits: Floats, chosen: Ints) -> NDArray[np.float64]:
    """Of tokens (…) by logits (…, V)."""
    most = logits.max(axis=-1, keepdims=True)
    whole = np.log(np.exp(logits - most).sum(axis=-1, dtype=np.float64))
    own = np.take_along_axis(logits - most, chosen[..., None], axis=-1)[..., 0]
    found: NDArray[np.float64] = own - whole
    return found
