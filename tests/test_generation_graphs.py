"""Graphs of models that write, each architecture tiny and random: PyTorch's logits, one op per attention, same bytes."""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from headway.core.errors import CheckpointError
from headway.core.manifest import Graph
from headway.core.tolerance import PRECISION
from headway.export import cache, contract, generation, generation_settings, graph, rms, store
from headway.export.engine import base as engines
from headway.export.engine import cuda
from headway.runtime.generation.engine import Engine

ROOT = Path(__file__).parents[1]
VOCABULARY, PAD, START, END = 61, 0, 1, 2
SPECIAL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
    "tie_word_embeddings": False,
}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "forced_eos_token_id": None,
}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "head_dim": 8,
}
BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (model type, its sizes)
    "t5": ("t5", T5),
    "flan-t5": ("t5", T5 | {"feed_forward_proj": "gated-gelu"}),
    "mt5": ("mt5", T5),
    "bart": ("bart", BART),
    "mbart": ("mbart", BART),
    "marian": ("marian", BART),
    "pegasus": ("pegasus", BART),
    "bert-to-bert": ("encoder-decoder", {}),
    "gpt2": ("gpt2", {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "opt": ("opt", LLAMA | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("llama", LLAMA),
    "qwen2": ("qwen2", LLAMA),
    "qwen3": ("qwen3", LLAMA),
    "smollm3": ("smollm3", LLAMA | {"num_hidden_layers": 4}),
}
ENCODER_DECODERS = list(SIZES)[:8]
DECODERS = list(SIZES)[8:]
SCALES = {  # standard deviation of linear layers and of tables, where 0.5 makes a model write one token only,
    "bart": (0.2, 1.0),
    "mbart": (0.2, 1.0),
    "marian": (0.2, 1.0),
    "bert-to-bert": (0.2, 1.0),
    "flan-t5": (0.3, 0.5),  # or makes PyTorch itself differ in fp32 from fp64 by more than the tolerance
    "mt5": (0.3, 0.5),
}
SOURCES = [[5, 9, 33, 21, 8, 40, 7, 17, 2], [11], [30, 12, 55, 2], [6, 28, 3, 19, 44, 2]]


def config_of(name: str) -> Any:
    kind, sizes = SIZES[name]
    if kind == "encoder-decoder":
        wide = transformers.BertConfig(**BERT | {"hidden_size": 16})  # the halves may differ
        half = transformers.BertConfig(**BERT, is_decoder=True, add_cross_attention=True)
        made = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(wide, half)
        for key, value in SPECIAL.items():
            setattr(made, key, value)
        made.decoder_start_token_id = START
        return made
    start = {"decoder_start_token_id": START} if name in ENCODER_DECODERS else {}
    return AutoConfig.for_model(kind, **(sizes | SPECIAL | start))


@functools.cache
def opened(name: str) -> Any:
    """A model with weights that put its logits far apart and let it write many tokens, as a checkpoint in memory."""
    torch.manual_seed(1)
    auto = AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else AutoModelForCausalLM
    model = auto.from_config(config_of(name)).train(False)
    linear, table = SCALES.get(name, (0.5, 0.5))
    with torch.no_grad():
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                if weight.ndim > 1:
                    weight.normal_(0, table if isinstance(module, torch.nn.Embedding) else linear)
        model.get_output_embeddings().weight.normal_(0, table)
    for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, key, getattr(model.config, key, None))
    return SimpleNamespace(folder=Path(name), model=model)


RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
SHARED = Path(tempfile.gettempdir()) / f"headway-graphs-{RUN}"
"""of all processes of a test run, as to trace a model takes seconds"""


@functools.cache
def traced(name: str) -> dict[str, generation.Traced]:
    folder = SHARED / name
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "lock"):
        if not (folder / "whole").exists():
            for role, made in generation.build(opened(name)).items():
                ir.save(made.model, folder / f"{role}.traced")
                (folder / f"{role}.json").write_bytes(msgspec.json.encode(made.declared))
            (folder / "whole").touch()
    return {
        path.stem: generation.Traced(
            ir.load(path), msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Graph)
        )
        for path in sorted(folder.glob("*.traced"), reverse=True)
    }


