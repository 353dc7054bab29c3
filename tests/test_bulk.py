"""Predictions of whole files: every line exactly once, whatever stops the run."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headway.bench import memory
from headway.cli import predict as verb
from headway.core.data import Record
from headway.core.errors import OutputError, UnavailableError
from headway.runtime import bulk, load, pipeline
from headway.runtime.bulk import resumable
from tests.conftest import Run, write_jsonl
from tests.small import MAX_LENGTH, small_bundle, texts

SETTINGS = {"precision": "fp32"}
WINDOW = 16
"""records in a block, in these tests"""

CHILD = """
import sys, time
from headway.cli import main, predict
from headway.runtime import pipeline
predict.WINDOW = pipeline.WINDOW = {window}
whole = pipeline.EncoderPipeline.predict
def slow(self, examples, **settings):
    time.sleep(0.01)
    return whole(self, examples, **settings)
pipeline.EncoderPipeline.predict = slow
sys.exit(main.run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("small") / "bundle")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small windows, in this process."""
    monkeypatch.setattr(pipeline, "WINDOW", WINDOW)
    monkeypatch.setattr(verb, "WINDOW", WINDOW)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Inputs of which some are cut."""
    rows: list[Any] = [{"id": i, "text": text} for i, text in enumerate(texts(1000))]
    return write_jsonl(tmp_path / "in.jsonl", rows)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results" / "out.jsonl"


@contextmanager
def interrupted(after: int) -> Iterator[None]:
    """The command is stopped in one of its windows."""
    predict, windows = pipeline.EncoderPipeline.predict, iter(range(after))

    def stopped(self: Any, examples: Any, **settings: Any) -> Any:
        if next(windows, None) is None:
            raise KeyboardInterrupt
        return predict(self, examples, **settings)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline.EncoderPipeline, "predict", stopped)
        yield


def records(count: int) -> Iterator[Record]:
    return (Record({"text": f"text {i}"}, "some.jsonl", i + 1) for i in range(count))


def write(
    output: Path, count: int, stop: int | None = None, settings: Any = SETTINGS, restart: bool = False
) -> int:
    """Write a line a record, in blocks of 10, as the command does; returns the place where it began."""
    with resumable(output, settings, restart) as partial:
        began = partial.whole.records
        rest = partial.rest(records(count))
        for start in range(began, count, 10):
            block = [next(rest) for _ in range(min(10, count - start))]
            for record in block:
                partial.stream.write(f"{record.fields['text']} é\n")
                if record.line == stop:
                    raise KeyboardInterrupt
            partial.commit(block, cut=1)
    return began


def whole(count: int) -> bytes:
    return "".join(f"text {i} é\n" for i in range(count)).encode()


def names(out: Path) -> set[str]:
    return set(os.listdir(out.parent))


def test_the_output_appears_at_the_end(out: Path) -> None:
    assert write(out, 35) == 0
    assert out.read_bytes() == whole(35)
    assert names(out) == {"out.jsonl"}


def test_a_stopped_run_goes_on_where_it_was_whole(out: Path) -> None:
    out.write_text("before")
    for stop in (27, 23, 59):
        with pytest.raises(KeyboardInterrupt):
            write(out, 65, stop)
        assert names(out) == {"out.jsonl", "out.jsonl.partial", "out.jsonl.journal"}
        assert out.read_text() == "before"
    assert write(out, 65) == 50
    assert out.read_bytes() == whole(65)
    assert names(out) == {"out.jsonl"}


def test_nothing_is_left_where_nothing_is_whole(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 9)
    assert names(out) == set()


@pytest.mark.parametrize(
    "torn", [b"", b'{"records"', b'{"records":30,"bytes":9}\n\0\0', b"\0" * 50, b"{}x\n"]
)
def test_what_came_after_the_last_whole_block_is_cut_off(torn: bytes, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 27)
    for name, rubbish in (("partial", b"text 20 \xc3"), ("journal", torn)):
        with out.with_name(f"out.jsonl.{name}").open("ab") as stream:
            stream.write(rubbish)
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 47)
    assert write(out, 65) == 40
    assert out.read_bytes() == whole(65)


