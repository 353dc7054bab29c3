"""An export that cannot be finished, of encoders and of models that write: the exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import transformers

from headway.core import manifest
from headway.core.manifest import Bundle
from headway.export import encoders, writers
from headway.runtime import load
from tests.conftest import Run
from tests.test_architectures import model_of
from tests.test_cli import refused

SIZES = (20_000, 120_000)
"""bytes that a file may grow to: less than the tokenizer has, and less than a graph"""
ROOM = "300k"
"""of a disk that holds the configuration and the tokenizer, and not all graphs"""
QUICK = """
import signal, sys, time
from headway.cli import main
from headway.export import encoders, gate, writers

texts = encoders.shipped()[:4]
encoders.shipped, writers.LENGTHS = lambda: texts, (1, 2)
"""
"""makes the proof, of which nothing is tested here, a short one"""
STOPPED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
make = gate.make

def made(*arguments):
    variant = make(*arguments)
    print("made", flush=True)
    time.sleep(60)
    return variant

gate.make = made
"""
"""waits for its end after the first variant"""
RUN = "sys.exit(main.run(sys.argv[1:]))"


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder-decoder as transformers saves it."""
    folder = tmp_path_factory.mktemp("writer") / "model"
    return model_of("t5", transformers.AutoModelForSeq2SeqLM, folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As QUICK, in this process."""
    texts = encoders.shipped()[:4]
    monkeypatch.setattr(encoders, "shipped", lambda: texts)
    monkeypatch.setattr(writers, "LENGTHS", (1, 2))


@pytest.fixture(params=["static", "writer"])
def arguments(request: pytest.FixtureRequest, checkpoint: Path, dev_file: Path, writer: Path) -> list[Any]:
    """An `export` of one kind, but for its output."""
    if request.param == "writer":
        return ["export", writer, "--task", "text2text-generation", "--threads", 1]
    if request.param == "static":
        calibrated = ["--precision", "fp32,int8-static", "--calibration", dev_file]
        return ["export", checkpoint, "--threads", 1, *calibrated]
    return ["export", checkpoint, "--threads", 1]


def command(arguments: list[Any], output: Path, change: str = "") -> list[str]:
    """The same in a process of its own."""
    return [sys.executable, "-c", QUICK + change + RUN, *map(str, arguments), "--output", str(output)]


@contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    """Let writing fail once a file of this process has so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_cannot_grow(size: int, arguments: list[Any], run: Run, tmp_path: Path) -> None:
    with no_larger_files(size):
        ran = run(*arguments, "--output", tmp_path / "bundle")
    refused(ran, 5, f"a file as large as {tmp_path / 'bundle'} would be is not available", "ulimit -f")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", ["writer"], indirect=True)
def test_a_bundle_that_was_there_stays(arguments: list[Any], run: Run, bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with no_larger_files(SIZES[-1]):
        ran = run(*arguments, "--output", copy, "--overwrite")
    refused(ran, 5, f"a file as large as {copy} would be is not available")
    assert os.listdir(tmp_path) == ["bundle"]
    Bundle.read(copy).verify(copy)


def test_a_full_disk(arguments: list[Any], tmp_path: Path) -> None:
    disk, output = str(tmp_path), tmp_path / "bundle"
    mount = f"mount -t tmpfs -o size={ROOM} none '{disk}' || exit 99"
    script = f"""{mount}; "$@"; code=$?; ls -A '{disk}'; exit $code"""
    within = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    try:
        ran = subprocess.run(
            [*within, *command(arguments, output)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("unshare is not here")
    if "unshare:" in ran.stderr or ran.returncode == 99:
        pytest.skip("no file system may be mounted here")
    assert (ran.returncode, ran.stdout) == (5, ""), ran.stderr
    assert f"room on the disk that holds {output} is not available" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        ("encoder", signal.SIGINT, 130),
        ("encoder", signal.SIGTERM, 143),
        ("encoder", signal.SIGKILL, -9),
        ("writer", signal.SIGINT, 130),
        ("writer", signal.SIGKILL, -9),
    ],
    indirect=["arguments"],
)
def test_an_export_that_is_stopped(
    number: signal.Signals, code: int, arguments: list[Any], run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    with subprocess.Popen(
        command(arguments, output, STOPPED), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(number)
        _, words = process.communicate()
    assert (said, process.returncode) == ("made\n", code), words
    assert "Traceback" not in words
    left = [name for name in os.listdir(tmp_path) if not name.startswith(".bundle.partial-")]
    assert left == []
    assert bool(os.listdir(tmp_path)) == (number == signal.SIGKILL)  # no process cleans up after that
    ran = run(*arguments, "--output", output, "--precision", "fp32")
    assert ran.code == 0, ran.err
    Bundle.read(output).verify(output)
    assert load(output, threads=1)("Where is my parcel?")


@pytest.fixture
def copy(writer: Path, tmp_path: Path) -> Path:
    return shutil.copytree(writer, tmp_path / "model")


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


def unknown_type(folder: Path) -> None:
    change(folder / "config.json", model_type="no-such-type")


def own_code(folder: Path) -> None:
    change(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")


def own_code_of_a_known_type(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoModelForSeq2SeqLM": "mine.Mine"})
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def half_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [unknown_type, own_code, own_code_of_a_known_type, no_tokenizer, no_weights, half_the_weights],
)
def test_unusable_models(damage: Any, copy: Path, run: Run, tmp_path: Path) -> None:
    damage(copy)
    ran = run("export", copy, "--task", "text2text-generation", "--output", tmp_path / "bundle")
    refused(ran, 3, f"checkpoint {copy}: ")
    assert "this code ran" not in ran.err
    assert os.listdir(tmp_path) == ["model"]


def test_a_type_that_cannot_be_exported(run: Run, tmp_path: Path) -> None:
    folder, auto = tmp_path / "model", cast(Any, transformers.AutoModelForCausalLM)
    config = transformers.AutoConfig.for_model(
        "mamba", vocab_size=1000, hidden_size=32, num_hidden_layers=1, state_size=4
    )
    model_of("gpt2", auto, folder)  # for its tokenizer
    auto.from_config(config).save_pretrained(folder)
    ran = run("export", folder, "--task", "text-generation", "--output", tmp_path / "bundle")
    refused(ran, 3, f"checkpoint {folder}: ", "mamba")
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_of_another_program(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / manifest.NAME).write_text('{"format": "other-1"}')
    refused(run("export", folder, "--output", tmp_path / "bundle"), 3, f"checkpoint {folder}: ", "other-1")
    assert os.listdir(tmp_path) == ["model"]
