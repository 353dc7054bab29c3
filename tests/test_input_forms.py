"""Nothing is chosen silently: one text where two are read, and splits of a folder."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headway.core.errors import BundleError, InputError
from headway.core.manifest import Bundle
from headway.runtime import load
from headway.runtime.front import Front
from tests.conftest import Run, write_jsonl
from tests.random_vectors import Random
from tests.small import small_bundle


@pytest.fixture(params=[True, False, None], ids=["pairs", "texts", "unknown"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return changed(small_bundle(tmp_path / "bundle"), settings={"pair": request.param})


def changed(folder: Path, **fields: Any) -> Path:
    msgspec.structs.replace(Bundle.read(folder), **fields).write(folder)
    return folder


ONE, TWO = "late parcel", ("late parcel", "refund")
FIELDS = {str: {"text": "late parcel"}, tuple: {"text1": "late parcel", "text2": "refund"}}


def test_one_text_where_two_are_read(folder: Path, run: Run, tmp_path: Path) -> None:
    pair = Bundle.read(folder).settings["pair"]
    pipe: Any = load(folder, threads=1)
    for given, is_pair in ((ONE, False), (TWO, True)):
        fields = FIELDS[type(given)]
        data = write_jsonl(tmp_path / "data.jsonl", [fields | {"label": "refund"}])
        out = tmp_path / "out.jsonl"
        predicted = run("predict", folder, "--input", data, "--output", out, "--threads", 1, "--restart")
        measured = run("evaluate", folder, "--data", data, "--threads", 1)
        if pair in (None, is_pair):
            assert pipe([given])[0] == pipe(fields) == next(pipe.stream([given]))
            assert (predicted.code, measured.code) == (0, 0), predicted.err + measured.err
            continue
        wants = "two texts, text1 and text2; this is one" if pair else "one text, 'text'; these are two"
        for call in (lambda: pipe([given]), lambda: list(pipe.stream([given]))):  # noqa: B023 (called here)
            with pytest.raises(InputError, match=f"^input 0: the model reads {wants}$"):
                call()
        with pytest.raises(
            InputError, match=f"^input 0: field '{next(iter(fields))}': the model reads {wants}$"
        ):
            pipe(fields)
        with pytest.raises(InputError, match=f"^input 1: field .*: the model reads {wants}$"):
            pipe([ONE if not pair else TWO, fields])
        assert predicted.code == measured.code == 3
        assert f"data.jsonl:1: field '{next(iter(fields))}': the model reads {wants}" in predicted.err
        assert f"data.jsonl:1: field '{next(iter(fields))}': the other records have" in measured.err


def test_the_front_refuses_it_as_well(tmp_path: Path) -> None:
    import asyncio

    folder = changed(small_bundle(tmp_path / "bundle"), settings={"pair": True})

    async def main() -> None:
        with pytest.raises(InputError, match="the model reads two texts"):
            await Front(load(folder, threads=1))(ONE)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_bundle_with_two_labels_of_one_name(tmp_path: Path) -> None:
    folder = changed(small_bundle(tmp_path / "bundle"), labels=["other", "bug", "other"])
    with pytest.raises(BundleError, match="two of its labels are called 'other'"):
        load(folder, threads=1)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    import datasets

    parts = {
        name: datasets.Dataset.from_dict({"id": [f"{name}{i}" for i in range(2)], "text": ["late", "parcel"]})
        for name in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "splits"))
    return tmp_path / "splits"


def test_which_split_is_predicted(splits: Path, run: Run, tmp_path: Path) -> None:
    folder, out = small_bundle(tmp_path / "bundle"), tmp_path / "out.jsonl"
    command = ("predict", folder, "--input", splits, "--output", out, "--threads", 1)
    ran = run(*command)
    assert (ran.code, out.exists()) == (2, False)
    assert f"headway: --split: say which split of {splits} is meant: train, test" in ran.err
    ran = run(*command, "--split", "dev")
    assert (ran.code, "has no split validation or dev or valid; it has train, test" in ran.err) == (3, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "splits"]
    assert run(*command, "--split", "test").code == 0
    assert [msgspec.json.decode(line)["id"] for line in out.read_bytes().splitlines()] == ["test0", "test1"]
    shutil.rmtree(splits / "train")
    (splits / "dataset_dict.json").write_text('{"splits": ["test"]}')
    out.unlink()
    assert run(*command).code == 0
    ran = run("predict", folder, "--input", out, "--output", "-", "--split", "test")
    assert (ran.code, "--split: is for folders of the datasets library" in ran.err) == (2, True)


def test_which_split_is_indexed(splits: Path, tmp_path: Path) -> None:
    from headway.core.errors import UsageError
    from headway.runtime.retrieval.index import Index

    with pytest.raises(UsageError, match="--split: say which split"):
        Index.build(splits, Random(), tmp_path / "index")
    index = Index.build(splits, Random(), tmp_path / "index", split="test")
    assert [p.id for p in index.passages()] == ["test0", "test1"]
    with pytest.raises(UsageError, match="--split: say which split"):
        index.add(splits, Random())
    assert index.add(splits, Random(), split="train") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index", "splits"]
