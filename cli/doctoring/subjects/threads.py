"""How many threads there may be, and settings that make them more or fewer."""

from __future__ import annotations

from collections.abc import Iterator

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Environment

TOKENIZER = "RAYON_NUM_THREADS"
"""the one that headway takes as it is: of the tokenizer's pool"""
POOLS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    TOKENIZER,
)
"""what sets the size of a library's pool of threads"""
FALSE = ("0", "OFF", "FALSE")


def findings(environment: Environment) -> Iterator[Finding]:
    budget, quota = environment.budget, environment.quota
    limit = "no cgroup limit" if quota is None else f"cgroup limit {quota:g}"
    yield Finding("threads", f"{budget} ({_processors(environment.affinity)} by affinity, {limit})")
    for name in POOLS:
        if (given := environment.variables.get(name)) is not None:
            yield from _pool(name, given, budget)
    if quota is not None and quota < environment.affinity and "OMP_NUM_THREADS" not in environment.variables:
        yield Finding(
            "threads",
            f"{environment.affinity} processors are seen, {quota:g} may be used: libraries that only count processors start too many threads"
            " (headway does not)",
            f"export OMP_NUM_THREADS={budget} OPENBLAS_NUM_THREADS={budget}",
        )
    if environment.variables.get("TOKENIZERS_PARALLELISM", "").upper() in FALSE and budget > 1:
        yield Finding(
            "threads",
            "TOKENIZERS_PARALLELISM is off: texts are tokenized on one thread",
            "unset TOKENIZERS_PARALLELISM",
        )


def _pool(name: str, given: str, budget: int) -> Iterator[Finding]:
    first = given.partition(",")[0].strip()  # OpenMP takes a list, a number for each level of nesting
    if not first.isdecimal() or int(first) == 0:
        if name != TOKENIZER or first != "0":  # there it means: as many as there are processors
            yield Finding("threads", f"{name}={given} is no number of threads", f"export {name}={budget}")
    elif int(first) > budget:
        yield Finding(
            "threads",
            f"{name}={given} is more than the {budget} that there are: threads wait for each other",
            f"export {name}={budget}",
        )
    elif int(first) < budget and name == TOKENIZER:  # headway sets the others' number itself
        yield Finding(
            "threads", f"{name}={given} leaves some of {_processors(budget)} idle", f"export {name}={budget}"
        )


def _processors(count: int) -> str:
    return f"{count} processor" if count == 1 else f"{count} processors"
