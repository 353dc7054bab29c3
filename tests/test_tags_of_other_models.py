"""Tags of models that headway did not train and of data in other schemes: training, export, evaluation, prediction."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from seqeval.metrics import sequence_labeling as seqeval

from headway.core import tasks
from headway.core.errors import CheckpointError
from headway.core.manifest import Bundle, Checkpoint
from headway.core.tasks import token_classification
from headway.train import checkpoint as opener
from headway.train import fit, foreign
from headway.train.options import TrainOptions
from headway.train.tasks import token_classification as trainer
from tests.conftest import Run, write_jsonl
from tests.task_examples import read
from tests.test_cli import lines, refused
from tests.test_foreign import with_head
from tests.test_tag_schemes import written


def rows(scheme: str) -> list[dict[str, Any]]:
    """Words of the tiny model's vocabulary: `parcel` is an x, `refund` a y, `late` continues them."""
    chance, found = random.Random(0), []
    for _ in range(48):
        tokens, pieces = [], []
        for word in chance.choices(["parcel", "refund", "late", "where", "is", "my", "thanks"], k=8):
            name = {"parcel": "x", "refund": "y"}.get(word, "O")
            if word == "late" and pieces and pieces[-1][0] != "O":
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
            else:
                pieces.append((name, 1))
            tokens.append(f"{word}-where" if chance.random() < 0.2 else word)
        found.append({"tokens": tokens, "tags": written(pieces, scheme)})
    return found