def test_a_journal_that_is_ahead_of_the_output_is_not_believed(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 47)
    partial = out.with_name("out.jsonl.partial")
    os.truncate(partial, len(whole(30)) - 1)
    assert write(out, 65) == 20
    assert out.read_bytes() == whole(65)


def test_a_run_killed_before_its_first_block(out: Path) -> None:
    out.with_name("out.jsonl.partial").touch()
    assert write(out, 15) == 0
    with pytest.raises(KeyboardInterrupt):
        write(out, 35, 27)
    os.unlink(out.with_name("out.jsonl.partial"))
    assert write(out, 15, settings={"precision": "int8"}) == 0
    assert out.read_bytes() == whole(15)
    assert names(out) == {"out.jsonl"}


def test_other_settings_are_refused_and_restart_helps(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 27)
    before = {p: p.read_bytes() for p in out.parent.iterdir()}
    with pytest.raises(
        OutputError, match="was begun with precision fp32 instead of int8; give --restart to begin anew"
    ):
        write(out, 65, settings={"precision": "int8"})
    assert {p: p.read_bytes() for p in out.parent.iterdir()} == before
    assert write(out, 65, settings={"precision": "int8"}, restart=True) == 0
    assert out.read_bytes() == whole(65)


@pytest.mark.parametrize("count", [15, 65])
def test_other_input_is_refused(count: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 27)
    if count == 65:
        monkeypatch.setattr(
            sys.modules[__name__],
            "records",
            lambda n: (Record({"text": f"{i}"}, "some.jsonl", i + 1) for i in range(n)),
        )
    with pytest.raises(OutputError, match=r"was begun with other input \(20 records of it were answered\)"):
        write(out, count)
    assert names(out) == {"out.jsonl.partial", "out.jsonl.journal"}


def test_a_file_of_somebody_else_is_not_touched(out: Path) -> None:
    partial = out.with_name("out.jsonl.partial")
    partial.write_text("mine")
    with pytest.raises(OutputError, match=r"out.jsonl.partial is in the way"):
        write(out, 15)
    assert partial.read_text() == "mine"
    assert write(out, 15, restart=True) == 0


def test_two_runs_do_not_write_the_same(out: Path) -> None:
    with resumable(out, SETTINGS) as first:
        with pytest.raises(OutputError, match=r"another run is writing out.jsonl.partial"):
            write(out, 15)
        first.stream.write("first\n")
    assert out.read_text() == "first\n"


def test_a_full_disk_keeps_what_is_whole(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 27)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(bulk.os, "fsync", full)
        with pytest.raises(UnavailableError, match="room on the disk"):
            write(out, 65)
    assert write(out, 65) == 20
    assert out.read_bytes() == whole(65)


@pytest.mark.parametrize(
    ("source", "output", "can"),
    [
        ("in.jsonl", "out", True),
        ("-", "out", False),
        ("in.jsonl", "-", False),
        (os.devnull, "out", False),
        (".", "out", True),
    ],
)
def test_what_can_be_resumed(source: str, output: str, can: bool) -> None:
    assert bulk.can_resume(source, output) is can


@pytest.mark.usefixtures("narrow")
def test_the_command_writes_what_it_writes_to_standard_output(
    run: Run, small: Path, source: Path, out: Path
) -> None:
    expected = run("predict", small, "--input", source, "--output", "-")
    ran = run("predict", small, "--input", source, "--output", out)
    assert (ran.code, ran.out, ran.err) == (0, "", expected.err)
    assert out.read_text() == expected.out
    assert [json.loads(line)["id"] for line in expected.out.splitlines()] == list(range(1000))
    assert f"inputs were longer than {MAX_LENGTH} tokens and were cut" in ran.err


