"""Checkpoint of a model that writes to its ONNX graphs: encoder and decoder, with key/value caches."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from headway.core.errors import CheckpointError
from headway.core.manifest import Graph, Tensor
from headway.export import contract, graph
from headway.train.checkpoint import Opened

ROWS, STEP, PAST, LENGTH = 2, 3, 5, 7
"""sizes of the sample that is traced: rows, new tokens, tokens in the cache, tokens of the source"""

SUMS = ("past + step", "step + past")
"""how torch names the tokens in the cache after a step"""

Named = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Traced:
    """One ONNX graph with what it was declared to take and give."""

    model: ir.Model
    declared: Graph


def build(opened: Opened) -> dict[str, Traced]:
    """Graphs by role: "decoder", and for an encoder-decoder also "encoder". The same checkpoint, the same bytes.

    Raises CheckpointError for a model whose attention or cache is of another kind.
    """
    probe = _probe(opened)
    if not opened.model.config.is_encoder_decoder:
        return {"decoder": _decoder(opened, probe)}
    return {"encoder": _encoder(opened, probe), "decoder": _crossed_decoder(opened, probe)}


def _encoder(opened: Opened, probe: Probe) -> Traced:
    """input_ids, attention_mask (batch, length) → keys and values of each cross-attention."""
    inputs = [_tensor(name, torch.int64, "batch", "length") for name in ("input_ids", "attention_mask")]
    outputs = [_tensor(n, t.dtype, "batch", t.shape[1], "length", t.shape[3]) for n, t in probe.cross.items()]
    samples = {t.name: torch.ones(ROWS, LENGTH, dtype=torch.int64) for t in inputs}  # not one tensor twice
    return _trace(opened, _Encoder(opened.model), inputs, outputs, samples)


def _decoder(opened: Opened, probe: Probe) -> Traced:
    """A decoder alone. Left padding is told by the mask and by the positions of the tokens."""
    samples = {
        "input_ids": torch.ones(ROWS, STEP, dtype=torch.int64),
        "attention_mask": torch.ones(ROWS, PAST + STEP, dtype=torch.int64),
        "position_ids": torch.arange(PAST, PAST + STEP).repeat(ROWS, 1),
        "logits_at": torch.tensor([0, STEP - 1]),
    }
    inputs = [
        _tensor("input_ids", torch.int64, "rows", "step"),
        _tensor("attention_mask", torch.int64, "rows", "total"),
        _tensor("position_ids", torch.int64, "rows", "step"),
        _tensor("logits_at", torch.int64, "kept"),
    ]
    if not _has_positions(opened.model.forward):
        del samples["position_ids"], inputs[2]
    traced = _cached(opened, _Decoder(opened.model, probe, list(samples)), probe, inputs, samples)
    (places,) = [value for value in traced.model.graph.inputs if value.name == "logits_at"]
    places.const_value = ir.tensor(np.array([-1]), name=places.name)  # for tools that do not know this input
    traced.model.graph.register_initializer(places)
    return traced


def _crossed_decoder(opened: Opened, probe: Probe) -> Traced:
    """The decoder of an encoder-decoder; `attention_mask` is the source's.

    Where tokens know their places by themselves, rows may begin behind padding: `decoder_attention_mask` says so.
    """
    samples = {
        "input_ids": torch.ones(ROWS, STEP, dtype=torch.int64),
        "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.int64),
        "decoder_attention_mask": torch.ones(ROWS, PAST + STEP, dtype=torch.int64),
        "position_ids": torch.arange(PAST, PAST + STEP).repeat(ROWS, 1),
        "logits_at": torch.tensor([0, STEP - 1]),
    }
    inputs = [
        _tensor("input_ids", torch.int64, "rows", "step"),
        _tensor("attention_mask", torch.int64, "rows", "length"),
        _tensor("decoder_attention_mask", torch.int64, "rows", "total"),
        _tensor("position_ids", torch.int64, "rows", "step"),
        _tensor("logits_at", torch.int64, "kept"),
    ]
    absolute = _takes_positions(opened.model) or _position_table(opened.model) is not None
    left_out = {"position_ids"} if not absolute else set()
    if not absolute and not hasattr(opened.model.config, "relative_attention_num_buckets"):
        left_out.add("decoder_attention_mask")  # places are counted inside, from the first column on
    inputs = [tensor for tensor in inputs if tensor.name not in left_out]
    samples = {name: sample for name, sample in samples.items() if name not in left_out}
    return _cached(opened, _CrossedDecoder(opened.model, probe, list(samples)), probe, inputs, samples)


def _cached(
    opened: Opened, module: torch.nn.Module, probe: Probe, inputs: list[Tensor], samples: Named
) -> Traced:
    """Add what both decoders have: the caches, and logits of the positions in `logits_at`."""
    past = {f"past.{name}": t for name, t in probe.past.items()}
    inputs += [_tensor(n, t.dtype, "rows", t.shape[1], "past", t.shape[3]) for n, t in past.items()]
    inputs += [_tensor(n, t.dtype, "rows", t.shape[1], "length", t.shape[3]) for n, t in probe.cross.items()]
    outputs = [_tensor("logits", torch.float32, "rows", "kept", probe.vocabulary)]
    outputs += [
        _tensor(f"present.{n}", t.dtype, "rows", t.shape[1], "total", t.shape[3])
        for n, t in probe.past.items()
    ]
    return _trace(opened, module, inputs, outputs, samples | past | probe.cross)


@dataclass(frozen=True)
class Probe:
    """What one run of the model in PyTorch shows: its caches, filled with PAST tokens of ROWS rows."""

    past: Named
    """keys and values of the self-attention (ROWS, key/value heads, PAST, head size) by "layer.key", "layer.value" """
    cross: Named
    """of the cross-attention (ROWS, heads, LENGTH, head size) by "cross.layer.key" …; empty without an encoder"""
    cache: type[Any]
    """class of one cache"""
    both: type[Any]
    """class of the pair of them"""
    source_size: int
    """of the encoder's hidden states; 0 without an encoder"""
    vocabulary: int


