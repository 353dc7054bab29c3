"""Models that headway did not train: what a transformers or sentence-transformers folder says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoConfig, PreTrainedTokenizerBase

from headway.core import data, tag_schemes
from headway.core.errors import CheckpointError
from headway.core.manifest import Checkpoint
from headway.core.tasks import (
    Example,
    question_answering,
    sentence_embedding,
    sequential_sentence_classification,
    text2text_generation,
    text_classification,
    text_generation,
    text_ranking,
    token_classification,
)
from headway.train import converted_tokenizers, sentence_transformers_config
from headway.train.positions import max_positions

HEADS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "EncoderDecoderModel": "text2text-generation",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
}
"""the task of a transformers class, by the end of its name"""
LONGEST = 512
"""tokens, where neither tokenizer nor configuration tells a limit"""
NO_LIMIT = 1_000_000
"""tokens from which on a limit is none: Transformers writes 1e30"""


def located(name: Path) -> Path:
    """The folder of a model: this one, or where the hub's files of that name lie on this machine.

    Raises CheckpointError.
    """
    if name.is_dir() or name.is_absolute() or len(name.parts) != 2 or name.parts[0] in (".", "..", "~"):
        return name
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"])
        )
    except Exception as error:  # the hub's, the network's and the disk's errors have no common base
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(name, f"no such folder, and the hub does not give it: {said}") from error


GIT_LFS = b"version https://git-lfs.github.com/spec/"
"""begins a file that only says where Git LFS has the file itself"""
POINTER_BYTES = 1024
"""of such a file, at most (git-lfs, docs/spec.md)"""


def refuse_incomplete(folder: Path) -> None:
    """Raise CheckpointError for an adapter without its model, and for files that Git LFS has not fetched."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file() and path.stat().st_size <= POINTER_BYTES and path.read_bytes().startswith(GIT_LFS):
            raise CheckpointError(
                folder, f"{path.name} is a pointer of Git LFS, not the file itself: run git lfs pull"
            )
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            folder,
            "it is an adapter (adapter_config.json), which needs its base model: merge them by "
            "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder), save the tokenizer "
            "there too, and give that folder",
        )


def infer_task(folder: Path) -> str:
    """The task of a model, from its files. Raises CheckpointError if they do not tell."""
    refuse_incomplete(sentence_transformers_config.transformer_folder(folder))
    kind = sentence_transformers_config.model_type(folder)
    if kind == "SentenceTransformer":
        return "sentence-embedding"
    if kind not in (None, "CrossEncoder"):
        raise CheckpointError(
            folder, f"its model_type is {kind}; headway has SentenceTransformer and CrossEncoder"
        )
    if kind == "CrossEncoder":
        sentence_transformers_config.refuse_cross_encoder_modules(folder)
    config = _config(sentence_transformers_config.transformer_folder(folder))
    ranks = sentence_transformers_config.is_cross_encoder(folder, config) and _outputs(config) == 1
    if ranks:
        return "text-ranking"
    head = sentence_transformers_config.architecture(config) or "nothing"
    for end, task in HEADS.items():
        if head.endswith(end):
            return task
    raise CheckpointError(folder, f"its head is {head}, which tells no task: give --task")


