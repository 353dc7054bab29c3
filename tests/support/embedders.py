"""Folders of sentence-transformers models in every form that its versions have written since 2019.

The form of each file changed by itself, so an `Embedder` names one form of each. Sources: the converters of old
configurations in sentence-transformers 6.2 (`Transformer.load_config`, `Pooling.load_config`,
`DEPRECATED_MODULE_PATHS`), and folders that its earlier versions saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.support import models, tokenizers
from tests.support.files import change, write

MODULES: dict[str, tuple[str, dict[str, str]]] = {
    "2019": ("0_Transformer", {}),
    "2.0": ("", {}),
    "5.4": (
        "",
        {
            "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
            "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "Normalize": "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
        },
    ),
    "6.0": (
        "",
        {
            "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
            "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
            "Dense": "sentence_transformers.base.modules.dense.Dense",
            "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
            "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
            "WordEmbeddings": "sentence_transformers.sentence_transformer.modules.word_embeddings.WordEmbeddings",
        },
    ),
}
"""by version: where the first module's files are, and the types; others are `sentence_transformers.models.<class>`"""

MODES = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
FLAG = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
KNOWN_MODES = {"2019": MODES[:3], "2.0": MODES[:4], "2.3": MODES, "2.4": MODES}
"""the modes that each version's file has a flag for"""
POOLING_CONFIGS = (*KNOWN_MODES, "5.4", "5.4-list", "width-only", "no-mode")
"""the forms of the pooling module's config.json; the last two are read as mean by the library"""


def pooling_config(form: str, modes: tuple[str, ...], include_prompt: bool = True) -> dict[str, Any]:
    """The pooling module's config.json in the form of a version."""
    if form == "width-only":
        return {"word_embedding_dimension": models.HIDDEN}
    if form == "no-mode":
        return {"word_embedding_dimension": models.HIDDEN, **dict.fromkeys(FLAG.values(), False)}
    if form.startswith("5.4"):
        mode: Any = list(modes) if form == "5.4-list" or len(modes) > 1 else modes[0]
        return {
            "embedding_dimension": models.HIDDEN,
            "pooling_mode": mode,
            "include_prompt": include_prompt,
        }
    flags = {FLAG[mode]: mode in modes for mode in KNOWN_MODES[form]}
    last = {"include_prompt": include_prompt} if form == "2.4" else {}
    return {"word_embedding_dimension": models.HIDDEN, **flags, **last}