def _probe(opened: Opened) -> Probe:
    model = opened.model
    found = {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
    if found != {"sdpa"}:
        raise CheckpointError(
            opened.folder, f"the attention of the model type '{model.config.model_type}' cannot be exported"
        )
    ids, target = torch.ones(ROWS, LENGTH, dtype=torch.int64), torch.ones(ROWS, PAST, dtype=torch.int64)
    crossed = model.config.is_encoder_decoder
    with torch.no_grad():
        given = {"input_ids": ids, "decoder_input_ids": target} if crossed else {"input_ids": target}
        said = model(**given, use_cache=True)
    pair = said.past_key_values
    cache = getattr(pair, "self_attention_cache", pair)
    cross = getattr(pair, "cross_attention_cache", None)
    kinds = {type(layer).__name__ for c in (cache, cross) for layer in getattr(c, "layers", [])}
    if crossed != (cross is not None) or kinds != {"DynamicLayer"}:
        raise CheckpointError(
            opened.folder,
            f"the model type '{model.config.model_type}' keeps {', '.join(sorted(kinds)) or 'no cache'} between "
            "tokens; only keys and values of every token can be exported",
        )
    return Probe(
        past=_named(cache),
        cross={f"cross.{name}": t for name, t in _named(cross).items()} if crossed else {},
        cache=type(cache),
        both=type(pair),
        source_size=said.encoder_last_hidden_state.shape[-1] if crossed else 0,
        vocabulary=said.logits.shape[-1],
    )


def _named(cache: Any) -> Named:
    parts = (("key", "keys"), ("value", "values"))
    return {
        f"{i}.{name}": getattr(layer, held) for i, layer in enumerate(cache.layers) for name, held in parts
    }


class _Encoder(torch.nn.Module):
    """The encoder, and each decoder layer's keys and values of what it found: once per source, not per token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        input_ids, mask = tensors  # (B, T)
        seen = mask.to(torch.bool)[:, None, None, :]  # (B, 1, 1, T)
        # ONNX Runtime's Attention does not broadcast the second last dimension
        whole = seen.expand(-1, 1, mask.shape[1], -1)
        hidden = self.model.get_encoder()(input_ids=input_ids, attention_mask=whole).last_hidden_state
        said = self.model(  # all but the cache is left out of the graph, as nothing uses it
            encoder_outputs=(hidden,), attention_mask=seen, decoder_input_ids=input_ids[:, :1], use_cache=True
        )
        return tuple(_named(said.past_key_values.cross_attention_cache).values())


class _Decoder(torch.nn.Module):
    """A decoder alone, from a cache of `past` tokens to one of `past + step`."""

    def __init__(self, model: Any, probe: Probe, names: list[str]) -> None:
        super().__init__()
        self.model, self.probe = model, probe
        self.names = [*names, *probe.past, *probe.cross]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = dict(zip(self.names, tensors, strict=True))
        past = self._cache(inputs, self.probe.past)
        mask = inputs["attention_mask"]
        told = {"position_ids": inputs["position_ids"]} if "position_ids" in inputs else {}
        seen = _causal(inputs["input_ids"], past) & mask[:, None, None, :].to(torch.bool)
        with _head_at(self.model, inputs["logits_at"]):
            said = self.model(
                input_ids=inputs["input_ids"],
                attention_mask=seen | _itself(inputs["input_ids"], past),
                past_key_values=past,
                use_cache=True,
                **told,
            )
        return said.logits, *_named(said.past_key_values).values()

    def _cache(self, inputs: Named, names: Named) -> Any:
        held = [inputs[name] for name in names]
        return self.probe.cache(list(zip(held[::2], held[1::2], strict=True)))


class _CrossedDecoder(_Decoder):
    """The decoder of an encoder-decoder."""

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = dict(zip(self.names, tensors, strict=True))
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        past, cross = self._cache(inputs, self.probe.past), self._cache(inputs, self.probe.cross)
        if "decoder_attention_mask" in inputs:
            own = inputs["decoder_attention_mask"][:, None, None, :].to(torch.bool)
            seen = (_causal(ids, past) & own) | _itself(ids, past)
        else:
            seen = _causal(ids, past).expand(ids.shape[0], 1, -1, -1)
        places = inputs.get("position_ids")
        told = {"decoder_position_ids": places} if _takes_positions(self.model) else {}
        with _head_at(self.model, inputs["logits_at"]), _placed_at(self.model, places):
            said = self.model(
                # of these only the shape is read, as the keys and values of the source are there
                encoder_outputs=(torch.zeros(*mask.shape, self.probe.source_size),),
                attention_mask=mask[:, None, None, :].to(torch.bool).expand(-1, 1, ids.shape[1], -1),
                decoder_input_ids=ids,
                decoder_attention_mask=seen,
                past_key_values=self.probe.both(past, cross),
                use_cache=True,
                **told,
            )
        return said.logits, *_named(said.past_key_values.self_attention_cache).values()


def _places(ids: torch.Tensor, past: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Place of each new token (step, 1) and of every token (1, past + step)."""
    before, step = past.layers[0].keys.shape[2], ids.shape[1]
    return (torch.arange(step) + before)[:, None], torch.arange(before + step)[None, :]


def _causal(ids: torch.Tensor, past: Any) -> torch.Tensor:
    new, every = _places(ids, past)
    return (every <= new)[None, None]  # (1, 1, step, past + step)


def _itself(ids: torch.Tensor, past: Any) -> torch.Tensor:
    """Padding sees itself, as a softmax over nothing is not a number."""
    new, every = _places(ids, past)
    return (every == new)[None, None]  # (1, 1, step, past + step)


def _takes_positions(model: Any) -> bool:
    """Whether the decoder behind an encoder is a model of its own, which is told the places of its tokens."""
    return model.config.model_type == "encoder-decoder" and _has_positions(model.decoder.forward)


def _position_table(model: Any) -> torch.nn.Module | None:
    """The vectors of places that a decoder adds to its tokens', where it can be told the places."""
    table = getattr(model.get_decoder(), "embed_positions", None)
    return table if table is not None and _has_positions(table.forward) else None


def _has_positions(function: Any) -> bool:
    return "position_ids" in inspect.signature(function).parameters


@contextmanager
def _placed_at(model: Any, places: torch.Tensor | None) -> Iterator[None]:
    """Let the decoder's table of positions look up these (rows, step), if it has one."""
    table = _position_table(model)
    if table is None or places is None:
        yield
        return
    hooks = [
        table.register_forward_pre_hook(
            lambda _, given, named: (given, named | {"position_ids": places}), with_kwargs=True
        ),
        table.register_forward_hook(lambda _, given, found: found.reshape(*places.shape, -1)),
    ]
    yield
    for hook in hooks:
        hook.remove()


@contextmanager
def _head_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """The language-model head, often half of the work, sees these positions (of the new tokens) only."""
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, hidden: (hidden[0].index_select(1, positions),)
    )
    yield
    hook.remove()