def describe(
    folder: Path, task: str, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> Checkpoint:
    """A manifest for a model without one. `examples` are labelled ones of the user, as far as there are any.

    Raises CheckpointError.
    """
    transformer = sentence_transformers_config.read_transformer(folder)
    config = _config(transformer.folder)
    settings, labels = SETTINGS[task](_Model(folder, config, tokenizer, examples))
    return Checkpoint(
        task=task,
        labels=labels,
        max_length=_max_length(folder, transformer.max_seq_length, config, tokenizer),
        model=folder.name,
        training_data={},
        options={},
        metrics={},
        settings=msgspec.to_builtins(settings),
    )


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers checks each field by an error of another kind
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(folder, f"config.json cannot be read: {said}") from error


def _max_length(folder: Path, declared: int | None, config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """What is declared, else the tokenizer's limit, but no more than the model has positions for.

    Raises CheckpointError for a limit that is no number of tokens.
    """
    limit = tokenizer.model_max_length if declared is None else declared
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 1 or limit != int(limit):
        raise CheckpointError(folder, f"its model_max_length is {limit!r}, not a number of tokens")
    positions = max_positions(config)
    least = int(limit) if positions is None else min(int(limit), positions)
    if least <= (special := tokenizer.num_special_tokens_to_add()):
        raise CheckpointError(
            folder, f"its model_max_length is {least}, but an input has {special} special tokens"
        )
    return least if least < NO_LIMIT else LONGEST


def _outputs(config: Any) -> int:
    return len(config.id2label)


@dataclass(frozen=True)
class _Model:
    folder: Path
    config: Any
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Any]


Said = tuple[msgspec.Struct, list[str]]
"""settings and labels"""


def _labels(told: _Model) -> list[str]:
    """Raises CheckpointError if two outputs have the same name, as answers are by name."""
    named = told.config.id2label
    if sorted(named) != list(range(len(named))):
        raise CheckpointError(
            told.folder, f"id2label in config.json has names for the outputs {sorted(named)}"
        )
    labels = [str(named[number]) for number in sorted(named)]
    for label in labels:
        if (problem := data.encoding_problem(label)) is not None:
            raise CheckpointError(told.folder, f"id2label in config.json: {label!r} {problem}")
    if (twice := data.repeated(labels)) is not None:
        raise CheckpointError(
            told.folder, f"two of its outputs are called '{twice}' (id2label in config.json)"
        )
    return labels


def _text_classification(told: _Model) -> Said:
    problem = getattr(told.config, "problem_type", None)
    labels = _labels(told)
    pair = told.examples[0].pair is not None if told.examples else None
    if problem == "regression" and len(labels) > 1:
        raise CheckpointError(told.folder, f"is a regression with {len(labels)} outputs; headway has one")
    if problem == "regression" or len(labels) == 1:
        activation: Any = "identity" if problem == "regression" else "sigmoid"  # as the Transformers pipeline
        return text_classification.Settings(kind="regression", pair=pair, activation_fn=activation), []
    kind: Any = "multi" if problem == "multi_label_classification" else "single"
    if sentence_transformers_config.is_cross_encoder(told.folder, told.config):
        sentence_transformers_config.refuse_other_scores(told.folder, told.config, kind)
    return text_classification.Settings(kind=kind, pair=pair), labels


def _token_classification(told: _Model) -> Said:
    """Labels alone do not tell BIO from IOB1, nor IOE2 from IOE1: such tags are decoded leniently.

    The user's data does not tell it either: a copy in BIO of a corpus in IOB1 is usual.
    """
    labels = _labels(told)
    problem = tag_schemes.label_problem(labels)
    if problem is not None:
        raise CheckpointError(told.folder, f"config.json: {problem}")
    try:
        scheme = tag_schemes.scheme_of(labels)
    except ValueError as error:
        raise CheckpointError(told.folder, f"config.json: {error}") from error
    if scheme in ("bio", "ioe2"):
        scheme = "lenient"
    outside = [
        label for label, tag in (tag_schemes.parse_labels(tuple(labels)) or {}).items() if not tag.kind
    ]
    fallback = outside[0] if outside else labels[0]
    return token_classification.Settings(scheme=scheme, fallback=fallback), labels


def _sequential(told: _Model) -> Said:
    separator = told.tokenizer.sep_token or told.tokenizer.eos_token
    if separator is None:
        raise CheckpointError(told.folder, "its tokenizer has no token that could follow each sentence")
    settings = sequential_sentence_classification.Settings(
        separator=separator, opening=told.tokenizer.cls_token
    )
    return settings, _labels(told)


def _question_answering(told: _Model) -> Said:
    return question_answering.Settings(unanswerable=not all(e.answers for e in told.examples)), []


def _embedding(told: _Model) -> Said:
    figure = sentence_embedding.FIGURE[told.examples[0].form] if told.examples else "spearman"
    config = sentence_transformers_config.default_embedder(told.folder, told.config)
    if sentence_transformers_config.model_type(told.folder) is not None:
        config = sentence_transformers_config.read_embedder(told.folder)
    return msgspec.convert(config.settings() | {"figure": figure}, sentence_embedding.Settings), []


def _ranking(told: _Model) -> Said:
    if (outputs := _outputs(told.config)) != 1:
        raise CheckpointError(told.folder, f"has {outputs} outputs; a model for ranking has one")
    config = sentence_transformers_config.read_cross_encoder(told.folder, told.config, outputs)
    prompt = config.prompt.prompts.get(config.prompt.default_prompt_name or "", "")
    settings = {"activation_fn": config.activation_fn, "prompt": prompt}
    return msgspec.convert(settings, text_ranking.Settings), []


def _text2text(told: _Model) -> Said:
    separate = converted_tokenizers.has_separate_targets(told.tokenizer)
    return text2text_generation.Settings(max_new_tokens=None, num_beams=None, separate_targets=separate), []


def _generation(told: _Model) -> Said:
    return text_generation.Settings(max_new_tokens=None, special_tokens=True), []


SETTINGS: dict[str, Callable[[_Model], Said]] = {
    "text-classification": _text_classification,
    "sequential-sentence-classification": _sequential,
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "text2text-generation": _text2text,
    "text-generation": _generation,
    "sentence-embedding": _embedding,
    "text-ranking": _ranking,
}
"""what each task needs to know"""
