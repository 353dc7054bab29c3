"""End-to-end parity at export: what a bundle answers to raw strings, beside the source's own library."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from headway.core.errors import EndToEndError
from headway.core.manifest import Bundle
from headway.core.tasks import sentence_embedding, text_ranking
from headway.export.bundle import export
from headway.export.end_to_end import cross_encoder, sentence_transformer
from headway.export.end_to_end.base import Answer, difference
from headway.export.options import ExportOptions
from headway.train import checkpoint, fit, foreign
from headway.train.options import TrainOptions
from tests import corpora
from tests.conftest import Run
from tests.support import cross_encoders, references
from tests.support.embedders import Embedder, with_prompts
from tests.test_architectures import model_of
from tests.test_foreign import change, with_head

PROMPTS = with_prompts({"query": "query: ", "document": "passage: "}, default_prompt_name="document")


def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions(output=tmp_path / "bundle", precision="fp32", threads=1)


def compared(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = Bundle.read(tmp_path / "bundle").source["end_to_end"]
    return found


# --- the gate


def test_the_manifest_and_the_card_say_what_was_compared(tmp_path: Path) -> None:
    export(Embedder(config=PROMPTS).save(tmp_path / "model"), options(tmp_path))
    assert compared(tmp_path)["reference"] == "SentenceTransformer.encode"
    assert compared(tmp_path)["worst"] < 1e-3
    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert "compared with SentenceTransformer.encode" in card
    assert "Prompts put before texts: query 'query: ', document 'passage: '; by default document." in card


def test_a_dropped_prompt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_embedding, "prompt_of", lambda example, settings: "")
    with pytest.raises(EndToEndError, match="it ignores prompts") as caught:
        export(Embedder(config=PROMPTS).save(tmp_path / "model"), options(tmp_path))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "bundle").exists()


def test_a_difference_of_no_setting_is_not_put_on_one_without_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer lower-cases and no text has a prompt: neither do_lower_case nor prompts change an answer."""
    library = sentence_transformer.SentenceTransformerReference._of_library

    def other(self: Any, case: Any) -> Answer:
        return Answer(library(self, case).values + 1.0, group=library(self, case).group)

    monkeypatch.setattr(sentence_transformer.SentenceTransformerReference, "_of_library", other)
    with pytest.raises(EndToEndError, match="no single setting"):
        export(Embedder().save(tmp_path / "model"), options(tmp_path))


def test_a_dropped_default_prompt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = sentence_embedding.prompt_of

    def without_default(example: Any, settings: Any) -> str:
        return plain(example, settings) if example.prompt is not None else ""

    monkeypatch.setattr(sentence_embedding, "prompt_of", without_default)
    with pytest.raises(EndToEndError, match="it ignores default_prompt_name"):
        export(Embedder(config=PROMPTS).save(tmp_path / "model"), options(tmp_path))


@pytest.mark.parametrize("form", ["4-sigmoid", "4-identity"])
def test_a_swapped_activation_is_refused(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = foreign.SETTINGS["text-ranking"]

    def swapped(told: Any) -> Any:
        settings, labels = plain(told)
        other = "identity" if settings.activation_fn == "sigmoid" else "sigmoid"  # type: ignore[attr-defined]
        return text_ranking.Settings(activation_fn=other), labels

    monkeypatch.setitem(foreign.SETTINGS, "text-ranking", swapped)
    folder = cross_encoders.FORMS[form].save(tmp_path / "model")
    with pytest.raises(EndToEndError, match="it ignores activation_fn"):
        export(folder, options(tmp_path))


@pytest.mark.parametrize("kind", ["embedder", "classifier", "cross-encoder"])
def test_an_ignored_truncation_side_is_refused(
    kind: str, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"truncation_side": "left"}
    if kind == "embedder":
        folder = Embedder(tokenizer_config=left).save(tmp_path / "model")
    elif kind == "classifier":
        folder = with_head("text-classification", pretrained, tmp_path / "model")
        change(folder / "tokenizer_config.json", **left)
    else:
        folder = cross_encoders.FORMS["4-sigmoid"].save(tmp_path / "model")  # it is cut at its left
    export(folder, options(tmp_path))
    assert Bundle.read(tmp_path / "bundle").truncation_side == "left"
    monkeypatch.setattr(checkpoint, "truncation_side", lambda tokenizer: "right")
    from headway.export import bundle

    monkeypatch.setattr(bundle, "_check_tokenizer", lambda opened, tokenizer: None)
    with pytest.raises(EndToEndError, match="it ignores truncation_side"):
        export(folder, ExportOptions(output=tmp_path / "other", precision="fp32", threads=1))


def test_a_swapped_problem_type_is_refused(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = foreign.SETTINGS["text-classification"]

    def swapped(told: Any) -> Any:
        settings, labels = plain(told)
        return type(settings)(kind="single"), labels  # type: ignore[call-arg]

    problem = {"num_labels": 3, "problem_type": "multi_label_classification"}
    folder = with_head("text-classification", pretrained, tmp_path / "model", **problem)
    monkeypatch.setitem(foreign.SETTINGS, "text-classification", swapped)
    with pytest.raises(EndToEndError, match="it ignores problem_type"):
        export(folder, options(tmp_path))


def test_labels_in_another_order_are_refused(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = dict(enumerate(["O", "I-b", "B-b", "I-a", "B-a"]))
    named = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    folder = with_head("token-classification", pretrained, tmp_path / "model", **named)
    plain = foreign._labels
    monkeypatch.setattr(foreign, "_labels", lambda told: sorted(plain(told)))
    with pytest.raises(EndToEndError, match="token-classification"):
        export(folder, options(tmp_path))


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_generated_texts_are_those_of_generate(kind: str, tmp_path: Path) -> None:
    autos = {"bart": transformers.AutoModelForSeq2SeqLM, "gpt2": transformers.AutoModelForCausalLM}
    folder = model_of(kind, autos[kind], tmp_path / "model")
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"no_repeat_ngram_size": 2}))
    export(folder, options(tmp_path))
    found = compared(tmp_path)
    assert (found["reference"], found["inputs"], found["worst"]) == ("generate", 12, 0.0)
    assert found["computed_by"] == f"transformers {transformers.__version__}"


