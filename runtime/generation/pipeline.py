"""The four steps for a model that writes: tokenize, plan, search, decode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from headway.core.data import text_problem
from headway.core.errors import InputError
from headway.core.generation import Hypothesis, Result
from headway.core.manifest import Bundle
from headway.core.search import Search
from headway.core.tasks import Example, Spec, Task, encode, text_generation
from headway.core.tasks import Result as AnyResult
from headway.runtime.generation.engine import Engine
from headway.runtime.generation.plain import search
from headway.runtime.generation.rules import log_softmax
from headway.runtime.pipeline import WINDOW, Pipeline
from headway.runtime.plan import BATCH_TOKENS, plan


class GenerationPipeline(Pipeline):
    """For texts token by token. Its calls take the settings of `headway.core.search.Search`, as num_beams=4."""

    def __init__(
        self,
        manifest: Bundle,
        precision: str,
        task: Task,
        spec: Spec,
        tokenizer: Any,
        engine: Engine,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        super().__init__(manifest, precision, task, spec, tokenizer)
        self._engine, self._batch_tokens = engine, batch_tokens
        own = {n: getattr(spec.settings, n, None) for n in ("max_new_tokens", "num_beams")}
        self.search = (
            Search()
            .changed(**manifest.search)
            .changed(**{name: value for name, value in own.items() if value is not None})
        )

    def predict(self, examples: Sequence[Example], **settings: Any) -> list[AnyResult]:
        """Texts of the examples' sources. Raises UsageError for a setting that does not fit."""
        chosen = self.search.changed(**settings)
        sources, cut = self.sources(examples, chosen)
        results: list[Any] = [None] * len(sources)
        lengths = np.array([len(ids) for ids in sources]) + (chosen.max_new_tokens or 0)
        for batch in plan(lengths, max(1, self._batch_tokens // chosen.num_beams)) if sources else []:
            found = search(self._engine, [sources[i] for i in batch], chosen, self._text)
            for i, hypotheses in zip(batch.tolist(), found, strict=True):
                best = hypotheses[0] if hypotheses else Hypothesis("", float("-inf"), [])
                results[i] = Result(best.text, best.score, hypotheses, cut[i])
        return results

    def sources(self, examples: Sequence[Any], chosen: Search) -> tuple[list[list[int]], list[bool]]:
        """Tokens of each source, and whether it was cut: an encoder's at its end, a prompt at its beginning."""
        for place, example in enumerate(examples):
            if problem := text_problem(_source(example)):
                raise InputError(place, problem)
        texts = [_source(example) for example in examples]
        longest = self.spec.max_length
        if not texts:
            return [], []
        with self._tokenizing:
            if self._engine.with_encoder:
                encodings = list(encode(self._tokenizer, texts, longest, offsets=False))
                return [e.ids for e in encodings], [bool(e.overflowing) for e in encodings]
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            special = bool(self.spec.settings.special_tokens)
            every = [e.ids for e in self._tokenizer.encode_batch(texts, add_special_tokens=special)]
        room = max(1, longest - min(chosen.max_new_tokens or 0, longest // 2))
        return [ids[-room:] for ids in every], [len(ids) > room for ids in every]

    def judge(self, examples: Iterable[Example]) -> Iterator[AnyResult]:
        """Of a decoder alone how probable it finds the texts; else the texts it writes."""
        if self._engine.with_encoder:
            yield from self.each(examples)
            return
        source = iter(examples)
        while window := list(islice(source, WINDOW)):
            yield from self._probabilities(window)

    def _probabilities(self, examples: Sequence[Any]) -> list[text_generation.Result]:
        end = next(iter(self.search.eos_token_id), None)
        with self._tokenizing:
            rows, cut = text_generation.rows(examples, self._tokenizer, self.spec, end)
        losses = [0.0] * len(rows)
        lengths = np.array([len(row.ids) for row in rows])
        for batch in plan(lengths, self._batch_tokens) if rows else []:
            for i, logits in zip(batch, self._engine.logits([rows[i].ids for i in batch]), strict=True):
                judged = np.arange(max(1, len(rows[i].ids) - rows[i].marks), len(rows[i].ids))
                chances = log_softmax(logits[judged - 1])
                losses[i] = -float(chances[np.arange(len(judged)), np.array(rows[i].ids)[judged]].sum())
        return text_generation.results(examples, rows, losses, cut)

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


def _source(example: Any) -> str:
    """What is given: the source, or a plain text that shall go on."""
    return str(example.source or example.target)
