"""A pipeline that is pickled or copied opens its bundle again, in this process and in others (as spawned ones, Spark's, Dask's)."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.core.errors import BundleError, UsageError
from headway.runtime import load
from headway.runtime.pipeline import EncoderPipeline
from tests.small import small_bundle, texts

TEXTS = texts(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


def test_a_copy_is_opened_alike(folder: Path) -> None:
    pipe: Any = load(folder, threads=1, batch_tokens=100, cache=7)
    for again in (pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe), copy.copy(pipe)):
        assert again._backend is not pipe._backend
        assert again(TEXTS) == pipe(TEXTS)
        assert (again.precision, again.engine, again.batch_tokens) == (pipe.precision, pipe.engine, 100)
        assert again.cache._entries == 7
        assert pickle.dumps(again) == pickle.dumps(pipe)  # a copy can be copied


def test_the_place_does_not_depend_on_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    pickled = pickle.dumps(load("bundle", threads=1))
    (elsewhere := folder.parent / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(pickle.loads(pickled)(TEXTS)) == len(TEXTS)


CHILD = """
import pickle, sys
pipe, texts = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(pipe(texts)))
"""


def test_another_process(folder: Path) -> None:
    pipe: Any = load(folder, threads=1)
    ended = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=pickle.dumps((pipe, TEXTS)),
        env=os.environ | {"HEADWAY_CACHE": "off"},
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert pickle.loads(ended.stdout) == pipe(TEXTS)


def test_another_bundle_in_its_place(folder: Path) -> None:
    pickled = pickle.dumps(load(folder, threads=1))
    manifest = folder / "headway.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"bug"', '"feature"'), "utf-8")
    with pytest.raises(BundleError):  # its seal is broken
        pickle.loads(pickled)
    shutil.rmtree(folder)
    with pytest.raises(BundleError):
        pickle.loads(pickled)


def test_a_pipeline_that_load_has_not_opened(folder: Path) -> None:
    opened: Any = load(folder, threads=1)
    made = EncoderPipeline(
        opened.manifest, "fp32", opened.task, opened.spec, opened._tokenizer, opened._backend
    )  # fmt: skip
    with pytest.raises(UsageError, match="a pipeline: cannot be pickled or copied"):
        pickle.dumps(made)
