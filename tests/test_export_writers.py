"""Bundles of models that write: texts equal to `generate()`, figures equal to PyTorch's, settings of a call."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from headway.bench import roofline
from headway.bench.peers.base import Wanted, load_peer
from headway.core import tasks
from headway.core.errors import BundleError, InputError, UsageError
from headway.core.manifest import Bundle
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import Pipeline, load
from headway.runtime.generation.engine import Engine
from headway.train import checkpoint as opener
from headway.train import fit
from headway.train.options import TrainOptions
from tests import corpora
from tests.conftest import Run
from tests.test_architectures import model_of

KINDS: dict[str, tuple[str, Any, Any]] = {
    "t5": ("text2text-generation", transformers.AutoModelForSeq2SeqLM, corpora.rewrites),
    "gpt2": ("text-generation", transformers.AutoModelForCausalLM, corpora.texts),
}
TEXTS = ["Where is my parcel?", "I want a refund", "It does not work at all since the last update, why?"]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and bundle; the checkpoint learned a little, so that it writes more than one token."""
    task, auto, make = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = model_of(request.param, auto, folder / "model")
    data = corpora.write(make, "train", folder, 40)
    options = TrainOptions(
        model=str(model), train=data, output=folder / "checkpoint", epochs=20, batch_size=8,
        learning_rate=1e-2, max_length=64, max_target_length=16, precision="fp32", threads=1,
    )  # fmt: skip
    fit.train(task, options)
    small = corpora.write(make, "test", folder, 10)
    export(options.output, ExportOptions(output=folder / "bundle", eval=small, threads=1))
    return folder / "checkpoint", folder / "bundle"


@pytest.fixture(scope="module")
def pipe(made: tuple[Path, Path]) -> Pipeline:
    return load(made[1], precision="fp32", threads=1)


def written(checkpoint: Path, text: str, **settings: Any) -> list[int]:
    """What `generate()` makes of a text."""
    opened = opener.open_checkpoint(checkpoint)
    crossed = opened.model.config.is_encoder_decoder
    ids = opened.tokenizer(text, return_tensors="pt", add_special_tokens=crossed)["input_ids"]
    with torch.no_grad():
        said = opened.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **settings)
    return [int(t) for t in said[0, 1 if crossed else ids.shape[1] :]]


@pytest.mark.parametrize("beams", [1, 4])
def test_texts_are_those_of_generate(beams: int, made: tuple[Path, Path], pipe: Pipeline) -> None:
    results: Any = pipe(TEXTS, num_beams=beams, max_new_tokens=12)
    expected = [written(made[0], text, num_beams=beams, max_new_tokens=12) for text in TEXTS]
    assert [r.hypotheses[0].tokens for r in results] == expected
    assert len({r.text for r in results}) > 1
    assert results == [pipe(text, num_beams=beams, max_new_tokens=12) for text in TEXTS]
    assert list(pipe.stream(TEXTS, num_beams=beams, max_new_tokens=12)) == results


def test_benchmarks_ask_both_alike(made: tuple[Path, Path]) -> None:
    declared = Bundle.read(made[1])
    wanted = Wanted(
        task=declared.task,
        threads=1,
        max_length=64,
        pad_id=declared.pad_id,
        pooling="",
        settings=declared.settings,
    )
    own = load_peer("headway").open_subject(made[1], "fp32", wanted)
    theirs = load_peer("torch").open_subject(made[0], "fp32", wanted)
    expected = own.many(TEXTS)
    assert theirs.many(TEXTS, batch_size=2, by_length=True) == expected
    assert theirs.one(TEXTS[0]) == expected[0]


