"""Models that headway did not train: what a transformers or sentence-transformers folder says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoConfig, PreTrainedTokenizerBase

from headway.core import tag_schemes
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


def infer_task(folder: Path) -> str:
    """The task of a model, from its files. Raises CheckpointError if they do not tell."""
    if (folder / "modules.json").is_file():
        return "sentence-embedding"
    classes = _config(folder).architectures or ["nothing"]
    for end, task in HEADS.items():
        if classes[0].endswith(end):
            return task
    raise CheckpointError(folder, f"its head is {classes[0]}, which tells no task: give --task")


def describe(
    folder: Path, task: str, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> Checkpoint:
    """A manifest for a model without one. `examples` are labelled ones of the user, as far as there are any.

    Raises CheckpointError.
    """
    config = _config(folder)
    settings, labels = SETTINGS[task](_Model(folder, config, tokenizer, examples))
    return Checkpoint(
        task=task,
        labels=labels,
        max_length=_max_length(folder, config, tokenizer),
        model=folder.name,
        training_data={},
        options={},
        metrics={},
        settings=msgspec.to_builtins(settings),
    )


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(folder, f"config.json cannot be read: {said}") from error


def _max_length(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The least limit that is told; positions of RoBERTa's kind begin after the padding's."""
    told = [tokenizer.model_max_length]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        begins = (config.pad_token_id or 0) + 1 if _counts_from_padding(config) else 0
        told.append(positions - begins)
    said = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(said, int):
        told.append(said)
    least = min(told)
    return least if least < 1_000_000 else LONGEST


def _counts_from_padding(config: Any) -> bool:
    return config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "bart")


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class _Model:
    folder: Path
    config: Any
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Any]


Said = tuple[msgspec.Struct, list[str]]
"""settings and labels"""


def _labels(config: Any) -> list[str]:
    return [str(label) for _, label in sorted(config.id2label.items())]


def _text_classification(told: _Model) -> Said:
    problem = getattr(told.config, "problem_type", None)
    labels = _labels(told.config)
    pair = bool(told.examples) and told.examples[0].pair is not None
    if problem == "regression" or len(labels) == 1:
        return text_classification.Settings(kind="regression", pair=pair), []
    kind: Any = "multi" if problem == "multi_label_classification" else "single"
    return text_classification.Settings(kind=kind, pair=pair), labels


def _token_classification(told: _Model) -> Said:
    """Labels alone do not tell BIO from IOB1, nor IOE2 from IOE1: such tags are decoded leniently.

    The user's data does not tell it either: a copy in BIO of a corpus in IOB1 is usual.
    """
    labels = _labels(told.config)
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
    return settings, _labels(told.config)


def _question_answering(told: _Model) -> Said:
    return question_answering.Settings(unanswerable=not all(e.answers for e in told.examples)), []


def _embedding(told: _Model) -> Said:
    figure = sentence_embedding.FIGURE[told.examples[0].form] if told.examples else "spearman"
    path = told.folder / "modules.json"
    if not path.is_file():
        return sentence_embedding.Settings(figure=figure), []
    kinds = [str(module["type"]).rpartition(".")[2] for module in json.loads(path.read_text("utf-8"))]
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown or "Pooling" not in kinds:
        raise CheckpointError(
            told.folder, f"modules.json has {', '.join(kinds)}; headway has no {sorted(unknown)}"
        )
    return sentence_embedding.Settings(
        pooling=_pooling(told.folder), normalize="Normalize" in kinds, figure=figure
    ), []


def _pooling(folder: Path) -> Any:
    told = _json(folder / "1_Pooling" / "config.json")
    modes = (
        [told["pooling_mode"]] if "pooling_mode" in told else [n for n, used in told.items() if used is True]
    )
    for mode in ("cls", "mean", "max"):
        if modes in ([mode], [f"pooling_mode_{mode}_token"], [f"pooling_mode_{mode}_tokens"]):
            return mode
    raise CheckpointError(folder, f"its pooling is {modes}; headway has cls, mean and max")


def _ranking(told: _Model) -> Said:
    if len(told.config.id2label) != 1:
        raise CheckpointError(
            told.folder, f"has {len(told.config.id2label)} outputs; a model for ranking has one"
        )
    return text_ranking.Settings(), []


def _text2text(told: _Model) -> Said:
    usual = _json(told.folder / "generation_config.json")
    beams = int(usual.get("num_beams") or 1)
    return text2text_generation.Settings(max_new_tokens=_new_tokens(usual), num_beams=beams), []


def _generation(told: _Model) -> Said:
    usual = _json(told.folder / "generation_config.json")
    return text_generation.Settings(max_new_tokens=_new_tokens(usual), special_tokens=True), []


def _new_tokens(usual: dict[str, Any]) -> int:
    return int(usual.get("max_new_tokens") or usual.get("max_length") or 64)


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
