"""Smaller vocabularies: a model keeps the tokens that a corpus needs, and answers as before on all texts made of them.

Dropping tokens splits no text otherwise whose own tokens are all kept:
- WordPiece takes the longest piece at each place: it is still there, and no longer one came. (A word stays known, or
  unknown, as far as each character has a piece for the inside of words; in BERT's vocabularies all have.)
- Unigram takes the path of pieces with the best sum: it is still there, and the others only became fewer. An unknown
  character costs a little more than the least score of all, and so the piece with that score stays.
- BPE makes a token by the same merges in whatever word it stands, and what other tokens are there does not change
  their order: the merges that make a kept token stay, and all that they go through.

Words that the corpus has not are split into smaller pieces, single characters (bytes) at the least: all of these stay.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from headway.core.errors import CheckpointError, DataError, GateError, UsageError
from headway.core.progress import Progress, silent
from headway.core.tolerance import PRECISION
from headway.export.proof import differences
from headway.train.checkpoint import Opened

OPTION = "--trim-vocabulary"
BATCH = 1000
"""texts of the corpus that are tokenized together"""
SAMPLES = 16
"""texts of the corpus on which the models are compared"""
NAMES_TOKENS = re.compile(r"_token_(id|ids|index)$")
"""settings of a model that name tokens; these stay"""
FORBIDS_TOKENS = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens")
"""settings that name tokens which may go"""
SIZES = ("vocab_size", "decoder_vocab_size")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""pieces that spell a character which has none"""

Ids = NDArray[np.int64]
Pieces = set[str]


@dataclass(frozen=True)
class Trimmed:
    """A model with a smaller vocabulary, and what that came to."""

    opened: Opened
    rows: Ids  # (V), the token in the whole vocabulary that each token is
    before: int
    """tokens in the whole vocabulary: rows of the embedding"""
    used: int
    """different tokens in the corpus, special ones included"""
    texts: int
    """in the corpus"""
    tokens: int
    """in the corpus, special ones included"""
    saved: int
    """bytes of weights, as the checkpoint is opened (fp32)"""
    worst: float
    """largest difference of logits from the whole model's, as a share of their standard deviation"""

    def describe(self) -> str:
        """For the model card."""
        return (
            f"Vocabulary trimmed to {len(self.rows):,} of {self.before:,} tokens ({self.saved / 1e6:.1f} MB less in "
            f"fp32): the {self.used:,} of a corpus of {self.texts:,} texts and those that spell other words. Texts "
            "of these tokens get the whole model's answers; others are split into more tokens."
        )


def trim(opened: Opened, corpus: Path, progress: Progress = silent) -> Trimmed:
    """Keep the tokens that a corpus (UTF-8, one text per line) needs; `opened` stays as it is.

    Raises UsageError, DataError for the corpus; CheckpointError for a model whose vocabulary cannot be trimmed;
    GateError if the smaller one splits or answers otherwise.
    """
    whole = _json(opened)
    counted = _count(_plain(whole), corpus, progress)
    tables = _Tables(opened)
    rows = _rows(opened, whole, np.flatnonzero(counted.of_token), tables)
    tokenizer = _smaller_tokenizer(opened, whole, rows)
    smaller = replace(opened, model=_smaller_model(opened.model, tables, rows), tokenizer=tokenizer)
    _check_split(_plain(whole), _plain(_json(smaller)), rows, corpus, progress)
    return Trimmed(
        opened=smaller,
        rows=np.array(rows),
        before=tables.count,
        used=int(np.count_nonzero(counted.of_token)),
        texts=counted.texts,
        tokens=int(counted.of_token.sum()),
        saved=tables.bytes_of(tables.count - len(rows)),
        worst=_check_answers(opened, smaller, rows, counted.samples, tables.writes),
    )


