"""Proof of a model that writes: its logits step by step, and its texts, against PyTorch's `generate()`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from headway.core import tasks
from headway.core.manifest import Graph
from headway.core.progress import Progress
from headway.core.search import Search
from headway.core.tasks import Example
from headway.export import cache, encoders, halves, store
from headway.export.generation import Traced
from headway.export.precision.base import Feeds, Remembered
from headway.export.proof import Answers, Parity, Proof, differences, largest
from headway.runtime.generation.engine import Engine
from headway.runtime.generation.pipeline import GenerationPipeline
from headway.runtime.generation.search import search
from headway.train.checkpoint import Opened
from headway.train.generation import generate

ROLES = ("encoder", "decoder")
"""of the graphs; the decoder takes what the encoder gives"""
BATCHES = (3, 8)
"""sources in a batch, of all lengths"""
OWN = 24
"""of the user's examples, evenly spread over the file"""
NEW = 16
"""tokens that are written for each source"""
BEAMS = (1, 4)
PLAIN = {"num_return_sequences": 1, "num_beam_groups": 1, "diversity_penalty": 0.0}
"""settings as `train.generation.OFF` has them"""
WORK = 64
"""tokens of a source, at most, to time a variant by"""
LATE = 2
"""tokens that the others have read when the late half of a batch joins"""
SAMPLES = 8
"""sources on which layers are measured"""
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610)
"""tokens of sources that are cut from a long one"""


@dataclass(frozen=True)
class Written:
    """What PyTorch makes of a source."""

    tokens: dict[int, list[int]]
    """by number of beams"""
    logits: Any
    """(T, V): before each token that is written greedily"""


