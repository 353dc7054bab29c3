"""The parser and builder of TensorRT-RTX, which need no GPU, on the graphs of every task, architecture and precision.

What passes here is that they take a graph, for compute capabilities 8.0, 8.9 and 12.0. It is not TensorRT 11's own
acceptance, and no kernel has run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import onnx_ir as ir
import pytest
import transformers

from headway.core import tasks
from headway.core.errors import BundleError, UnavailableError
from headway.core.manifest import Bundle
from headway.core.tasks import EncoderTask
from headway.export import encoders, store
from headway.export import graph as tracer
from headway.export.engine import tensorrt as engine
from headway.export.engine.base import PRECISIONS
from headway.export.precision import base
from headway.runtime.shapes import Shapes
from headway.runtime.tensorrt import order as orders
from headway.runtime.tensorrt.build import build, parse
from headway.runtime.tensorrt.key import Options, Target
from headway.runtime.tensorrt.library import Library, open_library
from headway.runtime.tensorrt.order import Apart, Order
from headway.runtime.tensorrt.store import PLAN
from headway.train import checkpoint as opener
from tests import precisions
from tests.conftest import Run
from tests.small import small_bundle
from tests.test_architectures import ENCODERS, model_of
from tests.test_export_tasks import TASKS, untrained

CAPABILITIES = ((8, 0), (8, 9), (12, 0))
NARROW = (8, 9)
"""the least capability with products of 8-bit floats"""
SMALL = Options(shapes=Shapes(32, tokens=64))
"""shapes of one row and of two"""
ARCHITECTURES = (*ENCODERS, "albert", "xlm-roberta")
KINDS = PRECISIONS["tensorrt"]


@pytest.fixture(scope="module")
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")
    return open_library("tensorrt-rtx")


class Made(NamedTuple):
    """An encoder in fp32, and rows for it."""

    model: ir.Model
    feeds: list[dict[str, Any]]


def encoder(architecture: str, kind: str, folder: Path) -> Made:
    """A random model of an architecture with a task's head, as export traces it."""
    model = model_of(architecture, transformers.AutoModel, folder / "model")
    checkpoint, data = untrained(kind, model, folder)
    opened = opener.open_checkpoint(checkpoint)
    task = cast(EncoderTask, tasks.load(opened.manifest.task))
    declared = encoders.declare(opened, task, opened.model.config.hidden_size)["model"]
    examples = tasks.read_labelled(task, data, spec=opened.spec)[:8]
    rows = task.rows(examples, opened.tokenizer.backend_tokenizer, opened.spec)
    return Made(tracer.build(opened, declared), [encoders.feed(row, declared) for row in rows])


def written(made: Made, precision: str, folder: Path) -> Path:
    """A precision's graph for TensorRT."""
    model = base.load(precision).convert(store.twin(made.model), (), made.feeds)
    model = engine.rewrite(model)
    assert not engine.refused(model)
    (folder / precision).mkdir(parents=True, exist_ok=True)
    store.write(model, folder / precision / "model.onnx")
    return folder / precision / "model.onnx"


def takes(library: Library, path: Path) -> None:
    """The parser takes the whole graph, by its own account, and its types are those of the graph."""
    trt, log = library.module, library.logger()
    network = trt.Builder(log).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    supported = parser.supports_model_v2(path.read_bytes(), str(path))
    reasons = [
        (e.node_operator(), e.node_name(), e.desc()) for e in map(parser.get_error, range(parser.num_errors))
    ]
    assert supported, reasons
    assert not log.errors


def builds(
    library: Library, path: Path, precision: str, capabilities: Sequence[tuple[int, int]] = CAPABILITIES
) -> None:
    """Engines for those capabilities that have the precision's products."""
    takes(library, path)
    parsed = parse(library, path)
    for capability in capabilities:
        if precision == "fp8" and capability < NARROW:
            continue
        assert len(build(parsed, SMALL, capability).plan) > 1000, capability


def pairs() -> list[Any]:
    """Every architecture with every task in every precision for every capability. In the suite each architecture has
    one task, two precisions, and one capability for each of them.
    """
    quick, turn = cycle(KINDS), cycle(reversed(CAPABILITIES))
    found = []
    for i, architecture in enumerate(ARCHITECTURES):
        some = [(next(quick), [next(turn)]) for _ in range(2)]
        found.append(pytest.param(architecture, TASKS[i % len(TASKS)], some))
        every = [(precision, CAPABILITIES) for precision in KINDS]
        found += [pytest.param(architecture, kind, every, marks=pytest.mark.grid) for kind in TASKS]
    return found


@pytest.mark.parametrize(("architecture", "kind", "some"), pairs())
def test_every_encoder(
    architecture: str,
    kind: str,
    some: Sequence[tuple[str, Sequence[tuple[int, int]]]],
    rtx: Library,
    tmp_path: Path,
) -> None:
    made = encoder(architecture, kind, tmp_path)
    for precision, capabilities in some:
        builds(rtx, written(made, precision, tmp_path / "graphs"), precision, capabilities)


