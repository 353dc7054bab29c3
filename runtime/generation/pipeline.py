"""The four steps for a model that writes: tokenize, plan, search, decode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, cast

import numpy as np

from headway.core import tasks
from headway.core.data import text_problem
from headway.core.errors import InputError, UsageError
from headway.core.generation import Hypothesis, Result, Scored
from headway.core.manifest import Bundle
from headway.core.search import NEW_TOKENS, Search
from headway.core.tasks import Example, Spec, Task, encode, text_generation
from headway.core.tasks import Result as AnyResult
from headway.runtime.generation import windows
from headway.runtime.generation.base import Writer
from headway.runtime.generation.batch import Batch
from headway.runtime.generation.choices import NOT_NUMBERS
from headway.runtime.generation.lexicon import Lexicon
from headway.runtime.generation.search import log_probabilities, score, search
from headway.runtime.generation.texts import Texts
from headway.runtime.generation.windows import LongSources
from headway.runtime.pipeline import WINDOW, Following, Input, Pipeline
from headway.runtime.plan import BATCH_TOKENS
from headway.runtime.plan import plan as batches_of

TOKENS_IN_WORD = 4
"""that are looked ahead for each word of a suggestion"""
SPARE = 2
"""tokens by which a part of a text may be longer alone than in the whole"""
LOGITS = 1 << 24
"""numbers in the logits of a batch of targets, at most"""


class GenerationPipeline(Pipeline):
    """For texts token by token. Its calls take the settings of `headway.core.search.Search`, as num_beams=4."""

    def __init__(
        self,
        manifest: Bundle,
        precision: str,
        task: Task,
        spec: Spec,
        tokenizer: Any,
        engine: Writer,
        batch_tokens: int = BATCH_TOKENS,
        following: Following | None = None,
    ) -> None:
        super().__init__(manifest, precision, task, spec, tokenizer, following)
        self._engine, self.batch_tokens = engine, batch_tokens
        self._lexicon = Lexicon(tokenizer, engine.vocabulary)
        own = {n: getattr(spec.settings, n, None) for n in ("max_new_tokens", "num_beams")}
        self.search = (
            Search()
            .changed(**manifest.search)
            .changed(**{name: value for name, value in own.items() if value is not None})
        )

    def predict(
        self, examples: Sequence[Example], long_sources: LongSources = "cut", **settings: Any
    ) -> list[AnyResult]:
        """Texts of the examples' sources. Raises UsageError for a setting that does not fit.

        `long_sources`: what is read of a source that is longer than the model, see `generation.windows`.
        """
        chosen = self.search.changed(**settings)
        windows.check(long_sources)
        if long_sources in ("cut", "refuse"):
            return list(self._write(examples, chosen, refuse=long_sources == "refuse"))
        if not self._engine.with_encoder:
            raise UsageError("long_sources", "is for encoder-decoders; of a prompt the end is read")
        texts = _sources(examples)
        found = windows.read(
            texts, long_sources, self._parts, lambda parts: self._write(self._read(parts), chosen)
        )
        return list(found)

    def _read(self, texts: Sequence[str]) -> list[Example]:
        return [tasks.read_input(self.task, {"source": text}, i) for i, text in enumerate(texts)]

    def _parts(self, text: str) -> list[str]:
        with self._tokenizing:
            special = len(self._tokenizer.encode("").ids)
            return windows.parts(text, self._tokenizer, max(1, self.spec.max_length - special - SPARE))

    def _write(self, examples: Sequence[Example], chosen: Search, refuse: bool = False) -> list[Result]:
        sources, cut = self.sources(examples, chosen)
        if refuse and True in cut:
            raise InputError(
                cut.index(True), f"is longer than the model, which reads {self.spec.max_length} tokens"
            )
        results: list[Any] = [None] * len(sources)
        new = chosen.max_new_tokens or chosen.max_length or NEW_TOKENS
        lengths = np.array([len(ids) for ids in sources]) + new
        rows = max(chosen.num_beams, chosen.num_return_sequences)
        for batch in batches_of(lengths, max(1, self.batch_tokens // rows)) if sources else []:
            try:
                found = search(self._engine, [sources[i] for i in batch], chosen, self._text, self._lexicon)
            except InputError as error:
                raise InputError(int(batch[error.index]), error.problem) from error
            for i, hypotheses in zip(batch.tolist(), found, strict=True):
                best = hypotheses[0] if hypotheses else Hypothesis("", float("-inf"), [])
                results[i] = Result(best.text, best.score, hypotheses, cut[i])
        return results

    def write(self, given: str | Mapping[str, Any], **settings: Any) -> Iterator[str]:
        """The text of one source, piece by piece, as soon as nothing can change a piece any more, also with beams.

        To stop, close the iterator. Settings and errors are those of a call.
        """
        batch = self.batch()
        key = batch.add(given, **settings)
        while len(batch):
            batch.step()
            if piece := batch.piece(key):
                yield piece

    def complete(
        self, text: str, k: int = 5, words: int = 1, max_time: float | None = None
    ) -> list[Hypothesis]:
        """The k most probable next words after a text, or so many together, best first; scores are sums of logs.

        Beams are followed for a few tokens; `max_time`: seconds after which what they have come to is told.
        Raises UsageError.
        """
        if self._engine.with_encoder:
            raise UsageError("complete", "is for decoders alone; an encoder-decoder answers a source")
        for name, value in (("k", k), ("words", words)):
            if value < 1:
                raise UsageError(name, f"must be at least 1, not {value}")
        beams, tokens = 2 * k, TOKENS_IN_WORD * words
        found = cast(
            Result,
            self(
                text,
                num_beams=beams,
                num_return_sequences=beams,
                early_stopping=False,
                max_new_tokens=tokens,
                max_time=max_time,
            ),
        )
        best: dict[str, Hypothesis] = {}
        for whole in found.hypotheses:
            cut = self._first_words(whole, words)
            if cut.text.strip() and (cut.text not in best or cut.score > best[cut.text].score):
                best[cut.text] = cut
        return sorted(best.values(), key=lambda hypothesis: -hypothesis.score)[:k]

    def _first_words(self, whole: Hypothesis, words: int) -> Hypothesis:
        """As many of its tokens as it takes to tell its first words."""
        told = re.match(rf"(?:\s*\S+){{1,{words}}}", whole.text)
        text = told[0] if told else ""
        count = next(n for n in range(len(whole.tokens) + 1) if self._text(whole.tokens[:n]).startswith(text))
        logs = whole.log_probabilities[:count]
        return Hypothesis(text, sum(logs), whole.tokens[:count], logs)

    def batch(self) -> Texts:
        """Texts that enter one by one and are written together, for one thread; there may be several."""
        batch = Batch(self._engine, self._lexicon)
        return Texts(batch, self._read_one, self._text, self._byte_tokens, self._skipped_tokens)

    @cached_property
    def _byte_tokens(self) -> frozenset[int]:
        """Tokens of one byte each, as Llama's tokenizer has them beside its words."""
        found = (self._tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return frozenset(token for token in found if token is not None)

    @cached_property
    def _skipped_tokens(self) -> frozenset[int]:
        """Tokens that are left out of texts."""
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token for token, kind in added.items() if kind.special)

    def _read_one(self, given: Input, settings: Mapping[str, Any]) -> tuple[list[int], bool, Search]:
        chosen = self.search.changed(**settings)
        ((source,), (cut,)) = self.sources([tasks.read_input(self.task, given, 0)], chosen)
        return source, cut, chosen

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """How probable the model finds each target after its source.

        A target is read whole; before it, of a prompt that does not fit, the end.

        Raises InputError, naming the place, for a target that the model does not have positions for, and for one that
        it has no finite scores for; UsageError for a model whose targets have another tokenizer than its sources.
        """
        if getattr(self.spec.settings, "separate_targets", False):
            raise UsageError(
                "score", "needs the tokenizer of targets, which this model has apart (target.spm)"
            )
        examples = [tasks.read_input(self.task, {"source": source}, i) for i, (source, _) in enumerate(pairs)]
        for place, (_, target) in enumerate(pairs):
            if problem := text_problem(target):
                raise InputError(place, problem)
        targets = self._targets([target for _, target in pairs])
        self._check_positions(targets)
        sources, cut = self._sources_before(examples, targets)
        found: list[Any] = [None] * len(pairs)
        lengths = np.array([len(a) + len(b) for a, b in zip(sources, targets, strict=True)])
        most = max(1, min(self.batch_tokens, LOGITS // self._engine.vocabulary))
        for batch in batches_of(lengths, most) if pairs else []:
            start = self.search.decoder_start_token_id or 0
            scores = score(self._engine, [sources[i] for i in batch], [targets[i] for i in batch], start)
            for i, logs in zip(batch.tolist(), scores, strict=True):
                if np.isnan(logs).any():
                    raise InputError(i, NOT_NUMBERS)
                found[i] = Scored(sum(logs), targets[i], logs, cut[i])
        return found

    def _check_positions(self, targets: Sequence[Sequence[int]]) -> None:
        """Raise InputError for a target without room behind one other token, a start token or the end of a prompt."""
        longest = self._engine.longest
        for place, target in enumerate(targets):
            if longest is not None and 1 + len(target) > longest:
                raise InputError(
                    place, f"its target has {len(target)} tokens; the model has positions for {longest - 1}"
                )

    def _sources_before(
        self, examples: Sequence[Any], targets: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], list[bool]]:
        """Tokens of each source that is read before a target, and whether it was cut."""
        if self._engine.with_encoder:
            return self.sources(examples, self.search)
        longest = self.spec.max_length
        if self._engine.longest is not None:
            longest = min(longest, self._engine.longest)
        rooms = [max(1, longest - len(target)) for target in targets]
        every = self._prompts(_sources(examples))
        cut = [len(ids) > room for ids, room in zip(every, rooms, strict=True)]
        return [ids[-room:] for ids, room in zip(every, rooms, strict=True)], cut

    def _targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Their tokens as the model learned them, without the start token and closed by an end token."""
        with self._tokenizing:
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            crossed = self._engine.with_encoder
            every = [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=crossed)]
        found = []
        for i, ids in enumerate(every):
            if crossed and ids[:1] == [self.search.decoder_start_token_id]:
                ids = ids[1:]
            ends = self.search.eos_token_id
            if ends and not set(ends) & set(ids):
                ids = [*ids, ends[0]]
            if not ids:
                raise InputError(i, "its target has no tokens")
            found.append(ids)
        return found

    def sources(self, examples: Sequence[Any], chosen: Search) -> tuple[list[list[int]], list[bool]]:
        """Tokens of each source, and whether it was cut: an encoder's at its truncation side, a prompt at its beginning."""
        texts = _sources(examples)
        longest = self.spec.max_length
        if not texts:
            return [], []
        if self._engine.with_encoder:
            with self._tokenizing:
                encodings = list(
                    encode(self._tokenizer, texts, longest, offsets=False, side=self.spec.truncation_side)
                )
            return [e.ids for e in encodings], [bool(e.overflowing) for e in encodings]
        every = self._prompts(texts)
        room = max(1, longest - min(chosen.max_new_tokens or NEW_TOKENS, longest // 2))
        whole = (
            room if chosen.max_new_tokens is not None else longest - 1
        )  # as `generate()`, which then writes less
        cut = [len(ids) > max(room, whole) for ids in every]
        return [ids[-room:] if short else ids for ids, short in zip(every, cut, strict=True)], cut

    def _prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """All tokens of each."""
        special = bool(self.spec.settings.special_tokens)
        with self._tokenizing:
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            return [e.ids for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=special)]

    def fits(self, source: str) -> bool:
        """Whether the model can read all of a source."""
        _, (cut,) = self.sources([tasks.read_input(self.task, source, 0)], self.search)
        return not cut

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
        for batch in batches_of(lengths, self.batch_tokens) if rows else []:
            for i, logits in zip(batch, self._engine.logits([rows[i].ids for i in batch]), strict=True):
                judged = np.arange(max(1, len(rows[i].ids) - rows[i].marks), len(rows[i].ids))
                chances = log_probabilities(logits[judged - 1], np.array(rows[i].ids)[judged])
                losses[i] = -float(chances.sum())
        return text_generation.results(examples, rows, losses, cut)

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


def _sources(examples: Sequence[Any]) -> list[str]:
    """What is given: sources, or plain texts that shall go on. Raises InputError, naming the place."""
    texts = [str(example.source or example.target) for example in examples]
    for place, text in enumerate(texts):
        if problem := text_problem(text):
            raise InputError(place, problem)
    return texts