def _tensor(name: str, dtype: torch.dtype, *shape: int | str) -> Tensor:
    return Tensor(name=name, dtype=str(dtype).removeprefix("torch."), shape=list(shape))


def _trace(
    opened: Opened, module: torch.nn.Module, inputs: list[Tensor], outputs: list[Tensor], samples: Named
) -> Traced:
    """A module's graph, its named dimensions left open. Raises CheckpointError if it breaks the contract."""
    names = sorted({d for tensor in inputs for d in tensor.shape if isinstance(d, str)})
    dims = {name: torch.export.Dim(name) for name in names}
    dynamic = tuple({i: dims[d] for i, d in enumerate(t.shape) if isinstance(d, str)} for t in inputs)
    sample = tuple(samples[tensor.name] for tensor in inputs)
    with _grouped_heads(), torch.no_grad():
        model = graph.trace(
            opened, module, sample, (dynamic,), [t.name for t in inputs], [t.name for t in outputs]
        )
    for value in model.graph.outputs:
        value.shape = ir.Shape("total" if str(d) in SUMS else d for d in value.shape or ())
    declared = Graph(inputs=inputs, outputs=outputs)
    contract.check(model, declared, str(opened.folder))
    return Traced(model, declared)


@contextmanager
def _grouped_heads() -> Iterator[None]:
    """Let queries share keys and values inside the Attention op, instead of repeating the cache before it."""
    name = "TRANSFORMERS_SDPA_FORCE_GQA"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