def test_weights_that_layers_share(rtx: Library, tmp_path: Path) -> None:
    made = encoder("albert", "single", tmp_path)
    for precision in ("int8-weights", "int4-weights"):
        builds(rtx, written(made, precision, tmp_path / "graphs"), precision, [(8, 0)])


# what it does not take


def graph_of(precision: str, folder: Path, rewritten: bool = True) -> Path:
    """A small encoder's graph."""
    model = base.load(precision).convert(precisions.fp32(), (), precisions.feeds(6))
    (folder / precision).mkdir()
    store.write(engine.rewrite(model) if rewritten else model, folder / precision / "model.onnx")
    return folder / precision / "model.onnx"


def test_a_graph_for_a_processor_is_refused_by_name(rtx: Library, tmp_path: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"MatMulInteger \(.*\).* and \d+ more of int8/model.onnx, in tensorrt-rtx"
    ):
        parse(rtx, graph_of("int8", tmp_path, rewritten=False))


def test_attention_without_a_kernel_is_not_built(rtx: Library, tmp_path: Path) -> None:
    parsed = parse(rtx, graph_of("fp32", tmp_path, rewritten=False))
    with pytest.raises(
        UnavailableError, match=r"^an engine of fp32/model.onnx by tensorrt-rtx .* capability 8.9 is not"
    ):
        build(parsed, SMALL, NARROW)


def test_8_bit_floats_need_a_gpu_that_has_them(rtx: Library, tmp_path: Path) -> None:
    parsed = parse(rtx, graph_of("fp8", tmp_path))
    with pytest.raises(UnavailableError, match="for compute capability 8.0 is not available"):
        build(parsed, SMALL, (8, 0))


def test_a_capability_that_it_does_not_know(rtx: Library, tmp_path: Path) -> None:
    parsed = parse(rtx, graph_of("fp32", tmp_path))
    with pytest.raises(UnavailableError, match=r"^compute capability 9.0 in tensorrt-rtx .*: it has .*SM89"):
        build(parsed, SMALL, (9, 0))


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_file_that_is_no_graph(content: bytes, rtx: Library, tmp_path: Path) -> None:
    (tmp_path / "fp32").mkdir()
    (tmp_path / "fp32" / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"fp32/model.onnx"):
        parse(rtx, tmp_path / "fp32" / "model.onnx")


# behind the manager


@pytest.fixture
def wanted(rtx: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = small_bundle(tmp_path / "bundle")
    return orders.order(folder, Bundle.read(folder), "fp32/model.onnx", rtx, Target("", NARROW, ""))


def test_a_process_builds_and_others_find(rtx: Library, wanted: Order) -> None:
    assert orders.find(wanted, rtx) is None
    assert Apart(wanted).wait()
    found = orders.find(wanted, rtx)
    assert found is not None
    assert found.options == wanted.options
    assert not orders.make(wanted, rtx)
    assert orders.find(msgspec.structs.replace(wanted, target=Target("", (12, 0), "")), rtx) is None
    plan = Path(wanted.places[0]) / wanted.key(rtx).name / PLAN
    plan.write_bytes(plan.read_bytes()[:-100])
    assert orders.find(wanted, rtx) is None
    assert orders.make(wanted, rtx)
    assert orders.find(wanted, rtx) is not None


def test_of_two_processes_one_builds(rtx: Library, wanted: Order) -> None:
    code = (
        "import sys, msgspec\n"
        "from headway.runtime.tensorrt.library import open_library\n"
        "from headway.runtime.tensorrt.order import Order, make\n"
        "wanted = msgspec.json.decode(sys.argv[1], type=Order)\n"
        "print(make(wanted, open_library(wanted.library)))"
    )
    command = [sys.executable, "-c", code, msgspec.json.encode(wanted).decode()]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in both) == ["False", "True"]


def test_a_process_that_fails_tells_why(wanted: Order) -> None:
    Path(wanted.graph).write_bytes(b"damaged")
    with pytest.raises(UnavailableError, match=r"fp32/model.onnx"):
        Apart(wanted).wait()


def test_a_process_that_is_given_up(wanted: Order) -> None:
    building = Apart(wanted)
    building.end()
    assert not building.wait()
    building.end()


def test_the_command(run: Run, rtx: Library, wanted: Order) -> None:
    bundle = Path(wanted.graph).parents[1]
    arguments = ("engines", bundle, "--library", "tensorrt-rtx", "--precision", "fp32")
    ran = run(*arguments, "--sm", "89")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "fp32 for any GPU of compute capability 8.9: built\n"
    assert run(*arguments, "--sm", "89").err == "fp32 for any GPU of compute capability 8.9: is there\n"
    assert orders.find(wanted, rtx) is not None
    assert run(*arguments, "--sm", "89", "--again").err.endswith("built\n")
    for code, *wrong in (
        (2, "--sm", "8.9"),
        (2, "--sm", "89", "--batch-tokens", "0"),
        (2, "--sm", "89", "--workspace-mib", "0"),
        (2, "--sm", "89", "--precision", "fp16"),
        (5, "--sm", "90"),
        (5,),  # it asks for the GPU that is here
    ):
        assert run(*arguments, *wrong).code == code
    assert run("engines", bundle, "--library", "tensorrt-rtx", "--sm", "89").code == 2  # none is meant for it