# --- prompts of a call


def test_prompts_of_a_file(run: Run, tmp_path: Path) -> None:
    folder = Embedder(config=PROMPTS).save(tmp_path / "model")
    export(folder, options(tmp_path))
    (tmp_path / "in.jsonl").write_text('{"text": "Where is my parcel?"}\n', "utf-8")
    command = [
        "predict",
        tmp_path / "bundle",
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        "-",
        "--threads",
        1,
    ]
    library = references.embedder(folder)
    for name, how in ((None, "encode"), ("query", "encode_query"), ("document", "encode_document")):
        ran = run(*command, *([] if name is None else ["--prompt-name", name]))
        expected = getattr(library, how)("Where is my parcel?", show_progress_bar=False)
        np.testing.assert_allclose(json.loads(ran.out)["embedding"], expected, atol=1e-5)
    ran = run(*command, "--prompt-name", "passage")
    assert (ran.code, ran.out) == (2, "")
    assert "the bundle has no 'passage'; it has query, document" in ran.err


# --- the references themselves


@pytest.mark.parametrize(
    "form",
    [
        Embedder(config=PROMPTS),
        Embedder(pooling=("cls",), after=(), tokenizer_config={"truncation_side": "left"}),
        Embedder(
            tokenizer="wordpiece-cased", sentence_config={"max_seq_length": 40, "do_lower_case": True}, pooling=("max",)
        ),
        Embedder(pooling=("weightedmean",), config=with_prompts({}, similarity_fn_name="euclidean", truncate_dim=8)),
    ],
)  # fmt: skip
def test_without_the_library_the_same_is_computed(form: Embedder, tmp_path: Path) -> None:
    folder = form.save(tmp_path / "model")
    opened = checkpoint.open_foreign(folder, "sentence-embedding", [])
    by_library: Any = sentence_transformer.open_reference(opened)
    assert by_library.library is not None
    texts = ["Where is my parcel?", "THE Refund IS late", "word " * 100, "last " * 60 + "first " * 60]
    cases = by_library.cases(texts)
    expected = by_library.answers(cases)
    of_files = sentence_transformer.SentenceTransformerReference(
        opened,
        by_library.tokenizer,
        sentence_transformer._settings_of_files(opened, by_library.tokenizer),
        None,
    )
    assert difference(of_files.answers(cases), expected) < 1e-4


def test_export_needs_no_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "sentence_transformers":
            raise ImportError(name)
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    folder = Embedder(config=PROMPTS).save(tmp_path / "model")
    export(folder, options(tmp_path))
    assert compared(tmp_path)["worst"] < 1e-3
    assert compared(tmp_path)["computed_by"] == "the folder's configuration files"
    opened = checkpoint.open_foreign(
        cross_encoders.FORMS["4-sigmoid"].save(tmp_path / "ranker"), "text-ranking", []
    )
    reference: Any = cross_encoder.open_reference(opened)
    assert reference.library is None


def test_differences_are_shares_of_the_spread_within_a_group() -> None:
    expected = [Answer(np.array([0.0, 2.0])), Answer(np.array([0.0, 200.0]), group="other")]
    found = [Answer(np.array([0.0, 2.5])), Answer(np.array([0.0, 200.0]), group="other")]
    assert difference(found, expected) == pytest.approx(0.5)
    assert difference([Answer(np.array([np.nan, 2.0])), expected[1]], expected) == np.inf
    assert difference([Answer(np.zeros(3)), expected[1]], expected) == np.inf
    labels = [Answer(np.zeros(2), ("a", "b")) for _ in range(2)]
    assert difference([Answer(np.zeros(2), ("b", "a")) for _ in range(2)], labels) == np.inf


# --- training goes on with what a model brings


def test_training_keeps_the_settings_of_an_embedder(tmp_path: Path) -> None:
    """Of the library's own folder: its prompts, pooling, similarity and lower-casing."""
    config = with_prompts(
        {"query": "Q: ", "document": "D: "}, default_prompt_name="query", similarity_fn_name="dot"
    )
    form = Embedder(pooling=("cls",), after=(), config=config, tokenizer="wordpiece-cased",
                    sentence_config={"max_seq_length": 48, "do_lower_case": True})  # fmt: skip
    data = corpora.write(corpora.triplets, "train", tmp_path, 8)
    trained = fit.train(
        "sentence-embedding",
        TrainOptions(
            model=str(form.save(tmp_path / "model")), train=data, output=tmp_path / "checkpoint", epochs=1,
            batch_size=4, max_length=32, precision="fp32", threads=1,
        ),
    )  # fmt: skip
    library = references.embedder(trained.checkpoint)
    assert (library.prompts, library.default_prompt_name) == ({"query": "Q: ", "document": "D: "}, "query")
    assert library.similarity_fn_name == "dot"
    assert library[1].pooling_mode == "cls"
    opened = checkpoint.open_checkpoint(trained.checkpoint)
    task = sentence_embedding
    examples = [task.Example(("WHERE is it?",), "text", None, None, None)]  # type: ignore[arg-type]
    (found,) = checkpoint.predict(opened, examples)
    np.testing.assert_allclose(found.embedding, library.encode("WHERE is it?"), atol=1e-5)  # type: ignore[attr-defined]