def test_operations_are_those_of_generate(made: tuple[Path, Path]) -> None:
    opened = opener.open_checkpoint(made[0])
    opened.model.set_attn_implementation("eager")  # whose products are counted
    crossed = opened.model.config.is_encoder_decoder
    ids = opened.tokenizer(TEXTS[-1], return_tensors="pt", add_special_tokens=crossed)["input_ids"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        opened.model.generate(ids, do_sample=False, num_beams=1, min_new_tokens=20, max_new_tokens=20)
    work = roofline.work(made[1], [ids.shape[1]], [20])
    assert work is not None
    assert work.operations == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert work.written == 20


def test_every_variant_is_proven(made: tuple[Path, Path]) -> None:
    bundle = Bundle.read(made[1])
    assert list(bundle.variants) == ["fp32", "int8"]
    fp32, int8 = (v.parity for v in bundle.variants.values())
    assert fp32["identical"] == 1.0
    assert (fp32["shortest"], fp32["rows"] > 40) == (1, True)
    assert 0 < int8["mean"] < 0.1
    assert int8["neighbours"] < 1e-4
    import onnx

    graph = onnx.load(made[1] / "int8" / "decoder.onnx").graph
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) > 4
    assert not [node for node in graph.node if node.op_type == "Gemm"]


def test_figures_are_pytorchs(made: tuple[Path, Path], pipe: Pipeline) -> None:
    checkpoint, bundle = made
    opened = opener.open_checkpoint(checkpoint)
    task = tasks.load(opened.manifest.task)
    make = corpora.rewrites if pipe.manifest.task == "text2text-generation" else corpora.texts
    examples = tasks.read_labelled(task, corpora.write(make, "test", checkpoint.parent, 10))
    expected = task.metrics(examples, opener.predict(opened, examples))
    assert task.metrics(examples, list(pipe.judge(examples))) == pytest.approx(expected, rel=1e-4)
    assert Bundle.read(bundle).variants["fp32"].quality == pytest.approx(expected, rel=1e-4)


def test_settings_of_a_call(pipe: Pipeline) -> None:
    several: Any = pipe(TEXTS[0], num_beams=3, num_return_sequences=3, max_new_tokens=5)
    assert len(several.hypotheses) == 3
    assert (several.text, several.score) == (several.hypotheses[0].text, several.hypotheses[0].score)
    assert all(len(h.tokens) <= 5 for h in several.hypotheses)
    with pytest.raises(UsageError, match="^penalty_alpha: no such setting"):
        pipe(TEXTS[0], penalty_alpha=0.5)
    with pytest.raises(InputError, match="^input 1: "):
        pipe(["fine", " "])
    assert pipe([]) == []


@pytest.mark.parametrize("beams", [1, 3])
def test_pieces_are_those_of_the_whole(pipe: Any, beams: int) -> None:
    counts = []
    for text in TEXTS:
        pieces = list(pipe.write(text, num_beams=beams, max_new_tokens=12))
        assert "".join(pieces) == pipe(text, num_beams=beams, max_new_tokens=12).text
        counts.append(len(pieces))
    assert beams > 1 or max(counts) > 2


def test_texts_enter_one_by_one(pipe: Any) -> None:
    asked: list[dict[str, Any]] = [{"num_beams": 3}, {}, {"do_sample": True, "seed": 3}]
    batch, keys, pieces = pipe.batch(), [], ["", "", ""]
    for step in range(30):
        if step in (0, 2, 3):
            keys.append(batch.add(TEXTS[len(keys)], max_new_tokens=12, **asked[len(keys)]))
        batch.step()
        for place, key in enumerate(keys):
            pieces[place] += batch.piece(key)
    assert len(batch) == 0
    late = batch.add(TEXTS[0])
    with pytest.raises(UsageError, match="there is no finished text"):
        batch.result(late)
    for key, text, own, piece in zip(keys, TEXTS, asked, pieces, strict=True):
        alone = pipe(text, max_new_tokens=12, **own)
        assert batch.result(key).hypotheses[0].tokens == alone.hypotheses[0].tokens
        assert piece == alone.text


def test_long_sources(pipe: Any) -> None:
    long = " ".join(["Where is my parcel?", "I want a refund.", "It does not work at all!"] * 30)
    with pytest.raises(InputError, match="^input 1: is longer than the model, which reads 64 tokens"):
        pipe([TEXTS[0], long], long_sources="refuse")
    assert pipe(TEXTS[0], long_sources="refuse") == pipe(TEXTS[0])
    if pipe.manifest.task == "text-generation":
        with pytest.raises(UsageError, match="long_sources"):
            pipe(long, long_sources="join")
        return
    assert pipe(long, max_new_tokens=8).truncated
    joined = pipe(long, max_new_tokens=8, long_sources="join")
    assert not joined.truncated
    parts = [pipe(part, max_new_tokens=8).text for part in pipe._parts(long)]
    assert len(parts) > 2
    assert joined.text == " ".join(part.strip() for part in parts if part.strip())
    assert pipe(TEXTS[0], long_sources="combine") == pipe(TEXTS[0])
    with pytest.raises(InputError, match="^input 1: "):
        pipe([long, "a\0b"], long_sources="join")
    assert len(pipe(long, max_new_tokens=2, long_sources="combine").hypotheses[0].tokens) <= 2


