"""What a sentence-transformers folder says of itself: modules, pooling, prompts, similarity, activation.

The forms are those that sentence-transformers 6.2 reads, from those of 2019 on; what headway does not compute is refused
by its name. https://sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.core import data
from headway.core.errors import CheckpointError

MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""names of the Transformer module's configuration; the first that is there counts"""
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LEGACY_POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""flags of the versions before 5.4"""
SIMILARITY_FUNCTIONS = ("cosine", "dot", "euclidean", "manhattan")
ACTIVATION_FUNCTIONS = {"Sigmoid": "sigmoid", "Identity": "identity"}
"""classes of `torch.nn` that a cross-encoder may name, and what headway calls them"""
WITHOUT_EFFECT = frozenset(
    {"torch_dtype", "dtype", "attn_implementation", "trust_remote_code", "add_pooling_layer"}
)
"""keyword arguments for the model or the tokenizer that change no fp32 result"""

USUAL_OUTPUTS = {
    "method": ("forward",),
    "method_output_name": ("last_hidden_state", "logits"),
    "module_output_name": ("token_embeddings", "scores"),
}
"""values of the Transformer module's configuration for models that headway computes: of embedders, of cross-encoders"""


@dataclass(frozen=True)
class TransformerConfig:
    """The Transformer module."""

    folder: Path
    """where the Transformers files lie"""
    max_seq_length: int | None = None
    """tokens; None: the tokenizer's"""
    do_lower_case: bool = False


@dataclass(frozen=True)
class PromptConfig:
    """Texts that are put before the input."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


@dataclass(frozen=True)
class EmbedderConfig:
    """A `SentenceTransformer` folder."""

    transformer: TransformerConfig
    prompt: PromptConfig
    pooling_mode: str
    normalize: bool
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None

    def settings(self) -> dict[str, Any]:
        """As fields of the task's `Settings`."""
        return {
            "pooling": self.pooling_mode,
            "normalize": self.normalize,
            "prompts": self.prompt.prompts,
            "default_prompt_name": self.prompt.default_prompt_name,
            "truncate_dim": self.truncate_dim,
            "similarity_fn_name": self.similarity_fn_name,
        }


@dataclass(frozen=True)
class CrossEncoderConfig:
    """A `CrossEncoder` folder."""

    transformer: TransformerConfig
    prompt: PromptConfig
    activation_fn: str
    """sigmoid or identity"""


def model_type(folder: Path) -> str | None:
    """SentenceTransformer, CrossEncoder, SparseEncoder, …; None without a modules.json."""
    if not (folder / MODULES).is_file():
        return None
    return str(_read(folder / MODEL_CONFIG).get("model_type") or "SentenceTransformer")


def transformer_folder(folder: Path) -> Path:
    """Where a model's Transformers files lie: `0_Transformer` in some sentence-transformers folders, else the folder.

    Raises CheckpointError.
    """
    if not (folder / MODULES).is_file():
        return folder
    modules = _modules(folder)
    first = modules[0] if modules else {}
    return _module_folder(folder, first) if _kind(first) == "Transformer" else folder


def read_transformer(folder: Path) -> TransformerConfig:
    """Length and lower-casing, as the Transformer module of a folder has them; defaults without one.

    Raises CheckpointError for settings that headway does not apply.
    """
    place = transformer_folder(folder)
    config: dict[str, Any] = {}
    if (folder / MODULES).is_file():
        config = next((c for name in TRANSFORMER_CONFIGS if (c := _read(place / name))), {})
    for name in ("query_expansion", "query_length", "document_length", "processing_kwargs"):
        if config.get(name):
            raise CheckpointError(folder, f"its Transformer module sets {name}, which headway does not apply")
    for name in (
        "model_args",
        "model_kwargs",
        "tokenizer_args",
        "processor_kwargs",
        "config_args",
        "config_kwargs",
    ):
        if unknown := sorted(_object(folder, config, name).keys() - WITHOUT_EFFECT - {"model_max_length"}):
            raise CheckpointError(
                folder, f"its {name} set {', '.join(unknown)}, which headway does not apply"
            )
    if "message" in _object(folder, config, "modality_config"):
        raise CheckpointError(folder, "its modality_config has chat messages, which headway does not apply")
    _refuse_other_outputs(folder, config)
    length = config.get("max_seq_length")
    for name in ("tokenizer_args", "processor_kwargs"):
        length = _object(folder, config, name).get("model_max_length", length)
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise CheckpointError(folder, f"its max_seq_length is {length!r}, not a number of tokens")
    return TransformerConfig(place, length, bool(config.get("do_lower_case")))


