"""`headway.json`: what a checkpoint and a bundle say about themselves, and how a bundle is verified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self, TypeVar, cast

import msgspec

from headway.core import files, tasks
from headway.core.errors import BundleError, CheckpointError, UsageError
from headway.core.search import Search
from headway.core.tasks import EncoderTask, Side

NAME = "headway.json"
CHECKPOINT_FORMAT = "headway-checkpoint-1"
BUNDLE_FORMAT = "headway-bundle-1"

RAGGED = "ragged"
"""role of an encoder's graph without padding, which a variant may have beside `model`"""
LARGEST = 2**31 - 1
"""tokens in an input, and ids of tokens, at most: what the tokenizers take"""

Count = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
Id = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What training writes beside the Hugging Face files."""

    task: str
    labels: list[str]
    max_length: Count
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
    shape: list[int | str]


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every variant's graph of one role takes and gives."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What every variant's parity holds, beside others."""

    worst: float
    neighbours: float
    agreement: float


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One precision of the model."""

    precision: str
    target: str = "cpu"
    """what its graphs are made for: cpu, cuda or tensorrt"""
    graphs: dict[str, str]
    """file of each graph, by its role: model, and ragged where it has one; or encoder and decoder"""
    kept: list[str] = []
    """layers that were left in fp32 so that the gates hold, the most sensitive first"""
    settings: dict[str, Any] = {}
    """the task's settings where they were fitted for this variant; empty: those of the bundle"""
    parity: dict[str, Any] = {}
    """measured difference from PyTorch, with the limits it was held to, and by what it was measured"""
    quality: dict[str, float] = {}
    """the task's metrics on the eval file, measured through the runtime"""
    tokens_per_second: float | None = None
    """on the machine that made the bundle, where that was asked for"""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    bytes: int
    sha256: str


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What export writes and the runtime reads."""

    task: str
    labels: list[str]
    max_length: Count
    """tokens, special ones included"""
    truncation_side: Side = "right"
    """where a longer text loses tokens, where the task does not read it in windows"""
    pad_id: Id
    settings: dict[str, Any] = {}
    """what the task needs to know beyond labels: its `Settings`"""
    graphs: dict[str, Graph]
    """by role: model, and ragged; or encoder and decoder"""
    search: dict[str, Any] = {}
    """a model that writes: how it chooses tokens where a call does not say (`headway.core.search.Search`)"""
    longest: Count | None = None
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
            declared = _typed(cls, content)
            _check(declared)
        except _MalformedError as error:
            raise BundleError(folder, str(error)) from error
        return declared

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

    def refuse_unlisted_links(self, folder: Path, name: str) -> None:
        """Raise BundleError if there is a link in one of the bundle's folders that leads to no listed file.

        For folders of graphs: an engine opens the files of weights that a graph names, and only listed ones are compared.
        """
        try:
            links = [entry.name for entry in os.scandir(inside(folder, name)) if entry.is_symlink()]
        except OSError as error:
            raise BundleError(folder, f"the folder {name} cannot be read: {error.strerror}") from error
        for link in sorted(f"{name}/{link}" for link in links):
            if not any(file == link or file.startswith(f"{link}/") for file in self.files):
                raise BundleError(folder, f"{link} is a link and not listed in {NAME}")


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a bundle. Raises BundleError for a name that leads out of it.

    The file or a folder above it may be a link to anywhere, as in the hub's cache or a Kubernetes volume: `verify` compares
    the content that is read with the manifest, wherever it lies.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise BundleError(folder, f"the path '{name}' leads out of it")
    try:
        (folder / path).resolve().is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, no text, links that go round
        raise BundleError(folder, f"the path {name!r} cannot be: {error}") from error
    return folder / path


def kind(folder: Path) -> str:
    """ "checkpoint" or "bundle". Raises BundleError if the folder is neither."""
    try:
        said = str(_read(folder / NAME, None).get("format", ""))
    except _MalformedError as error:
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
        json.dumps(content, ensure_ascii=False).encode()  # fails on an escaped half of a character
    except (ValueError, RecursionError) as error:
        raise _MalformedError(f"{path.name} is not JSON: {error}") from error
    except OSError as error:
        raise _MalformedError(f"{path.name} cannot be read: {error.strerror}") from error
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
    except (msgspec.ValidationError, RecursionError) as error:
        raise _MalformedError(f"{NAME}: {error}") from error


def _check(declared: Bundle) -> None:
    """Raise _MalformedError, naming the field, for what has the right type and makes no sense."""
    try:
        task = tasks.load(declared.task, "task")
    except UsageError as error:
        raise _MalformedError(f"{NAME}: {error}") from error
    _check_variants(declared, hasattr(task, "GRAPH"))
    fitted = {f"variants.{name}.settings": v.settings for name, v in declared.variants.items() if v.settings}
    for field, settings in {"settings": declared.settings, **fitted}.items():
        own = _part(field, settings, task.Settings)
        if "decoder" in declared.graphs:
            _check_search(declared, own)
    if "model" in declared.graphs:
        _check_outputs(declared, cast(EncoderTask, task))


def _check_variants(declared: Bundle, encoder: bool) -> None:
    may = {RAGGED} & declared.graphs.keys() if encoder else set[str]()
    roles = sorted(declared.graphs.keys() - may)
    if roles not in ([["model"]] if encoder else [["decoder"], ["decoder", "encoder"]]):
        raise _wrong("graphs", f"{declared.task} has no graphs {sorted(declared.graphs)}")
    if not declared.variants:
        raise _wrong("variants", "there are none")
    for name, variant in declared.variants.items():
        if sorted(variant.graphs.keys() - may) != roles:
            raise _wrong(
                f"variants.{name}.graphs", f"must be files of {roles}, not of {sorted(variant.graphs)}"
            )
        _part(f"variants.{name}.parity", variant.parity, Figures)


def _check_outputs(declared: Bundle, task: EncoderTask) -> None:
    """An encoder's graph gives what the task reads, a class for each label."""
    shapes = {tensor.name: tensor.shape for tensor in declared.graphs["model"].outputs}
    for name in task.READ:
        shape, labels = shapes.get(name, []), len(declared.labels)
        if len(shape) != len(task.GRAPH[name]):
            raise _wrong("graphs.model.outputs", f"no '{name}' of {', '.join(task.GRAPH[name])}")
        if task.GRAPH[name][-1] == "classes" and shape[-1] != max(1, labels):
            raise _wrong("labels", f"are {labels}, but '{name}' has {shape[-1]} classes")


def _check_search(declared: Bundle, settings: msgspec.Struct) -> None:
    """`search` with the task's settings, which go before it, suits the model."""
    shapes = {tensor.name: tensor.shape for tensor in declared.graphs["decoder"].outputs}
    vocabulary = next(reversed(shapes.get("logits", [])), None)
    if not isinstance(vocabulary, int):
        raise _wrong("graphs.decoder.outputs", "no 'logits' of a known size")
    own = {
        name: value
        for name, value in msgspec.to_builtins(settings).items()
        if name in Search.__struct_fields__ and value is not None
    }
    try:
        search = _part("search", declared.search, Search).changed(**own)
        search.check(vocabulary)
    except UsageError as error:
        raise _wrong("search", str(error)) from error
    if "encoder" in declared.graphs and search.decoder_start_token_id is None:
        raise _wrong("search", "decoder_start_token_id: an encoder-decoder needs it")


def _part(field: str, value: Any, cls: type[S]) -> S:
    try:
        return msgspec.convert(value, cls)
    except msgspec.ValidationError as error:
        raise _wrong(field, str(error)) from error


def _wrong(field: str, problem: str) -> _MalformedError:
    return _MalformedError(f"{NAME}: {field}: {problem}")


def _seal(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