def _json(opened: Opened) -> dict[str, Any]:
    """A tokenizer as the `tokenizers` library writes it."""
    if not opened.tokenizer.is_fast:
        raise CheckpointError(opened.folder, "its tokenizer has no tokenizer.json form, which can be trimmed")
    content: dict[str, Any] = json.loads(opened.tokenizer.backend_tokenizer.to_str())
    if content["model"]["type"] not in BASES:
        raise UsageError(OPTION, f"is not for tokenizers of the kind '{content['model']['type']}'")
    return content


def _plain(content: dict[str, Any]) -> Tokenizer:
    """A tokenizer that neither cuts nor pads."""
    return Tokenizer.from_str(json.dumps(content | {"truncation": None, "padding": None}))


def _batches(corpus: Path) -> Iterator[list[str]]:
    """The corpus' lines but for empty ones."""
    batch: list[str] = []
    try:
        with corpus.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    problem = f"not UTF-8 at byte {error.start}"
                    raise DataError(problem, file=str(corpus), line=number) from error
                batch += [text] if text.strip() else []
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    except OSError as error:
        raise UsageError(OPTION, f"{corpus} cannot be read: {error.strerror or error}") from error
    if batch:
        yield batch


@dataclass(frozen=True)
class _Counted:
    of_token: Ids  # (tokens of the tokenizer), how often each is in the corpus
    texts: int
    samples: list[list[int]]
    """ids of the first few texts"""


def _count(tokenizer: Tokenizer, corpus: Path, progress: Progress) -> _Counted:
    of_token = np.zeros(max(tokenizer.get_vocab().values(), default=0) + 1, np.int64)
    texts, samples = 0, list[list[int]]()
    for batch in progress(_batches(corpus), f"counting tokens of {corpus.name}"):
        every = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch)]
        of_token += np.bincount(_flat(every), minlength=len(of_token))
        texts += len(batch)
        samples += [ids for ids in every if ids][: SAMPLES - len(samples)]
    if not of_token.any():
        raise UsageError(OPTION, f"{corpus} holds no texts")
    return _Counted(of_token, texts, samples)


def _flat(every: Sequence[Sequence[int]]) -> Ids:
    return np.array([token for ids in every for token in ids], np.int64)