def test_suggestions_are_the_likeliest_words(pipe: Any) -> None:
    if pipe.manifest.task != "text-generation":
        with pytest.raises(UsageError, match="complete: is for decoders alone"):
            pipe.complete("Where")
        return
    for words in (1, 2):
        found = pipe.complete("Where is my", 3, words)
        assert 0 < len(found) <= 3
        assert len({h.text for h in found}) == len(found)
        assert all(1 <= len(h.text.split()) <= words for h in found)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            assert pipe._text(h.tokens).startswith(h.text)
            assert h.score == pytest.approx(sum(h.log_probabilities))
    assert all(len(h.tokens) == 1 for h in pipe.complete("Where is my", 3, max_time=0.0))
    assert len(pipe("Where is my", num_beams=3, max_time=0.0, max_new_tokens=9).hypotheses[0].tokens) == 1
    with pytest.raises(UsageError, match="k: must be at least 1, not 0"):
        pipe.complete("Where", 0)


def test_what_was_read_is_kept(made: tuple[Path, Path], pipe: Any) -> None:
    keeping: Any = load(made[1], precision="fp32", threads=1, cache=2)
    for text in (TEXTS[0], TEXTS[0], TEXTS[0] + " " + TEXTS[1], TEXTS[2]):
        assert keeping(text, num_beams=3).hypotheses[0].tokens == pipe(text, num_beams=3).hypotheses[0].tokens


def test_scores_of_given_targets(made: tuple[Path, Path], pipe: Any) -> None:
    opened = opener.open_checkpoint(made[0])
    pairs = [(TEXTS[0], "Thank you"), (TEXTS[2], "Where is it? I want it now."), (TEXTS[1], "!")]
    found = pipe.score(pairs)
    assert pipe.score([]) == []
    for (source, _), scored in zip(pairs, found, strict=True):
        crossed = opened.model.config.is_encoder_decoder
        ids = opened.tokenizer(source, return_tensors="pt", add_special_tokens=crossed)["input_ids"]
        target = torch.tensor([scored.tokens])
        with torch.no_grad():
            if crossed:
                logits = opened.model(ids, labels=target).logits
            else:
                logits = opened.model(torch.cat([ids, target], 1)).logits[:, ids.shape[1] - 1 : -1]
        wanted = logits.log_softmax(-1).gather(-1, target[..., None]).flatten()
        np.testing.assert_allclose(scored.log_probabilities, wanted.tolist(), rtol=1e-4, atol=1e-4)
        assert scored.score == pytest.approx(sum(scored.log_probabilities))


def test_samples_are_the_same_alone_and_in_a_batch(pipe: Any) -> None:
    """Some end before others, so that sources have unequally many rows."""
    drawn = {"do_sample": True, "num_return_sequences": 4, "temperature": 2.0, "max_new_tokens": 12}
    together, alone = pipe(TEXTS, **drawn), [pipe(text, **drawn) for text in TEXTS]
    for ours, own in zip(together, alone, strict=True):
        assert [h.tokens for h in ours.hypotheses] == [h.tokens for h in own.hypotheses]
    assert len({len(h.tokens) for r in together for h in r.hypotheses}) > 1
    assert [r.text for r in pipe(TEXTS, **drawn, seed=1)] != [r.text for r in together]


def test_a_long_source_is_cut_and_told(pipe: Pipeline) -> None:
    long: Any = pipe("where is my parcel " * 60)
    assert (long.truncated, pipe("where is my parcel").truncated) == (True, False)


