"""One engine that is wanted: looked for, and built if it is not there, by one process at a time.

`python -m headway.runtime.tensorrt.order ORDER` builds one, so that a build can take its
memory with it, and whatever goes wrong in it, while another process answers requests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headway.core import manifest
from headway.core.errors import BundleError, HeadwayError, UnavailableError
from headway.core.manifest import Bundle
from headway.runtime.cuda import Device
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt import build as builder
from headway.runtime.tensorrt import ranges
from headway.runtime.tensorrt.key import Key, Options, Target, sha256_of_graph
from headway.runtime.tensorrt.library import Library, open_library
from headway.runtime.tensorrt.store import Engine, Store, folders


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be built, and where it is to lie."""

    graph: str
    """path of the ONNX file"""
    sha256: str
    """over the graph's files"""
    library: str
    target: Target
    options: Options
    places: list[str]
    """folders for engines"""
    index: int = 0
    """of the GPU to build on"""

    @property
    def store(self) -> Store:
        return Store([Path(place) for place in self.places])

    def key(self, library: Library) -> Key:
        """Of the engine that is built."""
        return Key.of(self.sha256, library, self.target, self.options.version_compatible)


def order(
    bundle: Path,
    declared: Bundle,
    graph: str,
    library: Library,
    target: Target,
    options: Options | None = None,
    index: int = 0,
) -> Order:
    """An order of an engine for a bundle's graph, by default with the options' defaults."""
    options = options or Options(shapes=Shapes(declared.max_length))
    role = next((r for v in declared.variants.values() for r, file in v.graphs.items() if file == graph), "")
    return Order(
        graph=str(manifest.inside(bundle, graph).absolute()),
        sha256=sha256_of_graph(declared, bundle, graph),
        library=library.name,
        target=target,
        options=msgspec.structs.replace(options, ranges=ranges.profiles(declared, role)),
        places=[str(place.absolute()) for place in folders(bundle)],
        index=index,
    )


def keys(wanted: Order, library: Library) -> list[Key]:
    """Of all engines that serve an order."""
    return [Key.of(wanted.sha256, library, wanted.target, compatible) for compatible in (False, True)]


def find(wanted: Order, library: Library) -> Engine | None:
    """An engine for an order, with whatever options it was built."""
    return next((e for key in keys(wanted, library) if (e := wanted.store.find(key)) is not None), None)


def make(wanted: Order, library: Library, again: bool = False) -> bool:
    """Build and keep an engine; whether that was needed, as another process may have been faster.

    `again`: build even where there is one, or where it is known that the library does not take the graph.
    Raises BundleError, UnavailableError or OutputError.
    """
    store, key = wanted.store, wanted.key(library)
    with store.locked(key.name):
        if not again and find(wanted, library) is not None:
            return False
        if not again and (reason := store.refusal(key)) is not None:
            raise UnavailableError(f"an engine for {Path(wanted.graph).parent.name}", reason)
        store.forgive(key)
        try:
            parsed = builder.parse(library, Path(wanted.graph), wanted.options.ranges)
        except (BundleError, UnavailableError) as error:
            store.refuse(key, str(error))
            raise
        built = builder.build(parsed, wanted.options, wanted.target.capability, store.timings(key))
        store.keep(key, Engine(built.plan, wanted.options))
    if built.timings:
        with store.locked("timings"):
            store.note(key, builder.combined(library, built.timings, store.timings(key)))
    return True


class Apart:
    """A process that builds and keeps an engine."""

    def __init__(self, wanted: Order) -> None:
        command = [
            sys.executable,
            "-m",
            "headway.runtime.tensorrt.order",
            msgspec.json.encode(wanted).decode(),
        ]
        self._wanted, self._given_up, self._parent = wanted, False, os.getpid()
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )

    def wait(self) -> bool:
        """Wait for its end; False if it was given up. Raises UnavailableError with its last words if it failed."""
        _, words = self._process.communicate()
        if self._process.returncode and not self._given_up:
            last = words.strip().splitlines() or [f"the build ended with {self._process.returncode}"]
            raise UnavailableError(f"an engine for {Path(self._wanted.graph).parent.name}", last[-1])
        return not self._given_up

    def end(self) -> None:
        """Give it up; nothing half-built is left. Of no effect when it is over, and in a forked child."""
        if os.getpid() != self._parent:
            return
        self._given_up = True
        self._process.kill()


def main(arguments: Sequence[str]) -> int:
    """Build an order."""
    wanted = msgspec.json.decode(arguments[0], type=Order)
    try:
        library = open_library(wanted.library)
        if not library.portable:
            Device(wanted.index).use()  # TensorRT builds on the thread's GPU
        make(wanted, library)
    except HeadwayError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