@pytest.fixture(scope="module")
def iob1(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of data in IOB1, with a random head, so that all tags occur in its answers."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("iob1")
    file = write_jsonl(folder / "train.jsonl", rows("iob1"))
    options = TrainOptions(
        model=str(pretrained), train=file, eval=file, output=folder / "checkpoint", epochs=1, batch_size=24,
        max_length=48, precision="fp32", threads=1,
    )  # fmt: skip
    made = fit.train("token-classification", options).checkpoint
    model = transformers.AutoModelForTokenClassification.from_pretrained(made)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    model.save_pretrained(made)
    return made


def test_data_in_iob1_is_evaluated_as_seqeval_does(iob1: Path, run: Run, tmp_path: Path) -> None:
    assert Checkpoint.read(iob1).settings["scheme"] == "iob1"
    data, out, figures = (
        iob1.parent / "train.jsonl",
        tmp_path / "predictions.jsonl",
        tmp_path / "figures.json",
    )
    ran = run("evaluate", iob1, "--data", data, "--predictions", out, "--json", figures, "--threads", 1)
    assert ran.code == 0, ran.err
    gold, said = [r["tags"] for r in lines(data)], [r["tags"] for r in lines(out)]
    metrics = json.loads(figures.read_text())["metrics"]
    assert metrics["entity_f1"] == pytest.approx(seqeval.f1_score(gold, said))
    assert metrics["entity_f1"] > 0
    bad = write_jsonl(tmp_path / "bad.jsonl", [*rows("iob1")[:2], *rows("bio")[:2]])
    refused(run("evaluate", iob1, "--data", bad), 3, f"{bad}:3: field 'tags': entry ", "in IOB1 tags")


def test_figures_as_text_are_told_where_they_differ(iob1: Path, run: Run, tmp_path: Path) -> None:
    data, out = iob1.parent / "train.jsonl", tmp_path / "figures.json"
    ran = run("evaluate", iob1, "--data", data, "--json", out, "--threads", 1)
    metrics = json.loads(out.read_text())["metrics"]
    opened, gold = opener.open_checkpoint(iob1), set()
    module: Any = token_classification
    texts: list[Any] = []
    for i, row in enumerate(lines(data)):
        starts = [sum(len(t) + 1 for t in row["tokens"][:w]) for w in range(len(row["tokens"]))]
        for name, first, last in seqeval.get_entities(row["tags"]):
            gold.add((i, name, starts[first], starts[last] + len(row["tokens"][last])))
        texts.append(tasks.read_input(module, " ".join(row["tokens"]), i))
    results: list[Any] = opener.predict(opened, texts)
    said = {(i, e.label, e.start, e.end) for i, r in enumerate(results) for e in r.entities}
    expected = 2 * len(gold & said) / (len(gold) + len(said))
    assert expected != pytest.approx(metrics["entity_f1"])
    assert metrics["entity_f1_as_text"] == pytest.approx(expected)
    assert "entity_f1_as_text" in ran.err
    plain = write_jsonl(tmp_path / "o.jsonl", [{"tokens": ["a"], "tags": ["O"]}])
    assert run("evaluate", iob1, "--data", plain, "--json", out, "--threads", 1).code == 0
    same = json.loads(out.read_text())["metrics"]
    assert ("entity_f1_as_text" in same) == (same["entity_f1"] != 0)


def test_texts_without_tokens_have_the_same_characters() -> None:
    """Joined without a space where the script has none; Korean has spaces."""
    task = token_classification
    given = {
        "A Ü .": ("A Ü .", "B-x O O"),
        "東 京 は": ("東京は", "B-x I-x O"),
        "서울 에서": ("서울 에서", "B-x O"),
        "ใน iOS กรุง": ("ใน iOS กรุง", "O O B-x"),
    }
    examples = [read("token-classification", tokens=t.split(), tags=g.split()) for t, (_, g) in given.items()]
    judged = [task.Result([], list(e.tags), [1.0] * len(e.tags)) for e in examples]
    texts = task.without_tokens(examples, judged)
    assert [t.text for t in texts] == [text for text, _ in given.values()]
    assert not any(t.has_tokens for t in texts)
    right = {0: (0, 1), 1: (0, 2), 2: (0, 2), 3: (7, 11)}
    results = [task.Result([task.Entity(a, b, texts[i].text[a:b], "x", 1.0)]) for i, (a, b) in right.items()]
    assert task.metrics_as_text(examples, judged, results) == {"entity_f1_as_text": 1.0}
    results[1] = task.Result([task.Entity(0, 3, "東京は", "x", 1.0)])
    assert task.metrics_as_text(examples, judged, results) == {"entity_f1_as_text": 0.75}
    plain = read("token-classification", tokens=["a", "b"], tags=["NOUN", "VERB"])
    assert task.without_tokens([plain], [task.Result([], ["NOUN", "VERB"], [1.0, 1.0])]) == []


@pytest.mark.parametrize(
    ("labels", "scheme", "fallback"),
    [
        ("O B-PER I-PER", "lenient", "O"),
        ("O I-PER E-PER", "lenient", "O"),
        ("O B-PER I-PER E-PER S-PER", "bioes", "O"),
        ("O B_PER I_PER L_PER U_PER", "bioes", "O"),
        ("O PER LOC", "io", "O"),
        ("o b-per i-per", "lenient", "o"),
        ("NOUN VERB", "plain", "NOUN"),
        ("LABEL_0 LABEL_1", "plain", "LABEL_0"),
    ],
)
def test_schemes_of_other_models(
    labels: str, scheme: str, fallback: str, pretrained: Path, tmp_path: Path
) -> None:
    names = dict(enumerate(labels.split()))
    folder = with_head(
        "token-classification", pretrained, tmp_path / "m", id2label=names, num_labels=len(names)
    )
    tokenizer = opener.open_tokenizer(str(folder))
    made = foreign.describe(folder, "token-classification", tokenizer, [])
    assert (made.labels, made.settings["scheme"], made.settings["fallback"]) == (
        labels.split(),
        scheme,
        fallback,
    )


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["O", "", "B-x"], "label 1 is empty"),
        (["O", "B-x", "B-x"], "two of its outputs are called 'B-x'"),
        (["O", "B-x", "Q-x"], "label 'Q-x' has a letter for its place in an entity that is none of B"),
    ],
)
def test_label_maps_that_are_refused(
    labels: list[str], problem: str, pretrained: Path, tmp_path: Path
) -> None:
    folder = with_head("token-classification", pretrained, tmp_path / "model", num_labels=len(labels))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    config["label2id"] = {label: i for i, label in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=problem):
        foreign.describe(folder, "token-classification", opener.open_tokenizer(str(folder)), [])


