"""Run by `python -m tests.alone`: a text alone beside the same text in a batch, for every encoder task, engine and precision.

Models are tiny and random, their inputs random ids of all lengths. Figures are the largest difference of a logit as a
share of the logits' spread, beside the limit of `core/tolerance.py`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from headway.core import tasks
from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle
from headway.core.tasks import Row
from headway.core.tolerance import PRECISION
from headway.export.bundle import export
from headway.export.engine.base import PRECISIONS
from headway.export.options import ExportOptions
from headway.runtime import load
from headway.runtime.backends.base import engines_for
from headway.runtime.pipeline import EncoderPipeline
from headway.runtime.ragged import Ragged
from tests.test_architectures import model_of
from tests.test_export_tasks import DATA, TASKS, untrained

LONGEST, VOCABULARY = 60, 90
"""tokens, and ids that they are drawn from"""


def main() -> int:
    """Print a table; 1 if a limit is passed."""
    engines, passed = engines_for("cpu"), False
    print("| task | precision | " + " | ".join(engines) + " | limit |")
    print("|---|---|" + "--:|" * (len(engines) + 1))
    with tempfile.TemporaryDirectory() as folder:
        model = model_of("bert", transformers.AutoModel, Path(folder) / "model")
        for kind in TASKS:
            work = Path(folder) / kind
            work.mkdir()
            checkpoint, rows = untrained(kind, model, work, LONGEST)
            options = ExportOptions(
                output=work / "bundle", precision=",".join(PRECISIONS["cpu"]), calibration=rows, threads=2
            )
            bundle = export(checkpoint, options).bundle
            for precision in Bundle.read(bundle).variants:
                found = [figure(bundle, precision, engine) for engine in engines]
                limit = PRECISION[precision].neighbours
                passed |= any(f is not None and f > limit for f in found)
                cells = [DATA[kind][0], precision, *("–" if f is None else f"{f:.1e}" for f in found)]
                print("| " + " | ".join([*cells, f"{limit:.0e}"]) + " |", flush=True)
    return int(passed)


def figure(bundle: Path, precision: str, engine: str) -> float | None:
    """None where the engine does not open the graph."""
    try:
        pipe: Any = load(bundle, precision=precision, backend=engine, threads=2)
    except UnavailableError:
        return None
    random = np.random.default_rng(0)
    return worst(
        pipe, [random.integers(1, VOCABULARY, n).tolist() for n in random.integers(1, LONGEST + 1, 64)]
    )


def worst(pipe: EncoderPipeline, texts: Sequence[Sequence[int]]) -> float:
    """Largest difference of a logit between each text's ids alone and all of them in one batch, by the logits' spread."""
    task: Any = pipe.task
    rows = [Row(i, list(ids), [0] * len(ids)) for i, ids in enumerate(texts)]
    alone = [pipe.answers([row])[0] for row in rows]  # (C), (T, C) or (D) each
    together = tasks.joined(task, pipe._backend.run([Ragged.of(rows)])[0])
    apart = (np.abs(a - b[: len(a)]).max() for a, b in zip(alone, together, strict=True))
    return float(max(apart) / np.concatenate([a.ravel() for a in alone]).std())


if __name__ == "__main__":
    sys.exit(main())
