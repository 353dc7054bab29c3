"""CTranslate2's own search, float32 and int8."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from headway.bench.peers.ctranslate2 import with_old_settings
from headway.bench.writers.base import Found, Hypothesis, Ids, Wish, Write, told

PRECISIONS = ("float32", "int8")
EXACT: tuple[str, ...] = ()
"""its beam search is another one"""


def interpreter() -> str:
    return sys.executable


def prepared(checkpoint: Path, precision: str, folder: Path) -> None:
    converter = import_module("ctranslate2.converters").TransformersConverter
    with tempfile.TemporaryDirectory() as copy:
        with_old_settings(checkpoint, Path(copy))
        converter(copy).convert(str(folder), quantization=precision, force=True)


def open_subject(checkpoint: Path, precision: str, folder: Path, threads: int) -> Translating | Continuing:
    library = import_module("ctranslate2")
    crossed = told(checkpoint)["is_encoder_decoder"]
    kind = library.Translator if crossed else library.Generator

    def opened(inter: int, intra: int) -> Any:
        return kind(
            str(folder), device="cpu", compute_type=precision, inter_threads=inter, intra_threads=intra
        )

    every = {
        (inter, intra): opened(inter, intra)
        for inter, intra in dict.fromkeys(((1, 1), (1, threads), (threads, 1)))
    }
    return Translating(every) if crossed else Continuing(every)


class Opened:
    """A batch on one thread or on all; or, parted, on as many as there are parts, which share the weights."""

    def __init__(self, every: Mapping[tuple[int, int], Any]) -> None:
        self._every = every

    def engine_seconds(self) -> None:
        return None


class Translating(Opened):
    def ways(self, wish: Wish, scored: bool) -> Mapping[str, Write]:
        return {
            f"{inter} × {intra} threads": partial(_translated, opened, inter, wish, scored)
            for (inter, intra), opened in self._every.items()
        }


class Continuing(Opened):
    """By beams; and where the next token alone is wanted, also as alternatives of it."""

    def ways(self, wish: Wish, scored: bool) -> Mapping[str, Write]:
        kinds: dict[str, dict[str, Any]] = {"beams": {"beam_size": wish.beams}}
        if wish.new == 1:
            kinds["alternatives"] = {"return_alternatives": True}
        return {
            f"{name}, {inter} × {intra} threads": partial(_continued, opened, inter, wish, scored, options)
            for name, options in kinds.items()
            for (inter, intra), opened in self._every.items()
        }


def _translated(translator: Any, parts: int, wish: Wish, scored: bool, sources: Ids) -> Found:
    said = translator.translate_batch(
        _words(sources),
        beam_size=wish.beams,
        num_hypotheses=wish.returned,
        min_decoding_length=wish.least,
        max_decoding_length=wish.new,
        max_batch_size=-(-len(sources) // parts),
        return_scores=scored,
        return_end_token=True,
    )
    return [_hypotheses([[int(word[1:]) for word in h] for h in one.hypotheses], one.scores) for one in said]


def _continued(
    generator: Any, parts: int, wish: Wish, scored: bool, options: dict[str, Any], sources: Ids
) -> Found:
    said = generator.generate_batch(
        _words(sources),
        num_hypotheses=wish.returned,
        min_length=wish.least,
        max_length=wish.new,
        max_batch_size=-(-len(sources) // parts),
        include_prompt_in_result=False,
        return_scores=scored,
        return_end_token=True,
        **options,
    )
    return [_hypotheses(one.sequences_ids, one.scores) for one in said]


def _words(sources: Ids) -> list[list[str]]:
    """As the checkpoint's vocabulary has them (`headway.bench.shapes`)."""
    return [[f"t{i}" for i in ids] for ids in sources]


def _hypotheses(tokens: Ids, scores: list[float]) -> list[Hypothesis]:
    found = scores or [0.0] * len(tokens)
    return [Hypothesis(list(ids), score) for ids, score in zip(tokens, found, strict=True)]
