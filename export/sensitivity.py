"""Which layers of a variant lose most: each is converted alone, and what that changes is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from headway.core.progress import Progress
from headway.export.proof import Answers

Run = Callable[[Collection[str]], Answers]
"""the answers of the variant in which these layers are kept as they are"""


def order(layers: Sequence[str], run: Run, progress: Progress, label: str) -> list[str]:
    """The layers, the one first whose conversion alone moves the answers most (mean absolute difference).

    Answers that are no numbers count as infinitely far.
    """
    expected = run(layers)
    moved = {}
    for layer in progress(layers, label, len(layers)):
        found = run([other for other in layers if other != layer])
        apart = [float(np.abs(f - e).mean()) for f, e in zip(found, expected, strict=True)]
        moved[layer] = float(np.nan_to_num(np.mean(apart), nan=np.inf))
    return sorted(layers, key=lambda layer: -moved[layer])
