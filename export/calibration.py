"""What a graph's activations are on the user's texts, and the range that 8 bits are given for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from headway.core.threads import budget
from headway.export import store
from headway.export.precision.base import Feeds, Remembered

ROWS = 1024
"""tokens of each activation that are looked at in full; of the others only the largest of each channel counts"""
PERCENTILE = 99.99
"""per cent of an activation's elements that the percentile method represents without clipping"""
BINS, STRIDE = 2048, 32
"""of the histogram that the entropy method reads, and by how many the ranges that it tries differ"""
LEVELS = 128
"""magnitudes that int8 can tell apart"""
MIGRATIONS = (0.5, 0.75)
"""alphas of SmoothQuant that are tried: the share of the difficulty that goes from activations to weights"""
LEAST = 1e-20
"""range of an activation, or maximum of a channel, that is all zeros"""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Observed:
    """What one activation was on the feeds."""

    rows: Array  # (R, D), a random choice of its tokens
    most: Array  # (D,), largest magnitude of each channel over all tokens


@dataclass(frozen=True)
class Choice:
    """How one activation is to be quantized."""

    limit: float
    """magnitude that the largest level stands for; what is larger is clipped"""
    migration: Array | None  # (D,), what each channel is divided by first; None for nothing
    method: str
    error: float
    """of the products, see `relative_error`"""


def observe(model: ir.Model, values: Sequence[ir.Value], feeds: Feeds) -> dict[ir.Value, Observed]:
    """Run the graph on the feeds and note what those values (…, D) are. Values of no tokens are left out."""
    return _known("observe", values, feeds, lambda new: _observe(model, new, feeds))


def largest(model: ir.Model, values: Sequence[ir.Value], feeds: Feeds, fill: float) -> dict[ir.Value, float]:
    """Largest magnitude of each value on the feeds, not counting what is -`fill` or below it."""
    return _known(f"largest above {-fill}", values, feeds, lambda new: _largest(model, new, feeds, fill))


def _known(
    asked: str,
    values: Sequence[ir.Value],
    feeds: Feeds,
    find: Callable[[list[ir.Value]], dict[ir.Value, Any]],
) -> dict[ir.Value, Any]:
    """What the feeds remember, and the rest found and remembered."""
    seen = feeds.seen if isinstance(feeds, Remembered) else {}
    new = [value for value in values if (asked, str(value.name)) not in seen]
    found = find(new) if new else {}
    seen.update({(asked, str(value.name)): found.get(value) for value in new})
    known = {value: seen[asked, str(value.name)] for value in values}
    return {value: answer for value, answer in known.items() if answer is not None}


