"""What is measured, headway and its peers alike: open a model, answer one text, answer many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import numpy as np

from headway.core import hardware, siblings
from headway.core.errors import UnavailableError

FAMILY = "headway.bench.peers"

Setting = dict[str, Any]
"""keyword arguments of `many`, one way to run it"""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What every subject is asked for alike."""

    task: str
    threads: int
    max_length: int
    """tokens that a text is cut to, special ones included"""
    pad_id: int
    pooling: str
    """sentence-embedding: how token vectors become one, where the model itself does not say: cls, mean or max"""
    labels: list[str] = []
    settings: dict[str, Any] = {}
    """the bundle's, of its task"""


class Subject(Protocol):
    """An opened model. Inputs are those of `answers.given`, with tuples for lists; answers those of `answers.Answers`."""

    SETTINGS: Sequence[Setting]
    """ways to run `many`, of which the fastest is measured"""

    def one(self, given: Any) -> Any:
        """The answer to one input."""
        ...

    def many(self, inputs: Sequence[Any], **setting: Any) -> Any:
        """Answers in the order of the inputs."""
        ...


class Peer(Protocol):
    """What each module of this family defines."""

    TASKS: Sequence[str]
    NEEDS_CHECKPOINT: bool
    """True if it runs the PyTorch checkpoint, False if it runs the bundle"""

    def precisions(self, model: Path) -> list[str]:
        """What to measure of it. Raises UnavailableError where it is not installed."""
        ...

    def interpreter(self) -> str:
        """The Python that its processes are started with."""
        ...

    def prepared(self, model: Path, precision: str, wanted: Wanted, folder: Path) -> Path:
        """What to open in the model's stead, made before any clock starts, in an empty folder of its own."""
        ...

    def open_subject(self, model: Path, precision: str, wanted: Wanted) -> Subject:
        """Open a model in this process."""
        ...


def bytes_on_disk(peer: Peer, model: Path, precision: str) -> int:
    """Of what a peer opens: as it says itself, or the weights and the tokenizer in a folder and in its fp32 graph's."""
    own = getattr(peer, "bytes_on_disk", None)
    if own is not None:
        return int(own(model, precision))
    kinds = (".safetensors", ".bin", ".onnx", ".data", "tokenizer.json")
    files = [p for folder in (model, model / "fp32") if folder.is_dir() for p in folder.iterdir()]
    return sum(p.stat().st_size for p in files if p.is_file() and p.name.endswith(kinds))


def load_peer(name: str) -> Peer:
    """The peer of that name. Raises UsageError."""
    return cast(Peer, siblings.load(FAMILY, name, "--against"))


def require(modules: Sequence[str], what: str, remedy: str) -> None:
    """Raise UnavailableError unless all modules can be imported."""
    if any(find_spec(name) is None for name in modules):
        raise UnavailableError(what, remedy)


def interpreter_of(environment: str) -> str:
    """The Python that an environment variable names; this one where it is unset."""
    return os.environ.get(environment) or sys.executable


def require_there(modules: Sequence[str], what: str, packages: str, environment: str) -> None:
    """Raise UnavailableError unless that Python can import all modules."""
    command = [interpreter_of(environment), "-c", f"import {', '.join(modules)}"]
    try:
        found = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:  # there is no such program
        found = False
    if not found:
        remedy = f"pip install {packages} in an environment of its own, and name its python in {environment}"
        raise UnavailableError(what, remedy)


def order(texts: Sequence[str], by_length: bool) -> list[int]:
    """Places of the texts, in the order to run them."""
    places = range(len(texts))
    return sorted(places, key=lambda i: len(texts[i])) if by_length else list(places)


def in_batches(
    texts: Sequence[str], run: Callable[[list[str]], Any], batch_size: int, by_length: bool
) -> Any:
    """Vectors (N, D) in the order of the texts, of which `run` gives those of a batch (B, D)."""
    places = order(texts, by_length)
    batches = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    vectors = np.concatenate([run([texts[i] for i in batch]) for batch in batches])
    found = np.empty_like(vectors)
    found[places] = vectors
    return found


def halves() -> list[str]:
    """Precisions of a peer in PyTorch: bf16 only where the processor has it, as it is many times slower elsewhere."""
    return ["fp32", "bf16"] if hardware.has_fast_bf16(hardware.cpu_flags()) else ["fp32"]


def graph(bundle: Path) -> Path:
    """The bundle's fp32 graph, pooling and head included. Raises UnavailableError where it has none."""
    path = bundle / "fp32" / "model.onnx"
    if not path.is_file():
        raise UnavailableError(f"an fp32 graph in {bundle}", "export with --precision fp32,…")
    return path