class _Tables:
    """All of a model that has a row for each token: embeddings, heads that give logits of tokens, their biases."""

    def __init__(self, opened: Opened) -> None:
        parts = [m for m in opened.model.modules() if isinstance(m, PreTrainedModel)]
        inputs, heads = (_layers(parts, name) for name in ("get_input_embeddings", "get_output_embeddings"))
        found = {layer.weight.shape[0] for layer in (*inputs, *heads)}
        if len(found) != 1:
            raise CheckpointError(
                opened.folder, f"its vocabularies have {sorted(found)} tokens: only one can be trimmed"
            )
        (self.count,) = found
        self.writes = bool(heads)
        self.padding = next((m.padding_idx for m in inputs if m.padding_idx is not None), None)
        every = [layer.weight for layer in (*inputs, *heads)]
        for module in opened.model.modules():
            if module in heads or any(child in heads for child in module.children()):
                own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
                every += [t for name, t in own if name.endswith("bias") and t.numel() == self.count]
        self.tensors = {id(tensor): tensor for tensor in every}
        """(V, D), (V), (1, V)"""

    def bytes_of(self, rows: int) -> int:
        return sum(t.nbytes // self.count * rows for t in self.tensors.values())


def _layers(parts: Sequence[PreTrainedModel], getter: str) -> set[Any]:
    """The embeddings, or the linear heads, of a model's parts."""
    found = set()
    for part in parts:
        try:
            found.add(getattr(part, getter)())
        except NotImplementedError:
            continue  # a part without
    return {layer for layer in found if isinstance(layer, nn.Embedding | nn.Linear)}


def _rows(opened: Opened, whole: dict[str, Any], used: Ids, tables: _Tables) -> list[int]:
    """The tokens that are kept, in their new order: the tokenizer's own pieces, tokens added to it, and others."""
    pieces = _pieces(whole["model"])
    names = {number: piece for piece, number in pieces.items()}
    settings = _named(_settings(opened.model), tables.count)
    needed = {*used.tolist(), *(holder[key] for holder, key in _places(whole)), *settings}
    kept = {names[number] for number in needed if number in names}
    kept |= BASES[whole["model"]["type"]](whole["model"], kept)
    own = sorted(pieces[piece] for piece in kept)
    padding = tables.padding
    if padding is not None and padding in own and padding < len(own):
        own.remove(padding)
        own.insert(padding, padding)  # it keeps its number, from which some models count positions
    added = {token["id"] for token in whole["added_tokens"]} - set(names)
    rows = own + sorted(added) + sorted(needed - added - set(names))
    if max(rows) >= tables.count:
        raise CheckpointError(
            opened.folder, f"its tokenizer gives token {max(rows)}, the model has {tables.count}"
        )
    return rows


def _pieces(model: dict[str, Any]) -> Mapping[str, int]:
    """The number of each piece of a tokenizer's model."""
    if model["type"] == "Unigram":
        return {piece: number for number, (piece, _) in enumerate(model["vocab"])}
    pieces: dict[str, int] = model["vocab"]
    return pieces


def _places(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where a tokenizer's JSON has a token's number, beside its vocabulary: (object, key) of each."""
    yield from ((token, "id") for token in content["added_tokens"])
    if content["padding"] is not None:
        yield content["padding"], "pad_id"
    if content["model"].get("unk_id") is not None:
        yield content["model"], "unk_id"
    yield from _places_after(content["post_processor"] or {})


def _places_after(processor: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The same in a post-processor, which adds special tokens."""
    for part in processor.get("processors", []):
        yield from _places_after(part)
    for special in processor.get("special_tokens", {}).values():
        yield from ((special["ids"], place) for place in range(len(special["ids"])))
    yield from ((processor[name], 1) for name in ("cls", "sep") if name in processor)


def _settings(model: nn.Module) -> list[Any]:
    """Each configuration in a model, those inside others too, and its settings for generation."""
    found: dict[int, Any] = {}
    names = ("config", "generation_config")
    waiting = [getattr(module, name, None) for module in model.modules() for name in names]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PreTrainedConfig | GenerationConfig) and id(config) not in found:
            found[id(config)] = config
            waiting += vars(config).values()
    return list(found.values())


def _named(settings: Sequence[Any], count: int) -> set[int]:
    """Tokens that settings name; numbers that are no tokens stand for none."""
    values = [v for config in settings for name, v in vars(config).items() if NAMES_TOKENS.search(name)]
    numbers = [n for value in values for n in (value if isinstance(value, list) else [value])]
    return {n for n in numbers if isinstance(n, int) and 0 <= n < count}


def _word_level(model: dict[str, Any], kept: Pieces) -> Pieces:
    """The unknown token."""
    return {piece for piece in [model["unk_token"]] if piece in model["vocab"]}


def _word_piece(model: dict[str, Any], kept: Pieces) -> Pieces:
    """Characters at the beginning of a word and inside; pieces with a character that has no piece for the inside."""
    prefix = model["continuing_subword_prefix"]
    inside = {p[-1] for p in model["vocab"] if p.startswith(prefix) and len(p) == len(prefix) + 1}
    within = {p: p[len(prefix) if p.startswith(prefix) else 1 :] for p in model["vocab"]}
    spelling = {p for p in model["vocab"] if len(p.removeprefix(prefix)) == 1}
    return (
        _word_level(model, kept) | spelling | {p for p, own in within.items() if not inside.issuperset(own)}
    )


def _unigram(model: dict[str, Any], kept: Pieces) -> Pieces:
    """Characters, bytes, and the piece with the least score."""
    scores = dict(model["vocab"])
    spelling = {p for p in scores if len(p) == 1 or (model["byte_fallback"] and BYTE.fullmatch(p))}
    return spelling | {min(scores, key=lambda piece: scores[piece])}


def _bpe(model: dict[str, Any], kept: Pieces) -> Pieces:
    """Characters (those that stand for bytes are such), bytes, and what merging goes through."""
    spelling = {p for p in model["vocab"] if len(_characters(model, p)) == 1}
    if model["byte_fallback"]:
        spelling |= {p for p in model["vocab"] if BYTE.fullmatch(p)}
    spelling |= _word_level(model, kept)
    ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
    return spelling.union(*(_merged_on_the_way(model, ranks, piece) for piece in kept))


def _characters(model: dict[str, Any], piece: str) -> list[str]:
    """What merging begins with: characters, marked where they do not begin a word, and where they end one."""
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    inside = bool(prefix) and piece.startswith(prefix) and piece != prefix
    ends = bool(suffix) and piece.endswith(suffix) and piece != suffix
    letters = list(piece[len(prefix) * inside : len(piece) - len(suffix) * ends])
    marked = [prefix * (inside or place > 0) + letter for place, letter in enumerate(letters)]
    return [*marked[:-1], marked[-1] + suffix * ends] if marked else []


def _merged_on_the_way(model: dict[str, Any], ranks: Mapping[tuple[str, str], int], piece: str) -> Pieces:
    """Every token that becomes part of a piece; none if merging does not lead to it."""
    symbols = _characters(model, piece)
    passed = set(symbols)
    while len(symbols) > 1:
        rank, place = min((ranks.get(pair, math.inf), i) for i, pair in enumerate(pairwise(symbols)))
        if rank == math.inf:
            return set()
        symbols[place : place + 2] = [_joined(model, symbols[place], symbols[place + 1])]
        passed.add(symbols[place])
    return passed.intersection(model["vocab"])


def _joined(model: dict[str, Any], left: str, right: str) -> str:
    return left + right[len(model["continuing_subword_prefix"] or "") :]


BASES: dict[str, Callable[[dict[str, Any], Pieces], Pieces]] = {
    "WordLevel": _word_level,
    "WordPiece": _word_piece,
    "Unigram": _unigram,
    "BPE": _bpe,
}
"""what each kind of tokenizer keeps beside the pieces that are needed"""


def _smaller_tokenizer(opened: Opened, whole: dict[str, Any], rows: Sequence[int]) -> PreTrainedTokenizerBase:
    """The tokenizer with those tokens, in that order."""
    new = {row: number for number, row in enumerate(rows)}
    content = copy.deepcopy(whole)
    for holder, key in _places(content):
        holder[key] = new[holder[key]]
    content["added_tokens"].sort(key=lambda token: token["id"])
    _shrink(content["model"], new)
    tokenizer: Any = copy.deepcopy(opened.tokenizer)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    before = opened.tokenizer.get_vocab()
    if tokenizer.get_vocab() != {token: new[row] for token, row in before.items() if row in new}:
        raise CheckpointError(opened.folder, "the numbers of its tokenizer's tokens cannot be changed")
    smaller: PreTrainedTokenizerBase = tokenizer
    return smaller


def _shrink(model: dict[str, Any], new: Mapping[int, int]) -> None:
    """Drop and renumber pieces, and drop the merges that lack one."""
    pieces = {piece: new[row] for piece, row in _pieces(model).items() if row in new}
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        model["vocab"] = [[piece, scores[piece]] for piece in sorted(pieces, key=lambda piece: pieces[piece])]
        return
    model["vocab"] = pieces
    if model["type"] == "BPE":
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if {left, right, _joined(model, left, right)} <= pieces.keys()
        ]