def _observe(model: ir.Model, values: Sequence[ir.Value], feeds: Feeds) -> dict[ir.Value, Observed]:
    share = -(-ROWS // max(1, len(feeds)))
    generator = np.random.default_rng(0)
    rows: dict[ir.Value, list[Array]] = {value: [] for value in values}
    most: dict[ir.Value, Array] = {}
    for seen in _runs(model, values, feeds):
        for value, array in seen.items():
            flat = array.reshape(-1, array.shape[-1])  # (N, D)
            largest = np.abs(flat).max(axis=0, initial=0)
            most[value] = np.maximum(most[value], largest) if value in most else largest
            picked = generator.choice(len(flat), size=min(share, len(flat)), replace=False)
            rows[value].append(flat[np.sort(picked)])
    return {value: Observed(np.concatenate(rows[value]), most[value]) for value in most}


def _largest(model: ir.Model, values: Sequence[ir.Value], feeds: Feeds, fill: float) -> dict[ir.Value, float]:
    found = dict.fromkeys(values, 0.0)
    for seen in _runs(model, values, feeds):
        for value, array in seen.items():
            size = np.abs(array).max(initial=0, where=array > -fill)
            found[value] = max(found[value], float(size))
    return found


def _runs(model: ir.Model, values: Sequence[ir.Value], feeds: Feeds) -> Iterator[dict[ir.Value, Array]]:
    """What the values are, one feed after the other."""
    if not values or not feeds:
        return
    count, outputs = len(model.graph.outputs), model.graph.outputs
    given = {tensor.name for tensor in model.graph.inputs}
    computed = [value for value in dict.fromkeys(values) if value.name not in given]
    outputs.extend(value for value in computed if not value.is_graph_output())
    try:
        session = store.session(model, budget(), fused=False)
    finally:
        outputs[count:] = []
    names = [str(value.name) for value in computed]
    for feed in feeds:
        taken = {name: array for name, array in feed.items() if name in given}
        found = session.run(names, taken) if names else []  # no names would mean all outputs
        seen = taken | dict(zip(names, found, strict=True))
        yield {value: seen[str(value.name)] for value in values}


def choose(observed: Observed, weight: Array, largest_weight: int, gain: float) -> Choice:
    """The range of an activation, and its migration, that give products with the weights (D, N) the least error.

    Ranges are tried by three methods:
    min-max: nothing is clipped.
    percentile: 99.99 per cent of the elements are not (McKinstry et al. 2018, arXiv:1809.04191).
    entropy: least Kullback-Leibler divergence of the histogram (Migacz, 8-bit inference with TensorRT, 2017).

    Each also after SmoothQuant's migration (Xiao et al. 2022, arXiv:2211.10438): channel j of the activation is
    divided by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), and row j of the weights multiplied by it. As that may
    cost a product at run time, it must bring the error below `gain` times the least error without it.
    """
    found = candidates(observed, weight, largest_weight)
    plain = min((c for c in found if c.migration is None), key=lambda choice: choice.error)
    best = min(found, key=lambda choice: choice.error)
    return best if best.error < gain * plain.error else plain


def candidates(observed: Observed, weight: Array, largest_weight: int) -> list[Choice]:
    """Every method with the error it leads to, those without migration first."""
    expected = observed.rows @ weight  # (R, N)
    found = []
    migrations = (migrate(observed.most, np.abs(weight).max(axis=1), alpha) for alpha in MIGRATIONS)
    for migration in (None, *migrations):
        by = np.ones_like(observed.most) if migration is None else migration
        moved = Observed(observed.rows / by, observed.most / by)
        rounded = dequantized(weight * by[:, None], largest_weight)
        for method, limit_of in METHODS.items():
            limit = max(limit_of(moved), LEAST)
            step = np.float32(limit / (LEVELS - 1))
            levels = np.clip(np.rint(moved.rows / step), 1 - LEVELS, LEVELS - 1)
            error = relative_error(levels * step @ rounded, expected)
            found.append(Choice(limit, migration, method, error))
    return found


def min_max(observed: Observed) -> float:
    return float(observed.most.max())


def percentile(observed: Observed) -> float:
    return float(np.percentile(np.abs(observed.rows), PERCENTILE))


def entropy(observed: Observed) -> float:
    """The range whose 128 levels tell most of the histogram of magnitudes."""
    counts, edges = np.histogram(np.abs(observed.rows), bins=BINS, range=(0, max(min_max(observed), LEAST)))
    divergence = {stop: _divergence(counts, stop) for stop in range(LEVELS, BINS + 1, STRIDE)}
    return float(edges[min(divergence, key=lambda stop: divergence[stop])])


def _divergence(counts: NDArray[np.int64], stop: int) -> float:
    """Of the first `stop` bins, with all that is clipped in the last, from the same in 128 levels."""
    clipped = counts[:stop].astype(np.float64)
    clipped[-1] += counts[stop:].sum()
    starts = np.arange(LEVELS) * stop // LEVELS
    filled = np.maximum(np.add.reduceat((counts[:stop] > 0).astype(np.float64), starts), 1)
    levels = np.add.reduceat(counts[:stop].astype(np.float64), starts) / filled
    spread = np.repeat(levels, np.diff([*starts, stop])) * (counts[:stop] > 0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], 1e-12))))


METHODS: dict[str, Callable[[Observed], float]] = {
    "min-max": min_max,
    "percentile": percentile,
    "entropy": entropy,
}


def migrate(x_most: Array, w_most: Array, alpha: float) -> Array:
    """SmoothQuant's divisor of each channel (D,) from the largest magnitudes of activations and weights."""
    by = np.maximum(x_most, LEAST) ** alpha / np.maximum(w_most, LEAST) ** (1 - alpha)
    return np.where((x_most > LEAST) & (w_most > LEAST), by, 1).astype(np.float32)


def rounded(weight: Array, largest: int) -> tuple[NDArray[np.int8], Array]:
    """Weights (D, N) as symmetric int8 and one scale for each output channel (N,)."""
    scale = np.maximum(np.abs(weight).max(axis=0) / largest, LEAST).astype(np.float32)
    return np.clip(np.rint(weight / scale), -largest, largest).astype(np.int8), scale


def dequantized(weight: Array, largest: int) -> Array:
    """What is left of weights after rounding."""
    levels, scale = rounded(weight, largest)
    return levels * scale


def relative_error(found: Array, expected: Array) -> float:
    """Squared error over square, the mean of all tokens (R, N).

    Each token counts the same, as it does for the model: over the sum of all, the few tokens with massive
    activations (Sun et al. 2024, arXiv:2402.17762) would decide alone, and all others be rounded to nothing.
    """
    error, square = np.square(found - expected).sum(axis=1), np.square(expected).sum(axis=1)
    return float((error / np.maximum(square, LEAST)).mean())
