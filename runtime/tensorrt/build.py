"""From an ONNX graph to an engine. Precision is what the graph says: nothing is rounded that is not rounded there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headway.core.errors import BundleError, UnavailableError
from headway.runtime.shapes import Profile
from headway.runtime.tensorrt import ranges as ranges_of
from headway.runtime.tensorrt.key import Options
from headway.runtime.tensorrt.library import Library

MOST_TOLD = 5
"""reasons in a message"""


class Built(NamedTuple):
    """An engine, and what was learned on the way."""

    plan: bytes
    timings: bytes
    """TensorRT's own notes on how fast each way to compute a layer is; empty: it keeps none"""


class Parsed(NamedTuple):
    """A graph as the library understands it."""

    library: Library
    graph: Path
    log: Any
    builder: Any
    network: Any


def parse(library: Library, graph: Path, ranges: Sequence[ranges_of.Profile] = ()) -> Parsed:
    """Read a verified graph.

    Args:
        ranges: of a model that writes, as the options have them.
    Raises:
        BundleError: the file is no graph with inputs of (rows, tokens), or with those that have ranges.
        UnavailableError: the library does not take the graph. The message names nodes.
    """
    trt, log = library.module, library.logger()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        reasons = [_reason(error) for error in errors]
        if not any(error.node_operator() for error in errors):
            problem = f"{_named(graph)} cannot be read: {_told(reasons or log.errors)}"
            raise BundleError(graph.parent.parent, problem)
        raise UnavailableError(
            f"{_told(reasons)} of {_named(graph)}, in {library.name} {library.version},",
            "export with --target tensorrt, or choose another --precision or --backend",
        )
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    ranks = {given.name: len(tuple(given.shape)) for given in inputs}
    for profile in ranges:
        if {name: len(least) for name, (least, _, _) in profile.items()} != ranks:
            raise BundleError(graph.parent.parent, f"{_named(graph)} has other inputs than are declared")
    if not network.num_outputs or not ranks or (not ranges and any(rank != 2 for rank in ranks.values())):
        raise BundleError(graph.parent.parent, f"{_named(graph)} has not inputs of rows and tokens alone")
    return Parsed(library, graph, log, builder, network)


def build(parsed: Parsed, options: Options, capability: tuple[int, int], timings: bytes = b"") -> Built:
    """Build an engine.

    Args:
        capability: what the engine is for; TensorRT builds for the GPU of the calling thread, TensorRT-RTX for any.
        timings: of earlier builds on the same GPU, to go on from.
    Raises:
        UnavailableError: the library cannot, for such a GPU or with these options, or for want of memory.
    """
    library, graph, log, builder, network = parsed
    trt, config = library.module, builder.create_builder_config()
    for ranges in options.ranges or [_square(network, profile) for profile in options.shapes.profiles]:
        config.add_optimization_profile(_profile(builder, ranges))
    config.clear_flag(trt.BuilderFlag.TF32)  # it would round fp32 to 10 bits
    for flag in _flags(trt, options):
        config.set_flag(flag)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if library.portable:
        set_capability(library, config, capability)
    else:
        _go_on_from(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        gpu = "compute capability {}.{}".format(*capability)
        raise UnavailableError(
            f"an engine of {_named(graph)} by {library.name} {library.version} for {gpu}",
            f"{_told(log.errors)}; choose another --precision or --backend",
        )
    return Built(bytes(plan), b"" if library.portable else bytes(config.get_timing_cache().serialize()))


def combined(library: Library, ours: bytes, theirs: bytes) -> bytes:
    """Timings of two builds on the same GPU, in one."""
    if not theirs:
        return ours
    config = library.module.Builder(library.logger()).create_builder_config()
    whole, other = config.create_timing_cache(ours), config.create_timing_cache(theirs)
    if whole is None or other is None or not whole.combine(other, False):
        return ours
    return bytes(whole.serialize())


def _square(network: Any, shapes: Profile) -> ranges_of.Profile:
    """The same for every input."""
    least, most = list(shapes.least), list(shapes.most)
    return {network.get_input(i).name: (least, most, most) for i in range(network.num_inputs)}


def _profile(builder: Any, ranges: ranges_of.Profile) -> Any:
    made = builder.create_optimization_profile()
    for name, (least, usual, most) in ranges.items():
        made.set_shape(name, tuple(least), tuple(usual), tuple(most))
    return made


def _flags(trt: Any, options: Options) -> list[Any]:
    flags = [trt.BuilderFlag.VERSION_COMPATIBLE] if options.version_compatible else []
    if options.strip:  # REFIT_IDENTICAL: with the very weights that it was built of, so that it is as fast
        flags += [trt.BuilderFlag.STRIP_PLAN, trt.BuilderFlag.REFIT_IDENTICAL]
    return flags


def set_capability(library: Library, config: Any, capability: tuple[int, int]) -> None:
    """Let TensorRT-RTX build for GPUs of a compute capability. Raises UnavailableError if it does not know it."""
    known = library.module.ComputeCapability
    name = "SM{}{}".format(*capability)
    if not hasattr(known, name):
        raise UnavailableError(
            f"compute capability {capability[0]}.{capability[1]} in {library.name} {library.version}",
            f"it has {', '.join(n for n in dir(known) if n.startswith('SM'))}",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(known, name), 0)


def _go_on_from(config: Any, timings: bytes) -> None:
    """Let a build use earlier timings; those of another TensorRT or GPU are left aside."""
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _reason(error: Any) -> str:
    """What an error says, and of which node. "false" is the text of a check that failed."""
    said, name = str(error.desc()).strip(), f" ({error.node_name()})" if error.node_name() else ""
    parts = (f"{error.node_operator()}{name}", "" if said == "false" else said)
    return ": ".join(part for part in parts if part)


def _told(reasons: list[str]) -> str:
    """The first reasons, each once."""
    each = list(dict.fromkeys(reason.strip() for reason in reasons if reason.strip()))
    more = f" and {len(each) - MOST_TOLD} more" if len(each) > MOST_TOLD else ""
    return "; ".join(each[:MOST_TOLD]) + more if each else "it does not say why"


def _named(graph: Path) -> str:
    return f"{graph.parent.name}/{graph.name}"
