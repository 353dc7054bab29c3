"""Embedding models in every form that sentence-transformers has written: the library's vectors, or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headway.core.errors import CheckpointError, InputError, UsageError
from headway.core.tasks import sentence_embedding
from headway.runtime.retrieval.search import BundleEmbedder
from tests.support import embedders, models, references, texts
from tests.support.bundles import exported, exported_or_refused
from tests.support.embedders import Embedder
from tests.support.files import change, write
from tests.tolerance import MODEL

RTOL, ATOL = MODEL["fp32"]
COMPARED = (*texts.SHORT, *texts.LONG, *texts.parity()[::4])
DIFFERENT = 1e-2
"""an entry of two vectors differs by more where a setting of a form is not heeded"""


def compare(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.array([r.embedding for r in found]), wanted, rtol=RTOL, atol=ATOL)


def same_as_library(folder: Path, pipe: Any) -> None:
    """Compare all that a user can ask of a model with what the library gives."""
    library = references.embedder(folder)
    compare(pipe(COMPARED), references.encode(library, COMPARED))
    few = COMPARED[:8] + texts.LONG
    for name in library.prompts:
        compare(pipe(few, prompt_name=name), references.encode(library, few, prompt_name=name))
    compare(pipe(few, prompt="as given: "), references.encode(library, few, prompt="as given: "))
    with pytest.raises(UsageError, match="prompt_name"):
        pipe(few, prompt_name="no such name")
    with pytest.raises(InputError, match="input 1"):
        pipe(["some text", " "], prompt="a prompt is no text: ")
    left, right = texts.SHORT[:3], texts.SHORT[2:7]
    wanted = library.similarity(references.encode(library, left), references.encode(library, right))
    np.testing.assert_allclose(pipe.similarity(list(left), list(right)), wanted, rtol=RTOL, atol=ATOL)
    cut = [library.tokenizer(text, truncation=False)["input_ids"] for text in texts.LONG]
    assert all(len(ids) > library.max_seq_length for ids in cut)  # else nothing would be truncated
    assert [r.truncated for r in pipe(texts.LONG)] == [True] * len(texts.LONG)


def same_in_retrieval(folder: Path, bundle: Path, tmp_path: Path) -> None:
    """Compare queries and documents of a collection with encode_query and encode_document."""
    library = references.embedder(folder)
    asked, answers = texts.SHORT[:3], texts.SHORT[2:7]
    queries = references.encode(library, asked, "encode_query")
    documents = references.encode(library, answers, "encode_document")
    embedder = BundleEmbedder(bundle, threads=1)
    np.testing.assert_allclose(embedder.queries(list(asked)), queries, rtol=RTOL, atol=ATOL)
    collection = tmp_path / "collection"
    collection.mkdir()
    rows = {
        "queries": [{"id": f"q{i}", "text": text} for i, text in enumerate(asked)],
        "corpus": [{"id": f"d{i}", "text": text} for i, text in enumerate(answers)],
        "qrels": [{"query_id": f"q{i}", "doc_id": f"d{i}", "relevance": 1} for i in range(len(asked))],
    }
    for name, some in rows.items():
        (collection / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), "utf-8")
    examples = sentence_embedding.read_folder(collection, "test")
    passages = [e.record for e in examples if e.form == "document"]
    np.testing.assert_allclose(embedder.passages(passages), documents, rtol=RTOL, atol=ATOL)
    found = embedder._pipe.predict(examples)
    compare(found, np.concatenate([documents, queries]))


@pytest.mark.parametrize("name", embedders.FORMS)
def test_vectors_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    folder = embedders.FORMS[name].save(tmp_path / "model")
    same_as_library(folder, exported(folder))
    same_in_retrieval(folder, tmp_path / "model-bundle", tmp_path)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        (name, architecture)
        for name, form in embedders.FORMS.items()
        for architecture in models.ARCHITECTURES
        if form.vocabulary == "tokenizer.json" or architecture == "bert"
    ],
)
def test_vectors_of_every_architecture(name: str, architecture: str, tmp_path: Path) -> None:
    folder = replace(embedders.FORMS[name], architecture=architecture).save(tmp_path / "model")
    same_as_library(folder, exported(folder))


@pytest.mark.grid
@pytest.mark.parametrize("modules", embedders.MODULES)
@pytest.mark.parametrize("form", embedders.POOLING_CONFIGS)
@pytest.mark.parametrize("mode", embedders.MODES)
def test_every_pooling_in_every_form(modules: str, form: str, mode: str, tmp_path: Path) -> None:
    if mode not in embedders.KNOWN_MODES.get(form, embedders.MODES):
        pytest.skip("a version without this mode")
    same_or_refused(
        Embedder(modules=modules, pooling_config=form, pooling=(mode,), refused="pooling"), tmp_path
    )


def same_or_refused(form: Embedder, tmp_path: Path) -> None:
    folder = form.save(tmp_path / "model")
    pipe = exported_or_refused(folder, form.refused)
    if pipe is not None:
        same_as_library(folder, pipe)
        same_in_retrieval(folder, tmp_path / "model-bundle", tmp_path)


@pytest.mark.parametrize("name", embedders.REFUSED)
def test_what_is_not_carried_is_refused_by_name(name: str, tmp_path: Path) -> None:
    same_or_refused(embedders.REFUSED[name], tmp_path)


def test_a_model_without_modules_is_pooled_as_the_library_does(tmp_path: Path) -> None:
    folder = models.save(tmp_path / "model", kind="wordpiece-cased")
    wanted = references.encode(references.embedder(folder), COMPARED)
    found = np.array([r.embedding for r in exported(folder, "sentence-embedding")(COMPARED)])
    directions = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (found, wanted)]
    np.testing.assert_allclose(*directions, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_weights_in_16_bits_are_computed_in_fp32(kind: torch.dtype, tmp_path: Path) -> None:
    folder = Embedder().save(tmp_path / "model")
    transformers.AutoModel.from_pretrained(folder).to(kind).save_pretrained(folder)
    pipe = exported(folder)
    library = references.embedder(folder, model_kwargs={"dtype": torch.float32})
    compare(pipe(texts.SHORT), references.encode(library, texts.SHORT))


# --- the corpus itself: what these tests could not fail on is no test


HEEDED: dict[str, tuple[str, dict[str, Any]]] = {
    "do_lower_case": ("2.0-lower-case", {"sentence_config": {"do_lower_case": False}}),
    "max_seq_length": ("2.3-longer-than-the-tokenizer", {"sentence_config": None}),
    "default_prompt_name": ("2.4-e5", {"config": embedders.with_prompts(embedders.E5)}),
    "truncation_side": ("6.0-left", {"tokenizer_config": {}}),
    "pooling": ("3-bge", {"pooling": ("mean",)}),
    "pooling_path": ("2019-roberta", {"pooling": ("mean",)}),
    "normalize": ("2019", {"after": ("Normalize",)}),
    "sentence_config_name": ("2019-roberta", {"sentence_config_name": "sentence_gpt2_config.json"}),
    "include_prompt": ("", {"include_prompt": True}),
    "tokenizer_args": ("processing", {"sentence_config": {"do_lower_case": False}}),
}


@pytest.mark.parametrize("setting", HEEDED)
def test_each_setting_changes_the_vectors_of_its_form(setting: str, tmp_path: Path) -> None:
    name, changed = HEEDED[setting]
    form = embedders.FORMS[name] if name else embedders.REFUSED["prompt-not-pooled"]
    sides = [form.save(tmp_path / "with"), replace(form, **changed).save(tmp_path / "without")]
    both = (*texts.SHORT[:4], *texts.LONG)
    with_it, without = (references.encode(references.embedder(folder), both) for folder in sides)
    assert with_it.shape == without.shape
    assert np.abs(with_it - without).max() > DIFFERENT


# --- files that are not what the library writes


def broken(what: str, folder: Path) -> None:
    """Damage a folder."""
    listed = json.loads((folder / "modules.json").read_text("utf-8"))
    config = folder / "config_sentence_transformers.json"
    if what == "modules cut short":
        (folder / "modules.json").write_text("[{", "utf-8")
    elif what == "modules without type":
        write(folder / "modules.json", [{k: v for k, v in m.items() if k != "type"} for m in listed])
    elif what == "modules a mapping":
        write(folder / "modules.json", {"modules": listed})
    elif what == "no pooling":
        write(folder / "modules.json", listed[:1])
    elif what == "no transformer":
        write(folder / "modules.json", listed[1:])
    elif what == "code":
        write(folder / "modules.json", [listed[0] | {"type": "custom_st.Transformer"}, *listed[1:]])
        (folder / "custom_st.py").write_text("raise SystemExit('this code ran')", "utf-8")
    elif what == "outside":
        write(folder / "modules.json", [listed[0] | {"path": "../elsewhere"}, *listed[1:]])
    elif what == "no such path":
        write(folder / "modules.json", [listed[0] | {"path": "0_Transformer"}, *listed[1:]])
    elif what == "pooling cut short":
        (folder / "1_Pooling" / "config.json").write_text("{", "utf-8")
    elif what == "no pooling config":
        (folder / "1_Pooling" / "config.json").unlink()
    elif what == "unknown pooling":
        write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": "median"})
    elif what == "length a text":
        write(folder / "sentence_bert_config.json", {"max_seq_length": "48"})
    elif what == "sentence config cut short":
        (folder / "sentence_bert_config.json").write_text("{", "utf-8")
    elif what == "unknown default prompt":
        change(config, prompts={"query": "Q: "}, default_prompt_name="passage")
    elif what == "prompts a list":
        change(config, prompts=["query: "])
    elif what == "prompt a number":
        change(config, prompts={"query": 5})
    elif what == "default prompt a list":
        change(config, default_prompt_name=["query"])
    elif what == "truncated to true":
        change(config, truncate_dim=True)
    elif what == "pooling a number":
        write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": 3})
    elif what == "pooling numbers":
        write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 32, "pooling_mode": [3]})
    elif what == "tokenizer_args a list":
        change(folder / "sentence_bert_config.json", tokenizer_args=["a"])
    elif what == "modality_config a number":
        change(folder / "sentence_bert_config.json", modality_config=1)
    elif what == "half a character":
        change(config, prompts={"query": "\ud83d: "})
    elif what == "arguments of modules":
        write(folder / "modules.json", [m | {"kwargs": ["task"]} for m in listed])
    elif what == "truncated to nothing":
        change(config, truncate_dim=0)
    elif what == "truncated to a text":
        change(config, truncate_dim="12")
    else:
        change(config, model_type=what)


BROKEN = {
    "modules cut short": "modules.json",
    "modules without type": "modules.json",
    "modules a mapping": "modules.json",
    "no pooling": "Pooling",
    "no transformer": "Transformer",
    "code": "custom_st",
    "outside": "path",
    "no such path": "0_Transformer|tokenizer",
    "pooling cut short": "config.json",
    "no pooling config": "1_Pooling",
    "unknown pooling": "pooling",
    "length a text": "max_seq_length",
    "sentence config cut short": "sentence_bert_config.json",
    "unknown default prompt": "default_prompt_name",
    "prompts a list": "prompts",
    "prompt a number": "prompts",
    "default prompt a list": "default_prompt_name",
    "truncated to true": "truncate_dim",
    "pooling a number": "pooling_mode",
    "pooling numbers": "pooling_mode",
    "tokenizer_args a list": "tokenizer_args",
    "modality_config a number": "modality_config",
    "half a character": "prompts.*surrogate",
    "arguments of modules": "its own library does not answer",
    "truncated to nothing": "truncate_dim",
    "truncated to a text": "truncate_dim",
    "SparseEncoder": "SparseEncoder",
    "MultiVectorEncoder": "MultiVectorEncoder",
}
"""what a folder is damaged by, and the file or setting that the error names"""


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_folder_is_refused(what: str, tmp_path: Path) -> None:
    folder = Embedder().save(tmp_path / "model")
    broken(what, folder)
    with pytest.raises(CheckpointError, match=BROKEN[what]):
        exported(folder)
    assert not (tmp_path / "model-bundle").exists()