@pytest.mark.usefixtures("narrow")
def test_standard_input_into_a_file(
    run: Run, small: Path, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert run("predict", small, "--input", "-", "--output", out).code == 0
    assert len(out.read_text().splitlines()) == 1000
    assert names(out) == {"out.jsonl"}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_kinds_of_files_go_on_too(kind: str, run: Run, small: Path, source: Path, out: Path) -> None:
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    given = source.with_suffix(f".{kind}")
    if kind == "csv":
        given.write_text("id,body\n" + "".join(f"{r['id']},{r['text']}\n" for r in rows))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(
            pyarrow.Table.from_pylist([{"id": r["id"], "body": r["text"]} for r in rows]), given
        )
    command = ["predict", small, "--input", given, "--columns", "text=body", "--output"]
    expected = run(*command, "-")
    with interrupted(after=9):
        assert run(*command, out).code == 130
    ran = run(*command, out)
    assert (ran.code, out.read_text()) == (0, expected.out)


@pytest.mark.usefixtures("narrow")
def test_a_bad_record_costs_nothing_but_itself(run: Run, small: Path, source: Path, out: Path) -> None:
    command = ["predict", small, "--input", source, "--output"]
    expected = run(*command, "-")
    good = source.read_text().splitlines()
    source.write_text("\n".join([*good[:700], '{"text": ""}', *good[701:]]) + "\n")
    ran = run(*command, out)
    assert ran.code == 3
    assert ":701: field 'text': is empty" in ran.err
    assert "687 records are answered and kept" in ran.err
    source.write_text("\n".join(good) + "\n")
    ran = run(*command, out)
    assert "going on after 687 records" in ran.err
    assert (ran.code, out.read_text()) == (0, expected.out)
    assert expected.err in ran.err  # texts that were cut are counted over both runs


@pytest.mark.usefixtures("narrow")
def test_what_an_interrupted_command_tells(run: Run, small: Path, source: Path, out: Path) -> None:
    command = ["predict", small, "--input", source, "--output", out]
    with interrupted(after=9):
        ran = run(*command)
    assert (ran.code, out.exists()) == (130, False)
    assert "records are answered and kept; the same command goes on after them" in ran.err
    refused = run(*command, "--batch-tokens", 64)
    assert (refused.code, refused.out) == (2, "")
    assert "batch_tokens 512 instead of 64" in refused.err
    assert "--restart" in refused.err
    assert run(*command, "--batch-tokens", 64, "--restart").code == 0


def test_killed_at_random_moments(run: Run, small: Path, source: Path, out: Path) -> None:
    """Each run gets a little further; what they write together is what one writes."""
    command = [
        sys.executable,
        "-c",
        CHILD.format(window=WINDOW),
        "predict",
        str(small),
        "--input",
        str(source),
    ]
    expected = subprocess.run([*command, "--output", "-"], capture_output=True, check=True).stdout
    chance, partial = random.Random(0), out.with_name("out.jsonl.partial")
    killed = 0
    for _ in range(5):
        begun = partial.stat().st_size if partial.exists() else 0
        aim = begun + chance.randrange(len(expected) // 8)
        with subprocess.Popen([*command, "--output", str(out)], stderr=subprocess.DEVNULL) as child:
            while child.poll() is None and not (partial.exists() and partial.stat().st_size > aim):
                time.sleep(0.001)
            time.sleep(chance.random() / 50)
            child.send_signal(signal.SIGKILL)
        assert not out.exists()
        killed += child.returncode == -signal.SIGKILL
    assert killed == 5
    last = subprocess.run([*command, "--output", str(out)], capture_output=True, text=True, check=True)
    assert "going on after" in last.stderr
    assert out.read_bytes() == expected
    assert names(out) == {"out.jsonl"}


@pytest.mark.usefixtures("narrow")
def test_a_call_with_many_texts_goes_by_windows(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = load(small)
    some = texts(100)
    expected = [pipe(text) for text in some]
    lengths: list[int] = []
    predict = pipe.predict
    monkeypatch.setattr(pipe, "predict", lambda examples: lengths.append(len(examples)) or predict(examples))
    assert pipe(some) == expected
    assert lengths == [WINDOW] * 6 + [4]


def test_the_resident_size_is_told_along_the_way(small: Path) -> None:
    found = list(memory.sizes(load(small), texts(20), requests=25, every=10))
    assert [size.requests for size in found] == [0, 10, 20, 25]
    assert found[-1].texts > 25
    assert all(size.resident_mb > 10 for size in found)


def test_a_block_takes_about_ten_seconds_at_most() -> None:
    """Of any model, however slow: what a kill can cost."""
    for seconds_a_record in (1e-4, 0.004, 0.02, 0.3, 1.0, 5.0, 9.0):
        size, spent = 1, []
        for _ in range(40):
            spent.append(size * seconds_a_record)
            size = verb.next_size(size, spent[-1])
        assert max(spent) <= verb.BLOCK_SECONDS
        assert size >= min(pipeline.WINDOW, verb.BLOCK_SECONDS / seconds_a_record / 4)
    assert verb.next_size(2048, 2048.0) == 8  # texts have become much longer
    assert verb.next_size(1, 100.0) == 1


@pytest.mark.usefixtures("narrow")
def test_blocks_grow_and_go_on_growing(
    run: Run, small: Path, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict = pipeline.EncoderPipeline.predict

    def noted(self: Any, examples: Any, **settings: Any) -> Any:
        sizes.append(len(examples))
        if len(sizes) == 6:
            raise KeyboardInterrupt
        return predict(self, examples, **settings)

    monkeypatch.setattr(pipeline.EncoderPipeline, "predict", noted)
    assert run("predict", small, "--input", source, "--output", out).code == 130
    assert sizes == [0, 1, 2, 4, 8, 16]  # none: the settings are checked
    assert run("predict", small, "--input", source, "--output", out).code == 0
    assert sizes[6:9] == [0, 16, 16]
    assert sum(sizes) == 1000 + 16


def test_a_slow_model_commits_by_time(
    run: Run, small: Path, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock by which each record takes five seconds."""
    now = [0.0]
    predict = pipeline.EncoderPipeline.predict

    def slow(self: Any, examples: Any, **settings: Any) -> Any:
        now[0] += 5.0 * len(examples)
        if now[0] > 60:
            raise KeyboardInterrupt
        return predict(self, examples, **settings)

    monkeypatch.setattr(pipeline.EncoderPipeline, "predict", slow)
    monkeypatch.setattr(verb, "time", type("Clock", (), {"monotonic": lambda: now[0]}))
    ran = run("predict", small, "--input", source, "--output", out)
    kept = len(out.with_name("out.jsonl.partial").read_bytes().splitlines())
    assert ran.code == 130
    assert 60 - 30 <= 5.0 * kept < 60
    assert f"{kept} records are answered and kept" in ran.err


@pytest.mark.usefixtures("narrow")
def test_a_changed_input_is_not_told_to_go_on(run: Run, small: Path, source: Path, out: Path) -> None:
    command = ["predict", small, "--input", source, "--output", out]
    with interrupted(after=9):
        run(*command)
    source.write_text(source.read_text().replace("late", "great"))
    ran = run(*command)
    assert ran.code == 2
    assert "was begun with other input" in ran.err
    assert "the same command goes on" not in ran.err


def test_a_journal_line_that_does_not_fit(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system writes what has room, and says how much that was."""
    with pytest.raises(KeyboardInterrupt):
        write(out, 65, 27)

    class Full:
        def write(self, line: bytes) -> int:
            return len(line) // 2

        def close(self) -> None: ...

    opened = bulk.Partial.__init__

    def full(self: Any, output: Path, lines: Any, journal: Any, *more: Any) -> None:
        journal.close()
        opened(self, output, lines, Full(), *more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(bulk.Partial, "__init__", full)
        with pytest.raises(UnavailableError, match="room on the disk"):
            write(out, 65)
    assert write(out, 65) == 20
    assert out.read_bytes() == whole(65)