def test_from_the_command_line(made: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 7, "source": "Where is my parcel?"}\n')
    ran = run("predict", str(made[1]), "--input", str(tmp_path / "in.jsonl"), "--output", "-")
    assert ran.code == 0
    assert ran.out.startswith('{"id":7,"text":')
    assert run("inspect", str(made[1])).code == 0
    assert run("inspect", str(made[1]), "--layers").code == 2


def test_other_precisions_of_both_graphs(made: tuple[Path, Path], tmp_path: Path) -> None:
    kinds = {"fp16": "FLOAT16", "int8-static": "INT8", "int8-weights": "INT8", "int4-weights": "INT4"}
    own = corpora.write(
        corpora.rewrites if "t5" in made[0].parent.name else corpora.texts, "test", tmp_path, 10
    )
    precisions = ",".join(kinds)
    export(made[0], ExportOptions(output=tmp_path / "out", precision=precisions, calibration=own, threads=1))
    import onnx

    for precision, variant in Bundle.read(tmp_path / "out").variants.items():
        assert variant.parity["mean"] > 0
        for name in variant.graphs.values():
            weights = onnx.load(tmp_path / "out" / name).graph.initializer
            types = {onnx.TensorProto.DataType.Name(weight.data_type) for weight in weights}
            assert kinds[precision] in types, (precision, name, variant.kept)


def test_static_ranges_need_texts(made: tuple[Path, Path], tmp_path: Path) -> None:
    options = ExportOptions(output=tmp_path / "bundle", precision="int8-static")
    with pytest.raises(UsageError, match="--calibration"):
        export(made[0], options)
    assert list(tmp_path.iterdir()) == []


def test_graphs_of_before_are_told(made: tuple[Path, Path]) -> None:
    folder = made[1] / "fp32"
    roles = {role: folder / f"{role}.onnx" for role in Bundle.read(made[1]).graphs}
    with pytest.raises(BundleError, match="decoder-appending.*export it again"):
        Engine(roles | {"decoder": folder / "decoder-appending.onnx"}, 1)


def test_both_graphs_are_verified(made: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(made[1], tmp_path / "copy")
    with (copy / "fp32" / "decoder.onnx").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"x")
    with pytest.raises(BundleError, match=r"fp32/decoder.onnx was changed"):
        load(copy, precision="fp32")
    assert np.isfinite(load(copy, precision="int8")(TEXTS[0]).score)  # type: ignore[attr-defined]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_a_pickled_writer_opens_its_bundle_again(copied: Any, pipe: Any) -> None:
    again = copied(pipe)
    assert again is not pipe
    assert (again.precision, again(TEXTS, max_new_tokens=6)) == ("fp32", pipe(TEXTS, max_new_tokens=6))


def test_dropping_is_idempotent_and_touches_nobody_else(pipe: Any) -> None:
    batch = pipe.batch()
    kept = batch.add(TEXTS[0], max_new_tokens=12, min_new_tokens=12)
    before, during, finished = (batch.add(TEXTS[1], max_new_tokens=n) for n in (9, 9, 2))
    for _ in range(2):  # before its first step
        batch.drop(before)
    batch.step()
    for _ in range(2):  # under way, before the step by which it leaves
        batch.drop(during)
    batch.step()
    for key in (before, during):  # when it has left
        batch.drop(key)
    assert batch.result(finished).hypotheses[0].tokens
    for _ in range(2):  # after its result
        batch.drop(finished)
    for key in (before, during, finished):
        with pytest.raises(UsageError, match="^key: there is no finished text"):
            batch.result(key)
        with pytest.raises(UsageError, match="^key: there is no text"):
            batch.piece(key)
    for key in (99, -1, "0", None, [], True, float(kept)):  # of no text
        for ask in (batch.drop, batch.piece, batch.result):
            with pytest.raises(UsageError, match="^key: there"):
                ask(key)
    late = batch.add(TEXTS[2], max_new_tokens=3)
    while len(batch):
        batch.step()
    for key, text, settings in (
        (kept, TEXTS[0], {"max_new_tokens": 12, "min_new_tokens": 12}),
        (late, TEXTS[2], {"max_new_tokens": 3}),
    ):
        assert batch.result(key).hypotheses[0].tokens == pipe(text, **settings).hypotheses[0].tokens
    assert len(batch) == 0
