"""The compiled extension: whether it loads, and which instruction set its kernels use."""

from __future__ import annotations

from collections.abc import Iterator

from headway.cli.doctoring.base import Finding, prevents
from headway.cli.doctoring.environment import Environment

SWITCH = "HEADWAY_SIMD"
AGAIN = "pip install --force-reinstall --no-deps headway"


def findings(environment: Environment) -> Iterator[Finding]:
    kernels = environment.kernels
    if kernels.problem:
        remedy = f"unset {SWITCH}" if SWITCH in kernels.problem else AGAIN
        yield prevents("kernels", f"they do not load: {kernels.problem}", remedy, "the compiled extension")
        return
    best = kernels.levels[-1]
    if kernels.level == best:
        yield Finding("kernels", f"use {best}")
    else:
        yield Finding(
            "kernels",
            f"use {kernels.level}, as {SWITCH} says; {best} would be faster",
            f"unset {SWITCH}",
        )