def _smaller_model(model: nn.Module, tables: _Tables, rows: Sequence[int]) -> nn.Module:
    """A copy in which the tables have those rows, in that order; what was one tensor stays one."""
    taken = torch.tensor(rows)
    made: dict[int, Any] = {}
    for key, tensor in tables.tensors.items():
        axis = 0 if tensor.shape[0] == tables.count else tensor.ndim - 1
        chosen = tensor.detach().index_select(axis, taken.to(tensor.device))
        made[key] = nn.Parameter(chosen, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else chosen
    smaller = copy.deepcopy(model, dict(made))
    new = {row: number for number, row in enumerate(rows)}
    tensors = {id(tensor) for tensor in made.values()}
    for module in smaller.modules():
        _resize(module, tensors, tables, len(rows), new)
    for config in _settings(smaller):
        _renumber(config, tables.count, new)
    return smaller


def _resize(module: Any, tensors: set[int], tables: _Tables, count: int, new: Mapping[int, int]) -> None:
    """What a module says of its tables."""
    holds = id(getattr(module, "weight", None)) in tensors
    if isinstance(module, nn.Embedding) and holds:
        module.num_embeddings = count
    elif isinstance(module, nn.Linear) and holds:
        module.out_features = count
    if vars(module).get("vocab_size") == tables.count:
        module.vocab_size = count
    positions = isinstance(module, nn.Embedding) and not holds
    if tables.padding is not None and vars(module).get("padding_idx") == tables.padding and not positions:
        module.padding_idx = new.get(tables.padding)


def _renumber(config: Any, count: int, new: Mapping[int, int]) -> None:
    """Tokens and sizes in a configuration."""
    for name, value in list(vars(config).items()):
        if NAMES_TOKENS.search(name):
            many = isinstance(value, list)
            setattr(config, name, [new.get(n, n) for n in value] if many else new.get(value, value))
        elif name in FORBIDS_TOKENS and value is not None:
            setattr(config, name, _still_there(value, new))
        elif name in SIZES and value == count:
            setattr(config, name, len(new))


def _still_there(forbidden: Sequence[Any], new: Mapping[int, int]) -> list[Any]:
    """Tokens, or sequences of them, as far as they were kept."""
    if all(isinstance(token, int) for token in forbidden):
        return [new[token] for token in forbidden if token in new]
    return [[new[token] for token in word] for word in forbidden if all(token in new for token in word)]


def _check_split(
    whole: Tokenizer, smaller: Tokenizer, rows: Sequence[int], corpus: Path, progress: Progress
) -> None:
    """Raise GateError if a text of the corpus is split otherwise."""
    as_before, other = np.array(rows), 0
    for batch in progress(_batches(corpus), f"comparing tokens of {corpus.name}"):
        both = zip(whole.encode_batch_fast(batch), smaller.encode_batch_fast(batch), strict=True)
        other += sum(a.ids != as_before[b.ids].tolist() for a, b in both)
    if other:
        raise GateError("parity", "trimmed vocabulary", "texts split into other tokens", other, 0)


def _check_answers(
    opened: Opened, smaller: Opened, rows: Sequence[int], samples: Sequence[Sequence[int]], writes: bool
) -> float:
    """The largest difference of logits. Raises GateError if it is beyond the limit for fp32."""
    new = {row: number for number, row in enumerate(rows)}
    longest = opened.spec.max_length
    cut = [ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in samples]
    expected = [_answer(opened.model, ids) for ids in cut]
    found = [_answer(smaller.model, [new[token] for token in ids]) for ids in cut]
    if writes:
        expected = [logits[..., list(rows)] for logits in expected]
    worst, limit = differences(found, expected)[0], PRECISION["fp32"].worst
    if not worst <= limit:
        raise GateError("parity", "trimmed vocabulary", "worst", worst, limit)
    return worst


def _answer(model: Any, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits (or a vector) of one text; an encoder-decoder writes what it reads."""
    tensor = torch.tensor([ids])
    given = {"input_ids": tensor, "attention_mask": torch.ones_like(tensor)}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        given["decoder_input_ids"] = tensor
    with torch.inference_mode():
        said = model(**given)
    fields = said if isinstance(said, Mapping) else vars(said)
    return np.stack([t.float().numpy() for name, t in fields.items() if name.endswith("logits")])
