"""What holds for every precision: its types, its kept layers, its bytes, its distance from fp32, its neighbours."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from headway.core import siblings
from headway.core.tolerance import PRECISION
from headway.export.precision import base
from tests import precisions
from tests.precisions import Feed

NAMES = [name for name in siblings.names(base.FAMILY) if name != "fp32"]
TEXTS = precisions.feeds(16, seed=1)


def converted(name: str, kept: tuple[str, ...] = (), pre_norm: bool = False) -> ir.Model:
    return base.load(name).convert(precisions.fp32(pre_norm), kept, precisions.feeds(32))


def logits(name: str, model: ir.Model, texts: list[Feed]) -> list[NDArray[np.float32]]:
    """As the graph says: ONNX Runtime's CPU provider has no bf16, and mistakes fp8 for int8 when it optimizes."""
    if name == "bf16":
        return precisions.evaluate(model, texts)
    return precisions.run(model, texts, optimized=name != "fp8")


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_near_fp32(name: str, pre_norm: bool) -> None:
    expected = np.concatenate([out[0] for out in precisions.run(precisions.fp32(pre_norm), TEXTS)])  # (N, C)
    found = np.concatenate([out[0] for out in logits(name, converted(name, (), pre_norm), TEXTS)])
    difference = np.abs(found - expected) / expected.std()
    assert found.dtype == np.float32
    assert 0 < difference.max() <= PRECISION[name].worst
    assert difference.mean() <= PRECISION[name].mean


@pytest.mark.parametrize("name", NAMES)
def test_a_text_alone_is_as_among_others(name: str) -> None:
    model = converted(name)
    alone = logits(name, model, TEXTS)
    together = logits(name, model, [precisions.padded(TEXTS)])[0]
    spread = np.concatenate([out[0] for out in alone]).std()
    for index, out in enumerate(alone):
        own = together[index, : out.shape[1]]
        assert np.abs(own - out[0]).max() / spread <= PRECISION[name].neighbours


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_graph_with_the_same_inputs_and_outputs(name: str) -> None:
    model = ir.to_proto(converted(name))
    onnx.checker.check_model(model, full_check=True)
    before = ir.to_proto(precisions.fp32())
    assert list(model.graph.input) == list(before.graph.input)
    assert [(o.name, o.type) for o in model.graph.output] == [(o.name, o.type) for o in before.graph.output]
    assert {o.domain for o in model.opset_import} == {""}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_twice(name: str) -> None:
    assert precisions.content(converted(name)) == precisions.content(converted(name))


@pytest.mark.parametrize("name", NAMES)
def test_kept_layers_stay_as_they_are(name: str) -> None:
    before = {layer.name: layer.weight for layer in base.layers(precisions.fp32())}
    kept = tuple(before)[1::4]  # among them one of the three that share an input
    after = {layer.name: layer.weight for layer in base.layers(converted(name, kept))}
    assert after.keys() >= set(kept)
    for layer in kept:
        np.testing.assert_array_equal(after[layer], before[layer], strict=True)
    assert not after.keys() - set(kept)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("fp16", "bf16")])
def test_with_all_layers_kept_the_products_are_those_of_fp32(name: str) -> None:
    model = precisions.fp32()
    kept = tuple(layer.name for layer in base.layers(model))
    found = logits(name, converted(name, kept), TEXTS)
    np.testing.assert_array_equal(found[0], precisions.run(precisions.fp32(), TEXTS[:1], name != "fp8")[0])


def test_every_precision_has_a_limit_and_a_sentence() -> None:
    assert PRECISION.keys() == set(siblings.names(base.FAMILY))
    sentences = {base.load(name).ABOUT for name in PRECISION}
    assert len(sentences) == len(PRECISION)
