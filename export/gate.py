"""Make one variant that holds its gates: parity with PyTorch, and quality on the user's own data.

Where a variant does not hold, layers go back to fp32 one at a time, the most sensitive first, until it does.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from headway.core.errors import GateError, UnavailableError
from headway.core.manifest import RAGGED, Variant
from headway.core.progress import Progress
from headway.core.tasks import FIGURES_FALLING
from headway.export import contract, proof, sensitivity, simulated, store, unpacked
from headway.export.engine import base as engines
from headway.export.precision import base
from headway.export.proof import Answers, Parity, Proof

FOR_OTHERS = "-appending.onnx"
"""ends the name of a graph beside one that only headway can run: the same, for other tools; they share their weights"""


def make(precision: str, held: Proof, folder: Path, progress: Progress) -> Variant:
    """Write a variant's graphs, with as few layers left in fp32 as the gates allow.

    Raises GateError if they do not hold with all layers but one left in fp32 either.
    """
    kept: list[str] = []
    ranked: Sequence[str] | None = [] if precision == "fp32" else None
    while True:
        _convert(precision, kept, held, folder)
        label = f"{precision}, {len(kept)} layers in fp32" if kept else precision
        settings, quality = held.spec.settings, dict[str, float]()
        with _provable(precision, held, folder) as proven:
            measured = held.measure(proven, progress, f"parity {label}")
            problem = proof.problem(precision, measured)
            if problem is None and held.examples:
                settings, quality = held.judge(proven, precision)
                problem = _lost(precision, quality, held)
        if problem is None:
            _write_temperature(held.written(folder).values(), settings)
            return _variant(precision, kept, settings, measured, quality, held, folder)
        if ranked is None:
            ranked = _ranked(precision, held, folder, progress)
        if len(kept) >= len(ranked) - 1:
            raise problem
        kept.append(ranked[len(kept)])


def _convert(precision: str, kept: Collection[str], held: Proof, folder: Path) -> None:
    engine, given = engines.load(held.target), dict[str, ir.DataType]()
    for role, path in held.graphs(folder).items():
        model = base.load(precision).convert(store.twin(held.fp32[role]), kept, held.feeds(role))
        if away := held.target != "cpu":
            model = held.runnable(role, model, given)
            given |= {
                str(value.name): value.dtype for value in model.graph.outputs if value.dtype is not None
            }
        model = engine.rewrite(model)
        if refused := engine.refused(model):
            remedy = "export another precision, or for another --target"
            raise UnavailableError(f"{precision} for {held.target} ({'; '.join(refused[:3])})", remedy)
        declared = held.draft.graphs[role] if away else held.traced[role]
        contract.check(model, declared, held.checkpoint, narrow=away)
        if declared == held.draft.graphs[role]:
            _write(role, model, held, path)
            continue
        other = store.twin(model)
        model = held.runnable(role, model, {})
        contract.check(model, held.draft.graphs[role], held.checkpoint)
        store.write_with_twin(model, path, other, path.with_name(f"{role}{FOR_OTHERS}"))


def _write(role: str, model: ir.Model, held: Proof, path: Path) -> None:
    """A graph, and the one without padding beside it; they share their weights."""
    beside = path.with_name(f"{RAGGED}.onnx")
    beside.unlink(missing_ok=True)
    without = held.without_padding(role, model)
    if without is None:
        store.write(model, path)
        return
    contract.check(without, held.draft.graphs[RAGGED], held.checkpoint)
    store.write_with_twin(model, path, without, beside)


@contextmanager
def _provable(precision: str, held: Proof, folder: Path) -> Iterator[Path]:
    """A variant's folder, or one with the same graphs for a processor, where it has not the variant's arithmetic."""
    rounds = precision in engines.load(held.target).SIMULATED
    if held.target == "cpu" and not rounds:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        for role, path in held.written(folder).items():
            model = unpacked.unpack(ir.load(path))
            if rounds:
                model = simulated.simulate(model)
            store.write(held.provable(role, model), Path(name) / path.name)
        yield Path(name)


def _ranked(precision: str, held: Proof, folder: Path, progress: Progress) -> Sequence[str]:
    names = [layer.name for model in held.fp32.values() for layer in base.layers(model)]
    names += [table.name for model in held.fp32.values() for table in base.tables(model)]

    def run(kept: Collection[str]) -> Answers:
        _convert(precision, kept, held, folder)
        with _provable(precision, held, folder) as proven:
            return held.answers(proven)

    return sensitivity.order(list(dict.fromkeys(names)), run, progress, f"layers of {precision}")


def _lost(precision: str, quality: dict[str, float], held: Proof) -> GateError | None:
    for figure, value in quality.items():
        if not math.isfinite(value) and math.isfinite(held.reference[figure]):
            return GateError("quality", precision, figure, value, held.reference[figure])
    name = held.metric
    drop = held.reference[name] - quality[name]
    if name in FIGURES_FALLING:
        drop = -drop / held.reference[name]  # how much larger, as a share
    if held.max_drop is None or drop <= held.max_drop:
        return None
    return GateError("quality", precision, f"drop in {name}", drop, held.max_drop)


def _write_temperature(graphs: Collection[Path], settings: Any) -> None:
    """Put the settings' temperature into the graph, for other tools than headway's runtime."""
    for path in graphs:
        model = ir.load(path)
        constant = model.graph.initializers.get("temperature")
        if constant is not None and constant.const_value is not None:
            dtype = constant.const_value.dtype
            value = np.array(settings.temperature, dtype.numpy())
            constant.const_value = ir.tensor(value, name="temperature")
            ir.save(model, path)


def _variant(
    precision: str,
    kept: list[str],
    settings: Any,
    measured: Parity,
    quality: dict[str, float],
    held: Proof,
    folder: Path,
) -> Variant:
    own = msgspec.to_builtins(settings)
    by = "simulation" if precision in engines.load(held.target).SIMULATED else "onnxruntime"
    return Variant(
        precision=precision,
        target=held.target,
        graphs={role: f"{folder.name}/{path.name}" for role, path in held.written(folder).items()},
        kept=kept,
        settings={} if own == held.draft.settings else own,
        parity=measured.as_manifest(precision, by),
        quality=quality,
    )
