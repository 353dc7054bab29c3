"""`headway.json`: what a checkpoint and a bundle say about themselves, and how a bundle is verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import msgspec

from headway.core import files
from headway.core.errors import BundleError, CheckpointError

NAME = "headway.json"
CHECKPOINT_FORMAT = "headway-checkpoint-1"
BUNDLE_FORMAT = "headway-bundle-1"


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What training writes beside the Hugging Face files."""

    task: str
    labels: list[str]
    max_length: int
    """tokens, special ones included"""
    model: str
    """what training started from, by name alone"""
    training_data: dict[str, str]
    """SHA-256 of each data file, by its role: train, eval"""
    options: dict[str, Any]
    """how it was trained"""
    metrics: dict[str, float]
    """on the eval file; empty without one"""
    settings: dict[str, Any] = {}
    """what the task needs to know beyond labels: its `Settings`"""
    format: str = CHECKPOINT_FORMAT

    def write(self, folder: Path) -> None:
        _write(folder / NAME, msgspec.to_builtins(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises CheckpointError if the folder is not a checkpoint that this version reads."""
        path = folder / NAME
        if not path.is_file():
            raise CheckpointError(folder, f"there is no {NAME} in it; `headway train` writes one")
        try:
            return _typed(cls, _read(path, CHECKPOINT_FORMAT))
        except _MalformedError as error:
            raise CheckpointError(folder, str(error)) from error


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A graph's declared input or output. A dimension is a number or a name ("batch", "length")."""

    name: str
    dtype: str
    shape: list[Any]


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every variant's graph of one role takes and gives."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One precision of the model."""

    precision: str
    graphs: dict[str, str]
    """file of each graph, by its role: model; or encoder and decoder"""
    kept: list[str] = []
    """layers that were left in fp32 so that the gates hold, the most sensitive first"""
    settings: dict[str, Any] = {}
    """the task's settings where they were fitted for this variant; empty: those of the bundle"""
    parity: dict[str, Any] = {}
    """measured difference from PyTorch, with the limits it was held to"""
    quality: dict[str, float] = {}
    """the task's metrics on the eval file, measured through the runtime"""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    bytes: int
    sha256: str


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What export writes and the runtime reads."""

    task: str
    labels: list[str]
    max_length: int
    """tokens, special ones included"""
    pad_id: int
    settings: dict[str, Any] = {}
    """what the task needs to know beyond labels: its `Settings`"""
    graphs: dict[str, Graph]
    """by role: model; or encoder and decoder"""
    search: dict[str, Any] = {}
    """a model that writes: how it chooses tokens where a call does not say (`headway.core.search.Search`)"""
    longest: int | None = None
    """a model that writes: tokens that its decoder has positions for; none: they are not limited"""
    variants: dict[str, Variant]
    architecture: dict[str, Any]
    """model_type, hidden_size, layers, heads, vocab_size"""
    made_by: dict[str, str]
    """versions of headway and of the libraries that took part"""
    source: dict[str, Any]
    """the checkpoint's weights (SHA-256), training data and metrics"""
    files: dict[str, File]
    """every file of the bundle but this one"""
    format: str = BUNDLE_FORMAT

    def write(self, folder: Path) -> None:
        """Write the manifest with a seal over its own content, which tells a damaged one."""
        content = msgspec.to_builtins(self)
        _write(folder / NAME, content | {"seal": _seal(content)})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check the manifest alone. Raises BundleError."""
        path = folder / NAME
        if not path.is_file():
            raise BundleError(folder, f"there is no {NAME} in it; `headway export` writes one")
        try:
            content = _read(path, BUNDLE_FORMAT)
            if content.pop("seal", None) != _seal(content):
                raise _MalformedError(f"{NAME} was changed after it was written (its seal does not fit)")
            return _typed(cls, content)
        except _MalformedError as error:
            raise BundleError(folder, str(error)) from error

    @property
    def seal(self) -> str:
        """SHA-256 over the whole manifest, and so over every file's hash: the bundle's identity."""
        return _seal(msgspec.to_builtins(self))

    def verify(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Compare files (default: all) with their sizes and SHA-256. Raises BundleError."""
        for name in self.files if names is None else names:
            path = inside(folder, name)
            declared = self.files.get(name)
            if declared is None:
                raise BundleError(folder, f"{name} is used but not listed in {NAME}")
            if not path.is_file():
                raise BundleError(folder, f"{name} is missing")
            if (size := path.stat().st_size) != declared.bytes:
                raise BundleError(folder, f"{name} has {size} bytes, {NAME} says {declared.bytes}")
            if files.sha256(path) != declared.sha256:
                raise BundleError(folder, f"{name} was changed: its SHA-256 is not the one in {NAME}")


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a bundle. Raises BundleError if that would lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BundleError(folder, f"the path '{name}' leads out of it")
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise BundleError(folder, f"the path '{name}' leads out of it by a link")
    return folder / path


def kind(folder: Path) -> str:
    """ "checkpoint" or "bundle". Raises BundleError if the folder is neither."""
    try:
        said = str(_read(folder / NAME, None).get("format", ""))
    except (_MalformedError, OSError) as error:
        raise BundleError(folder, f"neither a checkpoint nor a bundle: no readable {NAME}") from error
    for name in ("checkpoint", "bundle"):
        if said.startswith(f"headway-{name}-"):
            return name
    raise BundleError(folder, f"{NAME} has the unknown format '{said}'")


class _MalformedError(Exception):
    """What is wrong with a JSON file; the caller says whose file it is."""


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(path: Path, expected: str | None) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _MalformedError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _MalformedError(f"{path.name} is not a JSON object")
    if expected is not None and content.get("format") != expected:
        raise _MalformedError(
            f"{path.name} has the format '{content.get('format')}', this version reads '{expected}'"
        )
    return content


S = TypeVar("S", bound=msgspec.Struct)


def _typed(cls: type[S], content: dict[str, Any]) -> S:
    try:
        return msgspec.convert(content, cls)
    except msgspec.ValidationError as error:
        raise _MalformedError(f"{NAME}: {error}") from error


def _seal(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