@dataclass(frozen=True)
class WriterProof(Proof):
    sources: list[list[int]]
    expected: list[Written]
    own: int
    """how many of the sources, from the first on, are the user's"""

    def runnable(self, role: str, model: ir.Model, given: Mapping[str, ir.DataType]) -> ir.Model:
        if self.target != "cpu":
            halves.narrow(model, given)
        if role == "encoder":
            return model
        return cache.in_place(model, self.draft.graphs[role], self.checkpoint, self.target)

    def provable(self, role: str, model: ir.Model) -> ir.Model:
        if role == "decoder":
            model = cache.whole(model, cache.declare(self.traced[role]))
        return halves.widen(model)

    def feeds(self, role: str) -> Feeds:
        return self._read[role]

    @cached_property
    def _read(self) -> dict[str, Feeds]:
        """What each graph reads when the user's sources are given and PyTorch's greedy texts written, in one step."""
        encoder = self.fp32.get("encoder")
        session = None if encoder is None else store.session(encoder, self.threads)
        encoded, decoded = [], []
        for source, written in zip(self.sources[: self.own], self.expected, strict=False):
            text, cross = written.tokens[1][:-1], {}
            if session is None:
                text = [*source, *text]
            else:
                text = [self.draft.search.get("decoder_start_token_id") or 0, *text]
                encoded.append(
                    {"input_ids": np.array([source]), "attention_mask": np.ones((1, len(source)), int)}
                )
                names = [tensor.name for tensor in session.get_outputs()]
                cross = dict(zip(names, session.run(names, encoded[-1]), strict=True))
            decoded.append(cross | self._unread(text, len(source)))
        return {"encoder": Remembered(encoded), "decoder": Remembered(decoded)}

    def _unread(self, text: Sequence[int], source: int) -> dict[str, Any]:
        """The decoder's own inputs before it has read anything."""
        declared = {tensor.name: tensor for tensor in self.traced["decoder"].inputs}
        behind_encoder = "encoder" in self.fp32
        feed: dict[str, Any] = {
            "input_ids": np.array([text]),
            "attention_mask": np.ones((1, source if behind_encoder else len(text)), int),
            "decoder_attention_mask": np.ones((1, len(text)), int),
            "position_ids": np.arange(len(text))[None],
            "logits_at": np.arange(0 if behind_encoder else source - 1, len(text)),
        }
        for name, tensor in declared.items():
            if name.startswith("past."):
                _, heads, _, size = tensor.shape
                feed[name] = np.zeros((1, heads, 0, size), np.float32)
        return {name: feed[name] for name in declared if name in feed}

    def measure(self, folder: Path, progress: Progress, label: str) -> Parity:
        engine = self._open(folder)
        numbers = range(len(self.sources))
        found = [self._alone(engine, i) for i in progress(numbers, label, len(self.sources))]
        wanted: Answers = [written.logits for written in self.expected]
        worst, mean, spread = differences(found, wanted)
        apart = []
        for size in BATCHES:
            mixed = np.random.default_rng(size).permutation(len(self.sources))
            for part in (mixed[i : i + size] for i in range(0, len(mixed), size)):
                late = len(part) // 2 if engine.joinable else 0
                for i, logits in zip(part, self._together(engine, part.tolist(), late), strict=True):
                    apart.append(float(np.abs(logits - found[i]).max()))
        same = [f.argmax(-1) == w.argmax(-1) for f, w in zip(found, wanted, strict=True)]
        return Parity(
            rows=len(self.sources),
            shortest=min(map(len, self.sources)),
            longest=max(map(len, self.sources)),
            worst=worst,
            mean=mean,
            neighbours=largest(apart) / spread,
            agreement=float(np.mean(np.concatenate(same))),
            identical=self._identical(engine) if np.isfinite(worst) else 0.0,
        )

    def _identical(self, engine: Engine) -> float:
        pipe = self._pipe(engine, "")
        same = []
        for beams in BEAMS:
            chosen = pipe.search.changed(num_beams=beams, max_new_tokens=NEW, **PLAIN | _least(pipe.search))
            for source, written in zip(self.sources, self.expected, strict=True):
                (found,) = search(engine, [source], chosen, lambda tokens: "")
                same.append(found[0].tokens == written.tokens[beams])
        return float(np.mean(same))

    def judge(self, folder: Path, precision: str) -> tuple[Any, dict[str, float]]:
        results = list(self._pipe(self._open(folder), precision).judge(self.examples))
        return self.spec.settings, self.task.metrics(self.examples, results)

    def pipeline(self) -> GenerationPipeline:
        with tempfile.TemporaryDirectory() as name:  # onnxruntime has read the graphs when they are opened
            given: dict[str, ir.DataType] = {}
            for role, path in self.graphs(Path(name)).items():
                model = self.runnable(role, store.twin(self.fp32[role]), given)
                given |= {str(v.name): v.dtype for v in model.graph.outputs if v.dtype is not None}
                store.write(model if self.target == "cpu" else self.provable(role, model), path)
            engine = self._open(Path(name))
        spec = tasks.spec(self.task, self.draft)
        return GenerationPipeline(self.draft, "fp32", self.task, spec, self.tokenizer, engine)

    def answers(self, folder: Path) -> Answers:
        engine = self._open(folder)
        every = max(1, len(self.sources) // SAMPLES)
        return [self._alone(engine, i) for i in range(0, len(self.sources), every)]

    def work(self, folder: Path) -> Callable[[], int]:
        """One text for the longest of the sources that is not above 64 tokens, written greedily."""
        engine = self._open(folder)
        source = max((s for s in self.sources if len(s) <= WORK), key=len)
        chosen = self._pipe(engine, "").search.changed(
            num_beams=1, min_new_tokens=NEW, max_new_tokens=NEW, **PLAIN
        )

        def once() -> int:
            search(engine, [source], chosen, lambda tokens: "")
            return NEW

        return once

    def _open(self, folder: Path) -> Engine:
        return Engine(self.graphs(folder), self.threads, self.draft.longest)

    def _pipe(self, engine: Engine, precision: str) -> GenerationPipeline:
        return GenerationPipeline(self.draft, precision, self.task, self.spec, self.tokenizer, engine)

    def _alone(self, engine: Engine, number: int) -> Any:
        return self._together(engine, [number])[0]

    def _together(self, engine: Engine, numbers: Sequence[int], late: int = 0) -> list[Any]:
        """Logits (T, V) before each token that PyTorch writes, through the caches, of sources in one batch.

        `late`: so many of them, the last, join when the others have read some tokens.
        """
        targets = [self.expected[i].tokens[1] for i in numbers]
        start = self.draft.search.get("decoder_start_token_id") or 0
        rows = list(range(len(numbers) - late))
        decoding, logits = engine.begin([self.sources[numbers[i]] for i in rows], start)
        found: list[list[Any]] = [[] for _ in targets]
        while rows:
            for i, row in zip(rows, logits, strict=True):
                found[i].append(row.copy())
            if late and len(found[0]) >= min(LATE, len(targets[0])):
                new = range(len(numbers) - late, len(numbers))
                joining, logits = engine.begin([self.sources[numbers[i]] for i in new], start)
                decoding.join(joining)
                for i, row in zip(new, logits, strict=True):
                    found[i].append(row.copy())
                rows, late = [*rows, *new], 0
            going = [place for place, i in enumerate(rows) if len(found[i]) < len(targets[i])]
            rows = [rows[place] for place in going]
            if rows:
                ids = np.array([[targets[i][len(found[i]) - 1]] for i in rows])
                logits = decoding.step(ids, np.array(going))
        return [np.stack(own) for own in found]


def _least(own: Search) -> dict[str, Any]:
    """A least number of new tokens that does not contradict NEW."""
    return {} if own.min_new_tokens is None else {"min_new_tokens": min(own.min_new_tokens, NEW)}


def declare(traced: dict[str, Traced], target: str) -> dict[str, Graph]:
    """What each graph of a variant for that target takes and gives; one in 16 bits for GPUs, where fp32 is said."""
    found = {role: graph.declared for role, graph in traced.items()}
    return found | {"decoder": cache.declare(found["decoder"], target)}


def prove(
    opened: Opened, traced: dict[str, Traced], own: Sequence[Example], progress: Progress, **common: Any
) -> WriterProof:
    """Let PyTorch write. `own`: examples of the kind that the model will see."""
    found, of_user = sources(opened, common["tokenizer"], own)
    return WriterProof(
        fp32={role: traced[role].model for role in ROLES if role in traced},
        traced={role: graph.declared for role, graph in traced.items()},
        sources=found,
        expected=[_written(opened, source) for source in progress(found, "PyTorch", len(found))],
        own=of_user,
        **common,
    )


def sources(opened: Opened, tokenizer: Any, own: Sequence[Any]) -> tuple[list[list[int]], int]:
    """Tokens to begin with: of the user's examples, of texts in many scripts, and of every length.

    Also how many of them, from the first on, are the user's.
    """
    longest = min(opened.spec.max_length, encoders.LONGEST)
    if not opened.model.config.is_encoder_decoder:
        longest = max(1, longest - NEW)
    every = max(1, len(own) // OWN)
    texts = [example.source or example.target for example in own[::every][:OWN]]
    theirs, ours = (
        [e.ids for e in tasks.encode(tokenizer, chosen, longest) if e.ids]
        for chosen in (texts, encoders.shipped()[::2])
    )
    endless = " ".join(encoders.shipped() * (1 + longest // 50))
    (long,) = tasks.encode(tokenizer, [endless], longest)
    cut = [long.ids[:n] for n in (*LENGTHS, longest) if n <= longest]
    return [*theirs, *ours, *cut], len(theirs)


def _written(opened: Opened, source: Sequence[int]) -> Written:
    model, ids = opened.model, torch.tensor([source])
    crossed = model.config.is_encoder_decoder
    tokens = {}
    with torch.inference_mode():
        for beams in BEAMS:
            said = generate(
                model,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW,
                num_beams=beams,
            )
            tokens[beams] = said[0, 1 if crossed else len(source) :].tolist()
        begin = said[:, :1] if crossed else ids
        read = torch.cat([begin, torch.tensor([tokens[1][:-1]], dtype=torch.int64)], dim=1)
        given = {"input_ids": ids, "decoder_input_ids": read} if crossed else {"input_ids": read}
        logits = model(**given).logits[0, -len(tokens[1]) :]
    return Written(tokens, logits.float().numpy())
