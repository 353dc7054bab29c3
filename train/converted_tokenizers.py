"""Tokenizers that Transformers has in Python alone, as `tokenizers` has them: sentencepiece beside a vocabulary.

Marian (opus-mt): source.spm, target.spm, vocab.json; M2M100: sentencepiece.bpe.model, vocab.json. The sentencepiece model
cuts a text in pieces, whose ids the vocabulary has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from headway.core.errors import CheckpointError

SPACE = "▁"
"""what sentencepiece writes for a space"""
NOT_IN_TEXTS = "\ue000"
"""begins a token that the sentencepiece model does not have, so that no text has it; of the Private Use Area"""
INSTEAD = "\ue001"
"""what such a character in a text is taken for"""


def convert(name: str, slow: Any) -> PreTrainedTokenizerFast:
    """The same tokenizer in `tokenizers`; `original` gives the one that it must equal.

    Raises CheckpointError for a class that is not known here.
    """
    kind = type(slow).__name__
    if kind == "MarianTokenizer" and not slow.separate_vocabs:
        model, vocabulary, first = slow.spm_files[0], slow.encoder, []
        separate = Path(slow.spm_files[1]).read_bytes() != Path(slow.spm_files[0]).read_bytes()
    elif kind == "M2M100Tokenizer":
        model, separate = slow.spm_file, False
        vocabulary = slow.encoder | slow.lang_token_to_id
        first = [slow.get_lang_token(slow.src_lang)]
    else:
        raise CheckpointError(
            name, f"its tokenizer ({kind}) has no tokenizer.json form, which the runtime needs"
        )
    unknown = sorted(set(range(len(vocabulary))) - set(vocabulary.values()))
    if unknown:
        raise CheckpointError(name, f"vocab.json has no token of id {unknown[0]}")
    codes = [token for token in vocabulary if kind == "MarianTokenizer" and _is_language_code(token)]
    special = [token for token in dict.fromkeys(slow.all_special_tokens) if token in vocabulary]
    raw = _tokenizer(_proto(model), vocabulary, str(slow.unk_token), {*codes, *special})
    raw.add_tokens([AddedToken(code, normalized=False) for code in codes])
    raw.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    end = str(slow.eos_token)
    raw.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", end],
        pair=[*first, "$A", "$B", end],
        special_tokens=[(token, vocabulary[token]) for token in (*first, end)],
    )
    names = ("unk_token", "eos_token", "pad_token", "bos_token", "sep_token")
    told = {n: str(getattr(slow, n)) for n in names if getattr(slow, n, None) is not None}
    sides = {n: getattr(slow, n) for n in ("model_max_length", "padding_side", "truncation_side")}
    inputs = ["input_ids", "attention_mask"]
    untyped: Any = PreTrainedTokenizerFast
    found = untyped(tokenizer_object=raw, model_input_names=inputs, **told, **sides)
    found.headway_original = slow
    if separate:
        found.headway_separate_targets = True
        found._switch_to_target_mode = partial(_refuse_targets, name)
    return cast(PreTrainedTokenizerFast, found)


def original(tokenizer: Any) -> Any:
    """What a tokenizer was converted from; None for others."""
    return getattr(tokenizer, "headway_original", None)


def has_separate_targets(tokenizer: Any) -> bool:
    """Whether targets have another sentencepiece model than sources, which the converted tokenizer does not have."""
    return getattr(tokenizer, "headway_separate_targets", False)


def _refuse_targets(name: str) -> None:
    raise CheckpointError(
        name,
        "its targets have a sentencepiece model of their own (target.spm), with which headway does not train",
    )


def _is_language_code(token: str) -> bool:
    return token.startswith(">>") and token.endswith("<<")


def _proto(model: str) -> Any:
    untyped: Any = import_module("transformers.convert_slow_tokenizer")
    found = untyped.import_protobuf().ModelProto()
    found.ParseFromString(Path(model).read_bytes())
    return found


def _tokenizer(proto: Any, vocabulary: dict[str, int], unknown: str, added: AbstractSet[str]) -> Tokenizer:
    """The pieces of a sentencepiece model, normalized as it does, with the ids of a vocabulary.

    Tokens of the vocabulary that are no pieces of the model (of the target language, say) can only be decoded, but for
    `added` ones, and for those of characters that no piece has: sentencepiece makes one unknown piece of such
    characters in a row, which the vocabulary may have.
    """
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)}
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    letters = {letter for piece in scores for letter in piece} | {" "}
    foreign = [token for token in tokens if letters.isdisjoint(token)]
    written = {*scores, *added, unknown, *foreign}
    names = [token if token in written else NOT_IN_TEXTS + token for token in tokens]
    if proto.trainer_spec.model_type == UNIGRAM:
        least = min(scores.values())
        model: Any = Unigram(
            [(name, scores.get(name, least)) for name in names],
            unk_id=vocabulary[unknown],
            byte_fallback=False,
        )
    else:
        from transformers.tokenization_utils_base import generate_merges

        by_id = {name: place for place, name in enumerate(names)}
        known = {token: scores[token] for token in names if token in scores}
        merges = [pair for pair in generate_merges(by_id, known) if pair[0] + pair[1] in scores]
        model = BPE(by_id, merges, unk_token=unknown, fuse_unk=True)
    raw = Tokenizer(model)
    steps: list[Any] = []
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    steps.append(normalizers.Replace(NOT_IN_TEXTS, INSTEAD))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps.append(normalizers.Replace(Regex(_unknown_runs(letters, foreign)), INSTEAD))
    raw.normalizer = normalizers.Sequence(steps)
    scheme: Any = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    inside = any(SPACE in piece[1:] and piece.strip(SPACE) for piece in scores)
    raw.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=not inside)
    ends = decoders.Replace(Regex("^ +| +$"), "")
    raw.decoder = decoders.Sequence(
        [decoders.Replace(NOT_IN_TEXTS, ""), decoders.Metaspace(SPACE, scheme), decoders.Fuse(), ends]
    )
    return raw


def _unknown_runs(letters: AbstractSet[str], foreign: Sequence[str]) -> str:
    """A pattern of two and more characters in a row that are not among the letters, and together no foreign token."""
    other = f"[^{''.join(re.escape(letter) for letter in sorted(letters))}]"
    tokens = "|".join(re.escape(token) for token in foreign if len(token) > 1)
    whole = f"(?!(?:{tokens})(?!{other}))" if tokens else ""
    return f"(?<!{other}){whole}{other}{{2,}}"


NORMAL, USER_DEFINED = 1, 4
"""types of pieces in sentencepiece_model.proto"""
UNIGRAM = 1
"""its model type"""
