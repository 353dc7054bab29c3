"""The command in the world: closed and full streams, any locale, deleted and read-only folders. Each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headway.core.data import Lines
from headway.runtime import load
from tests.conftest import write_jsonl
from tests.small import small_bundle, texts

SECONDS = 120
"""until a process counts as hanging"""
ROWS: list[Any] = [
    {"id": "größe", "text": "größe 漢字"},
    *({"id": i, "text": t} for i, t in enumerate(texts(30))),
]
LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "replace": {"PYTHONIOENCODING": "cp1252:replace"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
    "C": {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("größe") / "bundle")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "in.jsonl", ROWS)


@pytest.fixture(scope="module")
def expected(small: Path, source: Path) -> bytes:
    """The predictions, in a UTF-8 locale."""
    found = headway("predict", small, "--input", source, "--output", "-").stdout
    assert [json.loads(line)["id"] for line in found.decode("utf-8").splitlines()] == [r["id"] for r in ROWS]
    return found


def headway(
    *arguments: object,
    redirect: str = "",
    before: str = "",
    variables: Mapping[str, str] | None = None,
    **more: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command by a shell, which redirects its streams."""
    script = f'{before}\n"$0" -m headway.cli.main "$@" {redirect}'
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG"))}
    return subprocess.run(
        ["bash", "-c", script, sys.executable, *map(str, arguments)],
        env=plain | {"HEADWAY_CACHE": "off"} | dict(variables or {}),
        capture_output=True,
        timeout=SECONDS,
        check=False,
        **more,
    )


def told(ran: subprocess.CompletedProcess[bytes]) -> str:
    """The one message of a command that failed."""
    found = ran.stderr.decode("utf-8", "replace")
    assert "Traceback" not in found
    assert "Exception ignored" not in found
    return found


@pytest.mark.parametrize("locale", LOCALES)
def test_predictions_are_utf_8_in_any_locale(locale: str, small: Path, source: Path, expected: bytes) -> None:
    ran = headway("predict", small, "--input", source, "--output", "-", variables=LOCALES[locale])
    assert (ran.returncode, ran.stdout) == (0, expected)


@pytest.mark.parametrize("locale", ["ascii", "replace"])
@pytest.mark.parametrize("verb", ["doctor", "inspect", "evaluate"])
def test_reports_are_utf_8_in_any_locale(
    verb: str, locale: str, small: Path, source: Path, tmp_path: Path
) -> None:
    arguments: list[object] = {
        "doctor": ["doctor", small],
        "inspect": ["inspect", small],
        "evaluate": ["evaluate", small, "--json", "-", "--predictions", tmp_path / "p.jsonl", "--data"],
    }[verb]
    if verb == "evaluate":
        labelled: list[Any] = [{"text": "late größe", "label": "bug"}]
        arguments = [*arguments, write_jsonl(tmp_path / "labelled.jsonl", labelled)]
    plain, other = headway(*arguments), headway(*arguments, variables=LOCALES[locale])
    assert other.returncode == plain.returncode
    assert other.stdout.decode("utf-8").splitlines()[:3] == plain.stdout.decode("utf-8").splitlines()[:3]
    told(other)


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- >&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_job_from_file_to_file_needs_no_standard_stream(
    closed: str, small: Path, source: Path, expected: bytes, tmp_path: Path
) -> None:
    ran = headway("predict", small, "--input", source, "--output", tmp_path / "o", redirect=closed)
    assert (ran.returncode, (tmp_path / "o").read_bytes()) == (0, expected)
    assert ran.stdout == b""


def test_standard_input_that_is_closed(small: Path, tmp_path: Path) -> None:
    ran = headway("predict", small, "--input", "-", "--output", tmp_path / "o", redirect="<&-")
    assert (ran.returncode, told(ran)) == (3, "headway: standard input: is closed\n")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("where", [">&-", "> /dev/full"])
@pytest.mark.parametrize("verb", ["predict", "doctor", "inspect", "evaluate"])
def test_standard_output_that_cannot_be_written(
    verb: str, where: str, small: Path, source: Path, tmp_path: Path
) -> None:
    arguments: list[object] = {
        "predict": ["predict", small, "--input", source, "--output", "-"],
        "doctor": ["doctor"],
        "inspect": ["inspect", small, "--json"],
        "evaluate": ["evaluate", small, "--json", "-", "--data", tmp_path / "labelled.jsonl"],
    }[verb]
    write_jsonl(tmp_path / "labelled.jsonl", [{"text": "late", "label": "bug"}])
    ran = headway(*arguments, redirect=where)
    assert ran.returncode == (5 if "full" in where else 2), told(ran)
    assert "standard output" in told(ran)


def test_standard_error_that_is_full_costs_no_exit_code(small: Path) -> None:
    assert (
        headway("predict", small, "--input", "none.jsonl", "--output", "-", redirect="2>/dev/full").returncode
        == 3
    )


def test_a_limit_of_file_sizes(small: Path, tmp_path: Path, expected: bytes) -> None:
    many: list[Any] = [{"text": text} for text in texts(9000)]
    command = [
        "predict",
        small,
        "--input",
        write_jsonl(tmp_path / "in.jsonl", many),
        "--output",
        tmp_path / "o",
    ]
    ran = headway(*command, before="ulimit -f 600")
    assert ran.returncode == 5
    assert "raise the limit (ulimit -f)" in told(ran)
    kept = len((tmp_path / "o.partial").read_bytes().splitlines())
    assert kept > 0
    assert not (tmp_path / "o").exists()
    ran = headway(*command)
    assert (ran.returncode, "going on after" in told(ran)) == (0, True)
    plain = headway(*command[:-1], "-").stdout
    assert (tmp_path / "o").read_bytes() == plain