@functools.cache
def graph_files(name: str) -> dict[str, Path]:
    graphs = traced(name)
    folder = Path(tempfile.mkdtemp(dir=SHARED))
    files = {role: folder / f"{role}.onnx" for role in graphs}
    for role, path in files.items():
        made = graphs[role]
        model = rms.fuse(store.twin(made.model))
        ir.save(
            cache.in_place(model, cache.declare(made.declared), name) if role == "decoder" else model, path
        )
    return files


@functools.cache
def engine(name: str) -> Engine:
    return Engine(graph_files(name), 1, generation_settings.longest(opened(name)))


def assert_close(found: Any, expected: Any) -> None:
    assert np.abs(found - expected).max() <= PRECISION["fp32"].worst * expected.std()


def pytorch_logits(name: str, source: list[int], target: list[int]) -> Any:
    """Logits (T, V) after each token of `target`, which an encoder-decoder writes and a decoder alone reads."""
    ids = {"decoder_input_ids": torch.tensor([target])} if name in ENCODER_DECODERS else {}
    first = source if name in ENCODER_DECODERS else target
    with torch.no_grad():
        return opened(name).model(torch.tensor([first]), **ids).logits[0].numpy()


def test_a_decoder_alone_gives_the_last_logits_to_tools_that_ask_for_none() -> None:
    made = traced("gpt2")["decoder"]
    session = store.session(made.model, threads=1)
    ids = np.array([[5, 6, 7]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(3)[None]}
    for tensor in made.declared.inputs:
        if tensor.name.startswith("past."):
            heads, size = int(tensor.shape[1]), int(tensor.shape[3])
            feed[tensor.name] = np.zeros((1, heads, 0, size), np.float32)  # type: ignore[assignment]
    (logits,) = session.run(["logits"], feed)
    assert_close(logits[:, 0], pytorch_logits("gpt2", [], [5, 6, 7])[-1:])


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders(name: str) -> None:
    """Token by token, sources of many lengths together, against PyTorch with each source alone."""
    target = [START, 14, 9, 52, 52, 31, 8, 60, 7]
    expected = [pytorch_logits(name, source, target) for source in SOURCES]
    decoding, logits = engine(name).begin(SOURCES, START)
    for place, token in enumerate([*target[1:], END]):
        assert_close(logits, np.stack([e[place] for e in expected]))
        logits = decoding.step(np.full((len(SOURCES), 1), token))


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name: str) -> None:
    """Prompts of many lengths together, then token by token, against PyTorch with each text alone."""
    more = [14, 9, 52, 52, 31, 8, 60, 7]
    texts = [source + more for source in SOURCES]
    expected = [pytorch_logits(name, [], text) for text in texts]
    decoding, logits = engine(name).begin(SOURCES, START)
    for place, token in enumerate(more):
        assert_close(
            logits, np.stack([e[len(s) - 1 + place] for e, s in zip(expected, SOURCES, strict=True)])
        )
        logits = decoding.step(np.full((len(SOURCES), 1), token))
    for found, wanted in zip(engine(name).logits(texts), expected, strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize("name", SIZES)
def test_several_tokens_at_once(name: str) -> None:
    """The cache may be empty or not, and a step may have any length."""
    rest = np.array([[14, 9, 52]] * len(SOURCES))
    at_once = engine(name).begin(SOURCES, START)[0].step(rest)
    decoding, _ = engine(name).begin(SOURCES, START)
    for place in range(3):
        logits = decoding.step(rest[:, place : place + 1])
    assert_close(at_once, logits)


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2"])
@profile(max_examples=5, deadline=None)
@given(data=st.data())
def test_rows_that_follow_other_rows(name: str, data: Any) -> None:
    """Caches that are rearranged in place, whatever follows what, against every row's own tokens read from the start."""
    number, beams = len(SOURCES), data.draw(st.integers(1, 4), "beams")
    decoding, _ = engine(name).begin(SOURCES, START)
    parents = np.arange(number).repeat(beams)
    source, texts = parents, [[] for _ in parents]
    for _ in range(4):
        new = np.array(data.draw(lists_of(st.integers(3, 60), len(parents)), "tokens"))
        texts = [[*texts[p], int(token)] for p, token in zip(parents, new, strict=True)]
        logits = decoding.step(new[:, None], parents).copy()
        alone = [from_the_start(name, s, text) for s, text in zip(source, texts, strict=True)]
        assert_close(logits, np.concatenate(alone))
        kept = data.draw(
            st.sets(st.sampled_from(sorted(set(source.tolist()))), min_size=1), "sources that go on"
        )
        first = np.array([np.flatnonzero(source == s)[0] for s in sorted(kept)])
        parents = first.repeat(beams) + data.draw(
            lists_of(st.integers(0, beams - 1), beams * len(kept)), "parents"
        )
        source = source[parents]


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_rows_of_sources_that_have_unequally_many(name: str) -> None:
    """As many rows as there were sources, but not one of each."""
    decoding, _ = engine(name).begin(SOURCES[:3], START)
    logits = decoding.step(np.array([[14], [9], [52]]), np.array([0, 1, 2]))
    for source, texts in (([0, 0, 1], [[14, 8], [14, 31], [9, 60]]), ([0, 1], [[14, 31, 7], [9, 60, 5]])):
        parents = [0, 0, 1] if len(source) == 3 else [1, 2]
        logits = decoding.step(np.array(texts)[:, -1:], np.array(parents))
        alone = [from_the_start(name, s, text) for s, text in zip(source, texts, strict=True)]
        assert_close(logits, np.concatenate(alone))


@pytest.mark.parametrize("name", SIZES)
def test_rows_that_join_others(name: str) -> None:
    """Behind padding, whether they have read more or less, and go on when the others have left."""
    assert engine(name).joinable
    texts = [[14, 9, 52, 8], [31, 60, 7, 5, 44], [6, 9]]
    decoding, _ = engine(name).begin(SOURCES[:1], START)
    for token in texts[0][:3]:
        decoding.step(np.array([[token]]))
    joining, _ = engine(name).begin(SOURCES[1:2], START)
    decoding.join(joining)
    decoding.step(np.array([[texts[0][3]], [texts[1][0]]]))
    long, _ = engine(name).begin([SOURCES[2]], START)
    for token in texts[1][1:3]:
        logits = decoding.step(np.array([[token]]), np.array([len(decoding) - 1]))
    assert len(decoding) == 1
    assert_close(logits, from_the_start(name, 1, texts[1][:3]))
    long.join(decoding)
    rest = np.array([texts[2][:1] * 2, texts[2][1:] * 2, texts[1][3:]])
    logits = long.step(rest, np.array([0, 0, 1]))
    wanted = [(2, texts[2][:1] * 2), (2, texts[2][1:] * 2), (1, texts[1])]
    assert_close(logits, np.concatenate([from_the_start(name, source, text) for source, text in wanted]))


def lists_of(values: Any, size: int) -> Any:
    return st.lists(values, min_size=size, max_size=size)


def from_the_start(name: str, source: int, text: list[int]) -> Any:
    decoding, _ = engine(name).begin([SOURCES[source]], START)
    return decoding.step(np.array([text]))


@pytest.mark.parametrize("name", SIZES)
def test_caches_are_written_in_place(name: str) -> None:
    made = traced(name)["decoder"]
    declared = cache.declare(made.declared)
    found = cache.in_place(store.twin(made.model), declared, name).graph
    caches = [t for t in declared.inputs if t.name.startswith("past.")]
    assert [t.shape[2] for t in caches] == ["room"] * len(caches)
    scattered = {str(n.inputs[0].name): str(n.outputs[0].name) for n in found if n.op_type == "TensorScatter"}
    assert scattered == {t.name: t.name.replace("past", "present") for t in caches}
    assert not [n for n in found if n.op_type == "Concat" and str(n.inputs[0].name) in scattered]


@pytest.mark.parametrize("name", ["t5", "llama", "qwen3"])
def test_rms_normalization_is_one_op(name: str) -> None:
    plain = traced(name)["decoder"].model
    fused = rms.fuse(store.twin(plain)).graph
    ops, before = (Counter(n.op_type for n in g) for g in (fused, plain.graph))
    assert ops["RMSNormalization"] == before["ReduceMean"] > 2


@pytest.mark.parametrize("name", SIZES)
def test_sizes_for_the_manifest(name: str) -> None:
    found = graph.architecture(opened(name))
    assert found["model_type"] == SIZES[name][0]
    assert (found["hidden_size"], found["vocab_size"]) == (32, 61)


@pytest.mark.parametrize("name", SIZES)
def test_every_attention_is_one_op(name: str) -> None:
    graphs = {role: t.model.graph for role, t in traced(name).items()}
    ops = Counter(node.op_type for node in graphs["decoder"])
    layers = sum(v.name.startswith("present.") for v in graphs["decoder"].outputs) // 2
    assert layers >= 2
    assert ops["Attention"] == layers * len(graphs)
    assert ops["Softmax"] == 0


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_keys_of_the_source_are_computed_by_the_encoder(name: str) -> None:
    weights = {role: set(t.model.graph.initializers) for role, t in traced(name).items()}
    cross = ("EncDecAttention.", "encoder_attn.", "crossattention.self.")
    of_source = {n for n in weights["encoder"] if any(c in n for c in cross)}
    assert any(".k" in n for n in of_source)
    assert not of_source & weights["decoder"]
    assert not {n for n in weights["encoder"] - of_source if n.startswith("model.decoder.block")}
    assert not {n for n in weights["decoder"] if ".encoder." in n and "layer" in n and "decoder" not in n}


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "smollm3"])
def test_cache_has_only_the_key_value_heads(name: str) -> None:
    declared = {t.name: t.shape for t in traced(name)["decoder"].declared.inputs}
    assert declared["past.0.key"] == ["rows", 2, "past", 8]
    assert "Expand" not in {node.op_type for node in traced(name)["decoder"].model.graph}