def test_a_model_in_iob1_finds_what_the_pipeline_finds(pretrained: Path, run: Run, tmp_path: Path) -> None:
    """A head that always says I-: with BIO's grammar no entity would be left."""
    names = dict(enumerate(["O", "B-PER", "I-PER", "B-first name", "I-first name"]))
    folder = with_head("token-classification", pretrained, tmp_path / "model", id2label=names, num_labels=5)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    model.classifier.bias.data[:] = torch.tensor([0.0, -9, 0, -9, 0])
    model.save_pretrained(folder)
    data = write_jsonl(
        tmp_path / "data.jsonl",
        [{"tokens": ["where", "is", "my", "parcel"], "tags": ["O", "I-PER", "B-PER", "O"]},
         {"tokens": ["where", "is"], "tags": ["B-PER", "I-first name"]}],
    )  # fmt: skip
    out = tmp_path / "bundle"
    ran = run(
        "export", folder, "--output", out, "--precision", "fp32", "--eval", data, "--no-speed", "--threads", 1
    )
    assert ran.code == 0, ran.err
    assert Bundle.read(out).settings["scheme"] == "lenient"
    text = "where is my parcel the refund thanks great"
    theirs: Any = transformers.TokenClassificationPipeline(
        model=model.eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        aggregation_strategy="first",
    )
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text}])
    assert run("predict", out, "--input", source, "--output", tmp_path / "o.jsonl", "--threads", 1).code == 0
    wanted = [(e["entity_group"], e["start"], e["end"]) for e in theirs(text)]
    (line,) = lines(tmp_path / "o.jsonl")
    assert [(e["label"], e["start"], e["end"]) for e in line["entities"]] == wanted != []


@pytest.mark.parametrize("scheme", ["io", "ioe1", "ioe2", "bioes"])
def test_training_keeps_the_labels_and_knows_the_scheme(
    scheme: str, pretrained: Path, tmp_path: Path
) -> None:
    data = rows(scheme)
    if scheme == "io":
        data = [row | {"tags": [tag[2:] or "O" for tag in row["tags"]]} for row in rows("bio")]
    file = write_jsonl(tmp_path / "train.jsonl", data)
    examples: list[Any] = tasks.read_labelled(token_classification, file)
    options = TrainOptions(model="m", train=file, output=tmp_path / "out", max_length=48)
    spec = trainer.describe(examples, [], opener.open_tokenizer(str(pretrained)), options)
    assert spec.settings.scheme == scheme
    assert spec.labels == sorted({tag for row in data for tag in row["tags"]})


def test_data_that_cannot_be_trained_on(pretrained: Path, run: Run, tmp_path: Path) -> None:
    mixed = write_jsonl(tmp_path / "mixed.jsonl", [*rows("bio")[:6], *rows("iob1")[:6]])
    odd = write_jsonl(tmp_path / "odd.jsonl", [{"tokens": ["a", "b"], "tags": ["O", "Q-x"]}])
    for file, parts in (
        (mixed, (f"{mixed}:7: field 'tags': entry 3 is I-y after O",)),
        (odd, (str(odd), "'Q-x'")),
    ):
        out = tmp_path / "out"
        ran = run("train", "token-classification", "--model", pretrained, "--train", file, "--output", out)
        refused(ran, 3, *parts)
        shutil.rmtree(out, ignore_errors=True)


def test_further_tokens_are_trained_where_they_are_asked_later(pretrained: Path, tmp_path: Path) -> None:
    """Of a word in a script without spaces; not of others, and not where a first token's tag would change."""
    opened: Any = transformers.AutoTokenizer.from_pretrained(pretrained)
    from tests.test_entity_boundaries import word_piece

    opened._tokenizer = word_piece("서울|##에서|ab|##cd|왔다")
    examples = [read("token-classification", tokens=["서울에서", "abcd", "왔다"], tags=["B-x", "B-x", "O"])]
    options: Any = None
    for labels, scheme, wanted in (
        (["B-x", "I-x", "O"], "bio", [-100, 0, 1, 0, -100, 2, -100]),
        (["B-x", "O"], "bio", [-100, 0, -100, 0, -100, 1, -100]),
        (["B-x", "E-x", "O", "S-x"], "bioes", [-100, 0, -100, 0, -100, 2, -100]),
        (["B-x", "O"], "plain", [-100, 0, 0, 0, -100, 1, -100]),
    ):
        spec = tasks.Spec(labels, 32, token_classification.Settings(scheme=scheme))
        prepared = trainer.prepare(examples, opened, None, spec, options)
        assert prepared.rows[0]["token_labels"] == wanted