MODALITIES = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""what version 5.4 and later write into sentence_bert_config.json"""
SENTENCE_CONFIG_NAMES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""the names that the library looks for, in this order"""
VERSION = {"__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}}


@dataclass(frozen=True)
class Embedder:
    """One form of each file of a SentenceTransformer."""

    architecture: str = "bert"
    tokenizer: str = ""
    """a kind of `tokenizers.KINDS`; by default the architecture's usual one"""
    length: Any = tokenizers.LENGTH
    """the tokenizer's model_max_length"""
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    """further fields of tokenizer_config.json; `files.ABSENT` takes one out"""
    modules: str = "2.0"
    """a version of `MODULES`"""
    pooling_path: str = "1_Pooling"
    pooling_config: str = "2.4"
    """one of `POOLING_CONFIGS`"""
    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    after: tuple[str, ...] = ("Normalize",)
    """classes of the modules after the pooling"""
    before: tuple[str, ...] = ("Transformer",)
    sentence_config: Mapping[str, Any] | None = field(default_factory=lambda: {"max_seq_length": 48})
    """of the transformer module; None: there is no such file"""
    sentence_config_name: str = SENTENCE_CONFIG_NAMES[0]
    config: Mapping[str, Any] | None = field(default_factory=lambda: dict(VERSION))
    """config_sentence_transformers.json; None: there is no such file"""
    vocabulary: str = "tokenizer.json"
    """the tokenizer's file; before 2020 those of WordPiece were a vocab.txt, with max_len for model_max_length"""
    model: Mapping[str, Any] = field(default_factory=dict)
    """fields of config.json"""
    refused: str = ""
    """the setting or class by whose name an export refuses it, where it does"""

    def save(self, folder: Path) -> Path:
        """Write the folder, which must not exist."""
        at, types = MODULES[self.modules]
        tokenizer = models.tokenizer_of(self.architecture, self.tokenizer, self.length)
        models.save(folder / at, architecture=self.architecture, tokenizer=tokenizer, **self.model)
        if self.vocabulary == "vocab.txt":
            (folder / at / "tokenizer.json").unlink()
            words = sorted(tokenizer.get_vocab(), key=tokenizer.convert_tokens_to_ids)
            (folder / at / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
            write(folder / at / "tokenizer_config.json", {"do_lower_case": True, "max_len": self.length})
            write(folder / at / "special_tokens_map.json", tokenizer.special_tokens_map)
        change(folder / at / "tokenizer_config.json", **self.tokenizer_config)
        kinds = [*self.before, "Pooling", *self.after]
        listed = []
        for i, name in enumerate(kinds):
            path = at if i == 0 else f"{i}_{name}" if name != "Pooling" else self.pooling_path
            listed.append({
                "idx": i, "name": str(i), "path": path,
                "type": types.get(name, f"sentence_transformers.models.{name}"),
            })  # fmt: skip
            (folder / path).mkdir(parents=True, exist_ok=True)
            self._module(name, folder / path)
        write(folder / "modules.json", listed)
        if self.sentence_config is not None:
            write(folder / at / self.sentence_config_name, dict(self.sentence_config))
        if self.config is not None:
            write(folder / "config_sentence_transformers.json", dict(self.config))
        return folder

    def _module(self, name: str, path: Path) -> None:
        width = models.HIDDEN * (1 if name == "WordEmbeddings" else len(self.pooling))
        random = torch.Generator().manual_seed(1)
        if name == "Pooling":
            write(
                path / "config.json", pooling_config(self.pooling_config, self.pooling, self.include_prompt)
            )
        elif name == "Dense":
            config = {"in_features": width, "out_features": 16, "bias": True}
            write(path / "config.json", config | {"activation_function": "torch.nn.modules.activation.Tanh"})
            weights = {
                "linear.weight": torch.randn(16, width, generator=random),
                "linear.bias": torch.zeros(16),
            }
            save_file(weights, path / "model.safetensors")
        elif name == "LayerNorm":
            write(path / "config.json", {"dimension": width})
            save_file(
                {"norm.weight": torch.rand(width, generator=random), "norm.bias": torch.zeros(width)},
                path / "model.safetensors",
            )
        elif name == "Dropout":
            write(path / "config.json", {"dropout": 0.2})
        elif name == "Normalize" and self.modules == "6.0":
            output = "sentence_embedding"
            write(path / "config.json", {"module_input_name": output, "module_output_name": output})
        elif name == "WordEmbeddings":
            words = {"vocab": ["parcel", "late", "refund"], "stop_words": [], "do_lower_case": True}
            write(path / "whitespacetokenizer_config.json", words)
            kind = "sentence_transformers.models.tokenizer.WhitespaceTokenizer.WhitespaceTokenizer"
            config = {"tokenizer_class": kind, "update_embeddings": False, "max_seq_length": 100}
            write(path / "wordembedding_config.json", config)
            save_file(
                {"emb_layer.weight": torch.randn(3, width, generator=random)}, path / "model.safetensors"
            )


E5 = {"query": "query: ", "passage": "passage: "}
INSTRUCTION = {"query": "Represent this sentence for searching relevant passages: ", "document": ""}


def with_prompts(prompts: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """config_sentence_transformers.json as version 3 writes it."""
    told = {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    return VERSION | told | settings


FORMS: dict[str, Embedder] = {
    "2019": Embedder(
        modules="2019", pooling_config="2019", after=(), config=None, vocabulary="vocab.txt",
        sentence_config={"max_seq_length": 40, "do_lower_case": False},
    ),
    "2019-roberta": Embedder(
        architecture="roberta", modules="2019", pooling_config="2019", after=(), config=None, pooling=("cls",),
        sentence_config={"max_seq_length": 40}, sentence_config_name="sentence_roberta_config.json",
        pooling_path="pool",
    ),
    "2.0-lower-case": Embedder(
        architecture="distilbert", tokenizer="wordpiece-cased", pooling_config="2.0",
        pooling=("mean_sqrt_len_tokens",), sentence_config={"max_seq_length": None, "do_lower_case": True},
        config=VERSION | {"model_type": "SentenceTransformer"}, after=("Dropout",),
    ),
    "2.3-longer-than-the-tokenizer": Embedder(
        architecture="mpnet", length=32, pooling_config="2.3", pooling=("weightedmean",),
        sentence_config={"max_seq_length": 56, "do_lower_case": False},
        config=with_prompts({}, similarity_fn_name="dot"),
    ),
    "2.4-e5": Embedder(
        architecture="xlm-roberta", pooling_config="2.4", length=int(1e30),
        config=with_prompts(E5, default_prompt_name="passage", similarity_fn_name=None),
        sentence_config={"max_seq_length": 64, "do_lower_case": False},
    ),
    "3-bge": Embedder(
        pooling_config="2.4", pooling=("cls",), sentence_config=None,
        config=with_prompts(INSTRUCTION, truncate_dim=4096),
    ),
    "5.4-truncated": Embedder(
        architecture="modernbert", modules="5.4", pooling_config="5.4", pooling=("max",),
        sentence_config=MODALITIES,
        config=with_prompts(
            {"query": "search_query: ", "document": "search_document: ", "clustering": "clustering: "},
            similarity_fn_name="euclidean", truncate_dim=12, model_type="SentenceTransformer",
        ),
    ),
    "6.0-left": Embedder(
        architecture="electra", modules="6.0", pooling_config="5.4-list", pooling=("lasttoken",), after=(),
        sentence_config=MODALITIES | {"max_seq_length": 24}, tokenizer_config={"truncation_side": "left"},
        config=with_prompts({"query": "Query: ", "document": ""}, similarity_fn_name="manhattan"),
    ),
    "mean-without-a-mode": Embedder(
        architecture="albert", pooling_config="no-mode", tokenizer="added-tokens",
        sentence_config={"max_seq_length": 48, "do_lower_case": True},
        config=with_prompts({"query": "Q: ", "corpus": "C: ", "sts": "", "nli": None}, default_prompt_name="query"),
    ),
    "processing": Embedder(
        architecture="camembert", pooling_config="width-only",
        sentence_config={"tokenizer_args": {"model_max_length": 30}, "do_lower_case": False},
        config=with_prompts(
            {"retrieval_query": "Frage: ", "query": "Suche: "}, similarity_fn_name="hamming"
        ),
    ),
}  # fmt: skip
"""forms that the library gives vectors for: each value of each file at least once"""

DENSE = ("Dense", "Normalize")
REFUSED: dict[str, Embedder] = {
    "dense": Embedder(after=DENSE, refused="Dense"),
    "dense-6.0": Embedder(after=DENSE, modules="6.0", pooling_config="5.4", refused="Dense"),
    "layer-norm": Embedder(after=("LayerNorm",), refused="LayerNorm"),
    "word-embeddings": Embedder(before=("WordEmbeddings",), refused="WordEmbeddings", sentence_config=None),
    "two-modes": Embedder(pooling=("cls", "mean"), refused="pooling"),
    "two-modes-5.4": Embedder(pooling=("max", "mean"), pooling_config="5.4", refused="pooling_mode"),
    "prompt-not-pooled": Embedder(
        include_prompt=False,
        config=with_prompts({"query": "Represent the question: "}, default_prompt_name="query"),
        refused="include_prompt",
    ),
    "prompt-not-pooled-5.4": Embedder(
        include_prompt=False,
        pooling_config="5.4",
        modules="6.0",
        config=with_prompts({"query": "Represent the question: "}),
        refused="include_prompt",
    ),
    "prompt-of-a-call-not-pooled": Embedder(include_prompt=False, refused="include_prompt"),
    "query-length": Embedder(
        sentence_config=MODALITIES | {"max_seq_length": 48, "query_length": 8, "document_length": 24},
        modules="6.0",
        config=with_prompts({"query": "Q: "}),
        refused="query_length",
    ),
    "pooled-output": Embedder(
        sentence_config=MODALITIES
        | {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
        modules="6.0",
        refused="method_output_name",
    ),
    "other-output": Embedder(
        sentence_config=MODALITIES | {"module_output_name": "all_layer_embeddings"},
        modules="6.0",
        refused="module_output_name",
    ),
    "processing-kwargs": Embedder(
        sentence_config=MODALITIES | {"processing_kwargs": {"text": {"max_length": 10}}},
        modules="6.0",
        refused="processing_kwargs",
    ),
    "tokenizer-args": Embedder(
        sentence_config={"max_seq_length": 48, "tokenizer_args": {"truncation_side": "left"}},
        refused="tokenizer_args",
    ),
}
"""forms that an export refuses by the name of a setting, unless its vectors are the library's"""
