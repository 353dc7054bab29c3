"""Open and use a checkpoint in PyTorch: the reference that every exported variant is held to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headway.core import tasks
from headway.core.errors import CheckpointError, HeadwayError, UnavailableError
from headway.core.manifest import Checkpoint
from headway.core.progress import Progress, silent
from headway.core.tasks import Example, Result, Row, Side, Spec
from headway.train import converted_tokenizers, encoder, foreign
from headway.train.options import TrainOptions
from headway.train.quiet import quiet
from headway.train.sentence_transformers_config import read_transformer, transformer_folder
from headway.train.tasks import base

VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
)
"""files of which a tokenizer has at least one"""


@dataclass(frozen=True)
class Opened:
    """A checkpoint in memory."""

    folder: Path
    """where its Transformers files lie"""
    manifest: Checkpoint
    spec: Spec
    model: Any
    tokenizer: PreTrainedTokenizerBase
    foreign: Path | None = None
    """the folder that was asked for, of a model that headway did not train"""


def open_checkpoint(folder: Path) -> Opened:
    """Open what `headway train` wrote. Raises CheckpointError."""
    return _opened(folder, Checkpoint.read(folder))


def open_foreign(folder: Path, task: str, examples: Sequence[Example]) -> Opened:
    """Open a model that headway did not train, for a task; labelled examples tell more of it. Raises CheckpointError."""
    foreign.refuse_incomplete(transformer_folder(folder))
    manifest = foreign.describe(folder, task, open_tokenizer(str(folder)), examples)
    return replace(_opened(folder, manifest), foreign=folder)


def _opened(folder: Path, manifest: Checkpoint) -> Opened:
    try:
        spec = tasks.spec(tasks.load(manifest.task), manifest)
    except msgspec.ValidationError as error:
        raise CheckpointError(folder, f"its settings are malformed: {error}") from error
    tokenizer = open_tokenizer(str(folder))
    spec = replace(spec, truncation_side=truncation_side(tokenizer))
    problem = tasks.unknown_token(tasks.load(manifest.task), spec.settings, tokenizer.backend_tokenizer)
    if problem is not None:
        raise CheckpointError(folder, problem)
    model = open_model(str(folder), manifest.task, spec, None)
    refuse_missing_embeddings(str(folder), tokenizer, model)
    refuse_classifier(str(folder), tokenizer, model)
    if hasattr(tasks.load(manifest.task), "GRAPH"):
        encoder.match_token_types(model, tokenizer, str(folder), manifest.task, spec)
    model.train(False)
    return Opened(transformer_folder(folder), manifest, spec, model, tokenizer)


def open_model(name: str, task: str, spec: Spec, options: TrainOptions | None) -> Any:
    """A model with the task's head, from a folder or a hub name; with options, with a new head.

    Raises CheckpointError.
    """
    if Path(name).is_dir():
        name = str(transformer_folder(Path(name)))
        foreign.refuse_incomplete(Path(name))
    try:
        with quiet():
            return base.load(task).open(name, spec, options)
    except HeadwayError:
        raise
    except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
        raise CheckpointError(name, f"the model cannot be opened: {_first_line(error)}") from error


def open_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer that lies beside a model; what Transformers has in Python alone is converted.

    Raises CheckpointError; UnavailableError where it needs the package sentencepiece.
    """
    folder, lower_case = name, False
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise CheckpointError(name, "there is no such folder")  # and no such name on the hub
    if Path(name).is_dir():
        transformer = read_transformer(Path(name))
        folder, lower_case = str(transformer.folder), transformer.do_lower_case
        if not any((transformer.folder / file).is_file() for file in VOCABULARIES):
            raise CheckpointError(
                name, "there is no tokenizer in it"
            )  # transformers would make up an empty one
        _require_sentencepiece(transformer.folder)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False
            )
    except Exception as error:
        raise CheckpointError(name, f"the tokenizer cannot be opened: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        tokenizer = converted_tokenizers.convert(name, tokenizer)
    if lower_case:
        _lower_case(tokenizer.backend_tokenizer)
    return tokenizer


def _require_sentencepiece(folder: Path) -> None:
    """Raise UnavailableError for a tokenizer that is a sentencepiece file alone, where the package is missing."""
    models = [
        file for file in VOCABULARIES if file.endswith((".model", ".spm")) and (folder / file).is_file()
    ]
    if models and not (folder / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
        raise UnavailableError(
            f"the package sentencepiece, which reads {models[0]} of {folder},",
            "pip install 'headway[export]'",
        )


def _lower_case(raw: Any) -> None:
    """Let a `tokenizers.Tokenizer` lower-case texts first, as sentence-transformers' `do_lower_case` does."""
    normalizer: Any = raw.normalizer
    parts = list(normalizer) if isinstance(normalizer, normalizers.Sequence) else [normalizer]  # type: ignore[call-overload]
    if not any(isinstance(part, normalizers.Lowercase) for part in parts):
        raw.normalizer = normalizers.Sequence([normalizers.Lowercase(), *(p for p in parts if p is not None)])


def truncation_side(tokenizer: PreTrainedTokenizerBase) -> Side:
    """Where the tokenizer cuts a text that is too long."""
    return "left" if tokenizer.truncation_side == "left" else "right"


def refuse_missing_embeddings(name: str, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Raise CheckpointError for a token of the tokenizer that the model has no embedding for."""
    embeddings = getattr(model, "body", model).get_input_embeddings().weight.shape[0]
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= embeddings:
        raise CheckpointError(
            name,
            f"its tokenizer has the token '{token}' of id {largest}, but the model has embeddings for {embeddings} "
            "tokens: call resize_token_embeddings before saving it",
        )


def refuse_classifier(name: str, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Raise CheckpointError for a classifier that cannot find its answer's place in a padded text.

    Those of causal models read the last token that is not `pad_token_id`, those of encoder-decoders the last end token.
    """
    kind, shape = type(model).__name__, model.config
    if not kind.endswith("ForSequenceClassification"):
        return
    if shape.is_encoder_decoder:
        problem = (
            "is an encoder-decoder, whose classifier reads the place of the last end token: such a graph cannot be "
            "exported; a classifier of an encoder (ForSequenceClassification of BERT, RoBERTa, DeBERTa …) can"
        )
        raise CheckpointError(name, f"{kind} {problem}")
    pad = shape.get_text_config().pad_token_id
    if is_causal(model) and (pad is None or pad != tokenizer.pad_token_id):
        raise CheckpointError(
            name,
            f"{kind} finds the end of a text by pad_token_id, which is {pad} in config.json and "
            f"{tokenizer.pad_token_id} of the tokenizer: give both the same one",
        )


def is_causal(model: Any) -> bool:
    """Whether a token does not see those behind it, in some layer."""
    return any(getattr(module, "is_causal", False) is True for module in model.modules())


def outputs(opened: Opened, rows: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
    """What the graph of an encoder task must give for a padded batch of rows, in fp32 on the processor."""
    specifics = cast(base.EncoderTrainTask, base.load(opened.manifest.task))
    batch = encoder.Collator(opened.tokenizer)(encoder.inputs(rows))
    temperature = torch.tensor(getattr(opened.spec.settings, "temperature", 1.0))
    with torch.inference_mode():
        named = specifics.outputs(opened.model(**batch), opened.spec, temperature)
    return {name: value.numpy() for name, value in named.items()}


def predict(opened: Opened, examples: Sequence[Example], progress: Progress = silent) -> list[Result]:
    """Results in the order of the examples."""
    specifics = base.load(opened.manifest.task)
    with quiet():
        said = specifics.infer(opened.model, opened.tokenizer, examples, opened.spec, progress)
    return tasks.load(opened.manifest.task).decode(examples, said, opened.spec)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