def digests(*names: str) -> list[str]:
    models = [ir.serde.serialize_model(t.model) for name in names for t in traced(name).values()]
    return [hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in models]


def test_same_bytes_in_two_processes() -> None:
    other_run = {n: v for n, v in os.environ.items() if n != "PYTEST_XDIST_TESTRUNUID"}  # shares nothing
    code = "from tests.test_generation_graphs import digests; print(*digests('pegasus', 'llama'))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=other_run | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == digests("pegasus", "llama")


def test_nothing_of_the_machine_is_in_a_graph() -> None:
    for each in traced("gpt2").values():
        assert str(ROOT).encode() not in ir.serde.serialize_model(each.model).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "sizes", "says"),
    [
        ("mistral", LLAMA | {"sliding_window": 4}, "DynamicSlidingWindowLayer"),
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}, "attention of the model type 'bloom'"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, sizes: dict[str, Any], says: str) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | SPECIAL)))
    with pytest.raises(CheckpointError, match=says):
        generation.build(SimpleNamespace(folder=Path(kind), model=model))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SIZES)
def test_no_step_on_a_gpu_waits_for_the_processor(name: str) -> None:
    """No shape depends on how much is written, and no kernel wants a size that the processor reckons."""
    for target in ("cuda", "tensorrt"):
        made = traced(name)["decoder"]
        declared = cache.declare(made.declared, target)
        model = engines.load(target).rewrite(cache.in_place(store.twin(made.model), declared, name, target))
        contract.check(model, declared, name)
        assert cuda.refused(model) == []
        told = {value for value in model.graph.inputs if value.name == "written"}
        for node in model.graph:
            places = [i for i, value in enumerate(node.inputs) if value in told]
            assert not set(places) & set(cuda.ON_PROCESSOR.get(node.op_type, ())), node
            if places and node.op_type != "Shape":  # shapes are known without it
                told.update(node.outputs)


def test_a_step_that_would_wait_for_the_processor_is_told() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 24]>
        steps (int64[rows, step] input_ids, int64 written, float[rows, step] values) => (float[rows, step] made) {
            shape = Shape<start: int = 1, end: int = 2>(input_ids)
            size = Squeeze(shape)
            number = Cast<to: int = 1>(size)
            made = Mul(values, number)
        }"""
    model = ir.from_onnx_text(text)
    assert cuda.refused(model) == ["made: Mul would wait for a size from the processor"]