def test_a_full_disk(small: Path, tmp_path: Path) -> None:
    many = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts(9000)])
    (tmp_path / "full").mkdir()
    script = 'mount -t tmpfs -o size=600k none "$1" && "$2" -m headway.cli.main "${@:3}"; code=$?; ls "$1"; exit $code'
    ran = subprocess.run(
        [
            "unshare", "-rm", "bash", "-c", script, "-", str(tmp_path / "full"), sys.executable,
            "predict", str(small), "--input", str(many), "--output", str(tmp_path / "full" / "o"),
        ],
        capture_output=True, timeout=SECONDS, check=False, env=os.environ | {"HEADWAY_CACHE": "off"},
    )  # fmt: skip
    if b"unshare" in ran.stderr or b"mount" in ran.stderr:
        pytest.skip("no file system can be mounted here")
    assert ran.returncode == 5
    assert "room on the disk that holds" in told(ran)
    assert ran.stdout.split() == [b"o.journal", b"o.partial"]


def test_lines_are_answered_as_they_come(small: Path, expected: bytes) -> None:
    command = [
        sys.executable,
        "-m",
        "headway.cli.main",
        "predict",
        str(small),
        "--input",
        "-",
        "--output",
        "-",
    ]
    with subprocess.Popen(
        ["timeout", str(SECONDS), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"HEADWAY_CACHE": "off"},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for row, answer in zip(ROWS[:5], expected.splitlines(keepends=True), strict=False):
            child.stdin.write(json.dumps(row).encode() + b"\n\n")  # and a blank line
            child.stdin.flush()
            assert child.stdout.readline() == answer  # before the next line is there
        child.stdin.write("".join(json.dumps(row) + "\n" for row in ROWS[5:]).encode().rstrip(b"\n"))
        child.stdin.close()
        assert child.stdout.read().splitlines() == expected.splitlines()[5:]
    assert child.returncode == 0


def test_lines_of_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(read, "rb") as stream:
        lines = Lines(stream)
        found = iter(lines)
        assert not lines.ready()
        os.write(write, b"one\ntw")
        assert lines.ready()
        assert next(found) == b"one\n"
        assert not lines.ready()
        os.write(write, b"o\n \n\n")
        assert lines.ready()
        assert [next(found) for _ in range(3)] == [b"two\n", b" \n", b"\n"]
        os.write(write, b"\n\n")
        assert not lines.ready()  # only blank ones
        os.write(write, b"last")
        os.close(write)
        assert lines.ready()
        assert list(found) == [b"\n", b"\n", b"last"]
        assert not lines.ready()


def test_a_deleted_working_folder(small: Path, source: Path, tmp_path: Path, expected: bytes) -> None:
    gone = f'mkdir -p "{tmp_path}/gone"; cd "{tmp_path}/gone"; rmdir "{tmp_path}/gone"'
    run = ["import sys; sys.path[:] = [p for p in sys.path if p]; from headway.cli.main import main; main()"]
    ran = {}
    for verb, arguments in {
        "doctor": ["doctor"],
        "predict": ["predict", small, "--input", source, "--output", tmp_path / "o"],
        "relative": ["predict", small, "--input", source, "--output", "o"],
    }.items():
        ran[verb] = subprocess.run(
            ["bash", "-c", f'{gone}; "$0" -c "$@"', sys.executable, *run, *map(str, arguments)],
            capture_output=True, timeout=SECONDS, check=False, env=os.environ | {"HEADWAY_CACHE": "off"},
        )  # fmt: skip
        told(ran[verb])
    assert "there is no working folder that can be used" in ran["doctor"].stdout.decode()
    assert (ran["predict"].returncode, (tmp_path / "o").read_bytes()) == (0, expected)
    assert ran["relative"].returncode in (2, 5)


def test_no_temporary_folder(small: Path, tmp_path: Path) -> None:
    code = (
        "import sys, tempfile; tempfile._get_default_tempdir = lambda *a: (_ for _ in ()).throw("
        "FileNotFoundError(2, 'No usable temporary directory found in []')); "
        "from headway.cli.main import main; main()"
    )
    for arguments, exit_code in (
        (["doctor"], 5),
        (["inspect", small, "--layers"], 5),
        (["inspect", small], 0),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, timeout=SECONDS, check=False, env=os.environ | {"HEADWAY_CACHE": "off"},
        )  # fmt: skip
        assert ran.returncode == exit_code, told(ran)
        if exit_code:
            assert "TMPDIR" in told(ran) + ran.stdout.decode()


def test_a_bundle_whose_folder_is_not_utf_8(source: Path, tmp_path: Path, expected: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    small_bundle(tmp_path / "bundle").rename(folder)
    output = folder / "o.jsonl"
    for arguments in (
        ["predict", folder, "--input", source, "--output", output],
        ["inspect", folder],
        ["doctor", folder],
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "headway.cli.main", *arguments],
            capture_output=True, timeout=SECONDS, check=False, env=os.environ | {"HEADWAY_CACHE": "off"},
        )  # fmt: skip
        told(ran)
        assert ran.returncode in ((0, 5) if arguments[0] == "doctor" else (0,)), ran.stderr
        ran.stdout.decode("utf-8")
    assert output.read_bytes() == expected
    assert load(folder, threads=1)("late")
