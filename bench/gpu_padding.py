"""What padding costs on a GPU, and what is left of that cost without padding: one model on texts of mixed lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from headway.bench import mixes
from headway.core import tasks
from headway.core.manifest import RAGGED, Bundle
from headway.core.report import Table
from headway.core.tasks import EncoderTask, Row
from headway.runtime.backends import onnxruntime_cuda
from headway.runtime.lanes import Lanes
from headway.runtime.layouts import Layout, Padded, PaddingFree
from headway.runtime.plan import plan
from headway.runtime.ragged import Ragged
from headway.runtime.shapes import TOKENS, Shapes

HEAD = [
    "precision",
    "batches",
    "padding",
    "padded, ms",
    "without padding, ms",
    "time ratio",
    "tokens ratio",
    "same label",
]
REPEATS = 10
ARRIVING = 64
"""texts in a batch of those that come in any order"""

AGREE = 0.98
"""share of the texts whose label is the same with padding and without"""

Seconds = Callable[[Callable[[], object], int], float]
"""of one call, the median of so many"""


class Both(NamedTuple):
    """A variant's graphs, opened on the same GPU."""

    padded: Lanes
    free: Lanes


def opened(bundle: Path, declared: Bundle, precision: str, device: str) -> Both:
    """Raises UnavailableError or BundleError."""
    read = cast(EncoderTask, tasks.load(declared.task)).READ

    def lanes(role: str, layout: Layout) -> Lanes:
        graph = bundle / declared.variants[precision].graphs[role]
        return onnxruntime_cuda.opened(graph, declared.graphs[role], read, layout, device)

    padded = lanes("model", Padded(Shapes(declared.max_length), declared.pad_id))
    return Both(padded, lanes(RAGGED, PaddingFree(declared.max_length)))


def measure(
    title: str, bundle: Path, precisions: Sequence[str], device: str, mix: str, count: int, seconds: Seconds
) -> tuple[Table, list[str]]:
    """A row for each variant that has both graphs and each way to batch; variants whose answers differ.

    A variant is the faster without padding by what the tokens' ratio says, if the GPU is busy and padding costs as
    much as tokens do.
    """
    declared = Bundle.read(bundle)
    texts = drawn(declared, mix, count)
    rows, wrong = [], list[str]()
    for precision in precisions:
        if RAGGED not in declared.variants[precision].graphs:
            rows.append([precision, "has no graph without padding", *[""] * (len(HEAD) - 2)])
            continue
        both = opened(bundle, declared, precision, device)
        same = agreement(both, texts)
        if same < AGREE:
            wrong.append(f"{title}: {precision} without it ({same:.2%} the same)")
        for name, padded, free in batched(texts):
            cells = compared(both, padded, free, seconds)
            rows.append([precision, name, *cells, f"{100 * same:.1f} %"])
    return Table(f"{title}, {count} texts of {mix}", HEAD, rows), wrong


def drawn(declared: Bundle, mix: str, count: int) -> Ragged:
    """Texts of random ids with the lengths of a mix."""
    random, size = np.random.default_rng(0), declared.architecture["vocab_size"]
    lengths = [min(length, declared.max_length) for length in mixes.drawn(mix, count)]
    return Ragged.of([Row(i, random.integers(5, size, n).tolist(), [0] * n) for i, n in enumerate(lengths)])


def batched(texts: Ragged) -> list[tuple[str, list[Ragged], list[Ragged]]]:
    """Ways to batch: as a file is run, each as its planner has it; and as requests come, the same for both."""
    padded, free = ([texts.take(r) for r in plan(texts.lengths, TOKENS, pads)] for pads in (True, False))
    order = np.arange(len(texts))
    coming = [texts.take(order[at : at + ARRIVING]) for at in range(0, len(texts), ARRIVING)]
    return [("a file, planned", padded, free), (f"{ARRIVING} texts as they come", coming, coming)]


def compared(both: Both, padded: list[Ragged], free: list[Ragged], seconds: Seconds) -> list[str]:
    """Share of padding, times, and their ratio beside that of the tokens that are computed."""
    given = sum(len(batch.ids) for batch in padded)
    tokens = [computed(both.padded, padded), computed(both.free, free)]
    took = [
        seconds(partial(both.padded.run, padded), REPEATS),
        seconds(partial(both.free.run, free), REPEATS),
    ]
    return [
        f"{100 * (1 - given / tokens[0]):.1f} %",
        *(f"{1e3 * each:.3f}" for each in took),
        f"{took[1] / took[0]:.3f}",
        f"{tokens[1] / tokens[0]:.3f}",
    ]


def computed(lanes: Lanes, batches: Sequence[Ragged]) -> int:
    """Tokens that an engine sees, those with nothing in them included."""
    return sum(piece.place.tokens for batch in batches for piece in lanes.layout.pieces(batch))


def agreement(both: Both, texts: Ragged) -> float:
    """Share of the texts that get the same label."""
    batches = [texts.take(rows) for rows in plan(texts.lengths, TOKENS)]
    labels = [
        np.concatenate([next(iter(outputs.values())).argmax(-1).ravel() for outputs in lanes.run(batches)])
        for lanes in both
    ]
    return float(np.mean(labels[0] == labels[1]))
