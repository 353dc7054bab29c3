"""headway engines: build a bundle's TensorRT engines ahead, also for GPUs that are not here, or delete those that are stale."""

from __future__ import annotations

from pathlib import Path

from headway.cli.screen import say
from headway.core import hub
from headway.core.errors import UsageError
from headway.core.manifest import Bundle
from headway.runtime.cuda import Device
from headway.runtime.devices import place
from headway.runtime.shapes import TOKENS, Shapes
from headway.runtime.tensorrt import ahead, stale
from headway.runtime.tensorrt.key import Key, Options, Target
from headway.runtime.tensorrt.library import Library, open_library
from headway.runtime.tensorrt.store import Store, folders


def engines(
    bundle: Path,
    /,
    *,
    precision: str | None = None,
    device: str = "cuda",
    library: str | None = None,
    sm: str | None = None,
    batch_tokens: int = TOKENS,
    version_compatible: bool = False,
    strip: bool = False,
    workspace_mib: int | None = None,
    again: bool = False,
    prune: bool = False,
) -> None:
    """Build a bundle's TensorRT engines, so that `--device cuda` has them from its first request on.

    They are put into the bundle's folder engines/, or into the user's cache folder where that cannot be written.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote
    precision
        variants, separated by commas; none: all that were exported with --target tensorrt
    device
        the GPU to build on and for: cuda, or cuda:1
    library
        tensorrt or tensorrt-rtx; none: what HEADWAY_TENSORRT says, else tensorrt
    sm
        with tensorrt-rtx, which builds without a GPU: compute capabilities to build for, as 80,89,120
    batch_tokens
        padded tokens that go through an engine together, at most
    version_compatible
        let engines run on later TensorRTs of the same major version, too
    strip
        leave the weights out; they are read from the bundle whenever an engine is opened
    workspace_mib
        MiB of the GPU's memory that a layer may take to run; none: TensorRT's own limit
    again
        build even what is there, or is known not to be taken
    prune
        build none; delete those that were built of graphs which the bundle has no more, and those for this GPU that
        its driver or TensorRT has outlived, in the bundle's folder and in the user's cache folder
    """
    if batch_tokens < 1:
        raise UsageError("--batch-tokens", f"must be at least 1, not {batch_tokens}")
    if workspace_mib is not None and workspace_mib < 1:
        raise UsageError("--workspace-mib", f"must be at least 1, not {workspace_mib}")
    folder = hub.located(bundle)
    declared, opened = Bundle.read(folder), open_library(library)
    if sm is not None and not opened.portable:
        raise UsageError(
            "--sm", f"{opened.name} builds for the GPU that is here; --library tensorrt-rtx for any"
        )
    if prune:
        _prune(folder, declared, opened, Device(place(device).number))
        return
    if sm is None:
        gpu = Device(place(device).number)
        gpu.use()
        targets = [Target.of(gpu)]
    else:
        targets = [Target("", capability, "") for capability in _capabilities(sm)]
    options = Options(
        shapes=Shapes(declared.max_length, batch_tokens),
        version_compatible=version_compatible,
        strip=strip,
        workspace=None if workspace_mib is None else workspace_mib << 20,
    )
    wanted = None if precision is None else precision.split(",")
    for made in ahead.build_engines(folder, opened, targets, options, wanted, again, place(device).number):
        state = "built" if made.built else "is there"
        say(
            f"{made.variant} for {made.target.gpu or 'any GPU'} of compute capability {made.capability}: {state}"
        )


def _prune(folder: Path, declared: Bundle, library: Library, gpu: Device) -> None:
    """Tell what is deleted, and how much that was."""
    own, known = folders(folder)[0], stale.graphs(folder, declared)
    here = stale.Here(library.name, library.version, (gpu.name,), gpu.release)

    def reason(key: Key, at: Path) -> str | None:
        if at == own and key.graph not in known:  # in the cache it may be another bundle's
            return "was built of a graph that the bundle has no more"
        return stale.outlived(key, here)

    count = freed = 0
    for gone in Store(folders(folder)).prune(reason):
        count, freed = count + 1, freed + gone.bytes
        say(f"deleted {gone.folder}, {gone.bytes:,} bytes: it {gone.reason}")
    say(f"{count} engines deleted, {freed:,} bytes")


def _capabilities(sm: str) -> list[tuple[int, int]]:
    """Of 80,89,120. Raises UsageError."""
    parts = sm.split(",")
    if not all(part.isascii() and part.isdecimal() and 2 <= len(part) <= 3 for part in parts):
        raise UsageError("--sm", f"wants compute capabilities as 80,89,120, not {sm}")
    return [(int(part[:-1]), int(part[-1])) for part in parts]
