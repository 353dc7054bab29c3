"""All engines of a bundle, built before anybody asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headway.core.errors import UsageError
from headway.core.manifest import Bundle
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.key import Options, Target
from headway.runtime.tensorrt.library import Library

TARGET = "tensorrt"
"""of the variants whose graphs are made for it"""
ROLES = ("model", "encoder", "decoder")
"""of the graphs that have engines"""


class Made(NamedTuple):
    """The engine of a variant, or those of a variant that writes."""

    variant: str
    target: Target
    built: bool
    """False: it was there, or all were"""

    @property
    def capability(self) -> str:
        return "{}.{}".format(*self.target.capability)


def build_engines(
    folder: Path,
    library: Library,
    targets: Sequence[Target],
    options: Options,
    precisions: Sequence[str] | None = None,
    again: bool = False,
    index: int = 0,
) -> Iterator[Made]:
    """Build a bundle's engines one after the other, in this process, and tell each when it is there.

    Args:
        targets: GPUs to build for; TensorRT builds for the one that the calling thread uses.
        precisions: names of variants; None: all that were exported for TensorRT.
        again: build even what is there, or is known not to be taken.
        index: of the GPU to build on.
    Raises:
        UsageError: an unknown variant, or none that was exported for TensorRT.
        BundleError: the bundle is damaged.
        UnavailableError: the library does not take a graph.
        OutputError: there is nowhere to put an engine.
    """
    declared = Bundle.read(folder)
    meant = [name for name, variant in declared.variants.items() if variant.target == TARGET]
    for name in precisions or ():
        if name not in declared.variants:
            raise UsageError(
                "--precision", f"the bundle has no '{name}'; it has {', '.join(declared.variants)}"
            )
    if not (chosen := list(precisions or meant)):
        raise UsageError("--precision", f"{folder} has no variants for it: export with --target tensorrt")
    for name in chosen:
        graphs = [declared.variants[name].graphs[role] for role in ROLES if role in declared.graphs]
        beside = [file for file in declared.files if file.startswith(tuple(f"{graph}." for graph in graphs))]
        declared.verify(folder, [*graphs, *beside])
        for part in dict.fromkeys(Path(graph).parent.as_posix() for graph in graphs):
            declared.refuse_unlisted_links(folder, part)
        for target in targets:
            wanted = [
                orders.order(folder, declared, graph, library, target, options, index) for graph in graphs
            ]
            built = [orders.make(each, library, again) for each in wanted]
            yield Made(name, target, any(built))