def _refuse_other_outputs(folder: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError for a Transformer module that gives on another output of the model than its last one."""
    text = _object(folder, _object(folder, config, "modality_config"), "text")
    for fields, name in ((text, "method"), (text, "method_output_name"), (config, "module_output_name")):
        if (value := fields.get(name)) not in (None, *USUAL_OUTPUTS[name]):
            raise CheckpointError(
                folder, f"its Transformer module has {name} {value!r}, which headway does not apply"
            )


def read_embedder(folder: Path) -> EmbedderConfig:
    """A folder whose `model_type` is SentenceTransformer. Raises CheckpointError, naming what headway does not compute."""
    modules = [m for m in _modules(folder) if _kind(m) != "Dropout"]  # it does nothing at inference
    kinds = [_kind(module) for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
        problem = (
            f"headway has no {', '.join(unknown)}"
            if unknown
            else "headway wants Transformer, Pooling, Normalize"
        )
        raise CheckpointError(folder, f"{MODULES} has {', '.join(kinds) or 'no modules'}; {problem}")
    transformer = read_transformer(folder)
    task = _transformer_task(transformer.folder)
    if task not in (None, "feature-extraction"):
        raise CheckpointError(folder, f"its transformer_task is {task}, not feature-extraction")
    config = _read(folder / MODEL_CONFIG)
    prompt = _prompts(folder, config)
    similarity = config.get("similarity_fn_name")
    truncate_dim = config.get("truncate_dim")
    if truncate_dim is not None and (type(truncate_dim) is not int or truncate_dim < 1):
        raise CheckpointError(folder, f"its truncate_dim is {truncate_dim!r}, not a number of dimensions")
    for module in modules[2:]:
        told = _read(_module_folder(folder, module) / "config.json")
        for name in ("module_input_name", "module_output_name"):
            if (value := told.get(name, "sentence_embedding")) not in (None, "sentence_embedding"):
                raise CheckpointError(folder, f"its Normalize module has {name} {value!r}")
    pooling_file = _module_folder(folder, modules[1]) / "config.json"
    if not pooling_file.is_file():
        raise CheckpointError(
            folder, f"there is no {pooling_file.relative_to(folder)} for its Pooling module"
        )
    pooling = _read(pooling_file)
    if not pooling.get("include_prompt", True):  # null is false to the library
        raise CheckpointError(folder, "its pooling has include_prompt false, which headway does not compute")
    return EmbedderConfig(
        transformer,
        prompt,
        _pooling_mode(folder, pooling),
        "Normalize" in kinds,
        similarity if similarity in SIMILARITY_FUNCTIONS else "cosine",  # as the library
        truncate_dim,
    )


def default_embedder(folder: Path, config: Any) -> EmbedderConfig:
    """A Transformers folder, as `SentenceTransformer` opens it; `config` is its configuration."""
    causal = architecture(config).endswith("ForCausalLM") and getattr(config, "is_causal", True)
    mode = "lasttoken" if causal else "mean"
    return EmbedderConfig(read_transformer(folder), PromptConfig(), mode, normalize=False)


def architecture(config: Any) -> str:
    """The class that a Transformers configuration names, the first of several; "" for none."""
    named = getattr(config, "architectures", None)
    return str(named[0]) if isinstance(named, list) and named else ""


def read_cross_encoder(folder: Path, config: Any, outputs: int) -> CrossEncoderConfig:
    """A folder that `is_cross_encoder`; `config` is the Transformers configuration.

    Raises CheckpointError, naming what headway does not compute.
    """
    refuse_cross_encoder_modules(folder)
    of_model = _of_cross_encoder(folder)
    named = _activation_fn(folder, config, of_model)
    name = named.rpartition(".")[2] if named else "Sigmoid" if outputs == 1 else "Identity"
    if name not in ACTIVATION_FUNCTIONS or (named and not named.startswith("torch.")):
        raise CheckpointError(folder, f"its activation_fn is {named}; headway has Sigmoid and Identity")
    return CrossEncoderConfig(
        read_transformer(folder), _prompts(folder, of_model), ACTIVATION_FUNCTIONS[name]
    )


def refuse_other_scores(folder: Path, config: Any, kind: str) -> None:
    """Raise CheckpointError for a cross-encoder of several outputs whose scores are none of a classifier.

    `kind`: single (a bundle gives the softmax) or multi (the sigmoid). What the library leaves as it is (Identity) has
    these probabilities.
    """
    of_model = _of_cross_encoder(folder)
    named = _activation_fn(folder, config, of_model)
    function = "Softmax" if kind == "single" else "Sigmoid"
    if named and named.rpartition(".")[2] not in ("Identity", function):
        raise CheckpointError(
            folder,
            f"its activation_fn is {named}, but its problem_type makes it a classifier by {function}: for Sigmoid, set "
            "problem_type to multi_label_classification in config.json",
        )
    prompt = _prompts(folder, of_model)
    if prompt.prompts.get(prompt.default_prompt_name or ""):
        raise CheckpointError(
            folder, "it has a default prompt, which headway has for cross-encoders of one output"
        )


def _of_cross_encoder(folder: Path) -> dict[str, Any]:
    return _read(folder / MODEL_CONFIG) if (folder / MODULES).is_file() else {}


def _activation_fn(folder: Path, config: Any, of_model: dict[str, Any]) -> str | None:
    """The class that a cross-encoder's files name; `of_model` is what its config_sentence_transformers.json says."""
    of_version_4 = _object(folder, vars(config), "sentence_transformers")
    named = of_model.get("activation_fn")
    if not named and "activation_fn" in of_version_4:  # then the older field does not count, even beside null
        named = of_version_4["activation_fn"]
    elif not named:
        named = getattr(config, "sbert_ce_default_activation_function", None)
    return str(named) if named else None


def refuse_cross_encoder_modules(folder: Path) -> None:
    """Raise CheckpointError for modules of a cross-encoder beside the Transformer, as LogitScore."""
    if not (folder / MODULES).is_file():
        return
    kinds = [_kind(module) for module in _modules(folder)]
    if kinds != ["Transformer"]:
        raise CheckpointError(folder, f"{MODULES} has {', '.join(kinds)}; headway has Transformer alone")


def is_cross_encoder(folder: Path, config: Any) -> bool:
    """Whether a folder says that `CrossEncoder` wrote it."""
    marks = ("sentence_transformers", "sbert_ce_default_activation_function")
    return model_type(folder) == "CrossEncoder" or any(getattr(config, mark, None) for mark in marks)


def _modules(folder: Path) -> list[dict[str, Any]]:
    content = _json(folder / MODULES)
    if not isinstance(content, list) or not all(isinstance(m, dict) and "type" in m for m in content):
        raise CheckpointError(folder, f"{MODULES} is not a list of modules with their types")
    return content


def _kind(module: dict[str, Any]) -> str:
    """The class of a module, by its name alone if it is the library's own."""
    name = str(module.get("type", ""))
    return name.rpartition(".")[2] if name.startswith("sentence_transformers.") else name


def _module_folder(folder: Path, module: dict[str, Any]) -> Path:
    path = Path(str(module.get("path") or ""))
    if path.is_absolute() or ".." in path.parts:
        raise CheckpointError(folder, f"{MODULES} has the path '{path}', which leads out of it")
    return folder / path


def _prompts(folder: Path, config: dict[str, Any]) -> PromptConfig:
    """`query` and `document` are always there, empty unless they are told: the library has them by default."""
    told = config.get("prompts") or {}
    if not isinstance(told, dict) or not all(isinstance(p, str) or p is None for p in told.values()):
        raise CheckpointError(folder, f"{MODEL_CONFIG}: prompts must be texts by their names")
    for text in filter(None, (*told, *told.values())):
        if (problem := data.encoding_problem(text)) is not None:
            raise CheckpointError(folder, f"{MODEL_CONFIG}: of its prompts, {text!r} {problem}")
    default = config.get("default_prompt_name")
    if default is not None and default not in ("query", "document", *told):
        raise CheckpointError(
            folder, f"its default_prompt_name is '{default}'; it has the prompts {sorted(told)}"
        )
    return PromptConfig({name: text or "" for name, text in told.items()}, default)


def _pooling_mode(folder: Path, config: dict[str, Any]) -> str:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in LEGACY_POOLING_MODES.items() if config.get(flag)] or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        known, named = ", ".join(POOLING_MODES), ", ".join(map(str, modes)) or "an empty list"
        raise CheckpointError(folder, f"its pooling_mode is {named}; headway has one of {known}")
    return str(modes[0])


def _transformer_task(folder: Path) -> str | None:
    config: dict[str, Any] = next((c for name in TRANSFORMER_CONFIGS if (c := _read(folder / name))), {})
    return config.get("transformer_task")


def _object(folder: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    """A field that is a JSON object; {} without it. Raises CheckpointError."""
    content = config.get(name) or {}
    if not isinstance(content, dict):
        raise CheckpointError(folder, f"its {name} is {content!r}, not an object")
    return content


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} without the file. Raises CheckpointError."""
    content = _json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise CheckpointError(path.parent, f"{path.name} is not a JSON object")
    return content


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(path.parent, f"{path.name} cannot be read: {error}") from error
