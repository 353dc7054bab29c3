"""Outputs appear whole or not at all."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.core import files
from headway.core.errors import OutputError, UnavailableError
from headway.runtime import bulk
from headway.runtime.bulk import resumable


class Interrupted(BaseException):
    """Like Ctrl-C: no Exception."""


def test_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with files.whole_file(path) as stream:
        stream.write("é\n")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == "é\n".encode()
    assert os.listdir(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_file_vanishes_on_an_error(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), files.whole_file(tmp_path / "out.txt") as stream:
        stream.write("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_file_that_was_there_stays_on_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("before")
    with pytest.raises(ValueError, match="no"), files.whole_file(path):
        raise ValueError("no")
    assert path.read_text() == "before"
    with files.whole_file(path) as stream:
        stream.write("after")
    assert path.read_text() == "after"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with files.whole_file("-") as stream:
        stream.write("line\n")
    assert capsys.readouterr().out == "line\n"


def test_missing_folders_above_are_made(tmp_path: Path) -> None:
    with files.whole_file(tmp_path / "a" / "b" / "out.txt") as stream:
        stream.write("x")
    with files.whole_folder(tmp_path / "a" / "c" / "out") as folder:
        (folder / "new").touch()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "a", "a/b", "a/b/out.txt", "a/c", "a/c/out", "a/c/out/new",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_folders_that_were_made_vanish_on_an_error(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(error), files.whole_file(tmp_path / "a" / "b" / "c" / "out.txt"):
        raise error
    with pytest.raises(error), files.whole_folder(tmp_path / "a" / "b" / "c" / "out"):
        raise error
    assert [p.name for p in tmp_path.rglob("*")] == ["a"]


def test_a_folder_that_another_uses_by_now_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), files.whole_file(tmp_path / "a" / "out.txt"):
        (tmp_path / "a" / "other").touch()
        raise ValueError("no")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["other"]


def test_a_path_that_no_folder_can_be_made_for(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for above in ("/proc/none", tmp_path / "link", tmp_path / ("x" * 300)):
        path = Path(above) / "deep" / "out"
        for refused in (files.refuse_unwritable_file, files.refuse_unwritable, files.make_parents):
            with pytest.raises(OutputError, match="^cannot write "):
                refused(path)
        with pytest.raises(OutputError), files.whole_file(path):
            raise AssertionError("the block must not begin")
    assert os.listdir(tmp_path) == ["link"]


def test_file_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"), files.whole_file(tmp_path / "file" / "out.txt"):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_file_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "out.txt").mkdir()
    with pytest.raises(OutputError, match="it is a folder"), files.whole_file(tmp_path / "out.txt"):
        pass
    assert os.listdir(tmp_path) == ["out.txt"]


def test_another_files_error_keeps_its_name(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "weights"
    (tmp_path / "here").mkdir()
    with pytest.raises(FileNotFoundError, match="elsewhere"), files.whole_file(tmp_path / "here" / "out.txt"):
        other.read_text()
    with pytest.raises(FileNotFoundError, match="elsewhere"), files.whole_folder(tmp_path / "here" / "out"):
        other.read_text()
    assert os.listdir(tmp_path / "here") == []


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with files.whole_folder(path) as folder:
        (folder / "a").write_text("a")
        assert not path.exists()
    assert (path / "a").read_text() == "a"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_folder_vanishes_on_an_error(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), files.whole_folder(tmp_path / "out") as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_taken_folder_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(OutputError, match="give --overwrite"), files.whole_folder(path):
        pass
    with pytest.raises(ValueError, match="no"), files.whole_folder(path, overwrite=True):
        raise ValueError("no")
    assert os.listdir(path) == ["mine"]
    with files.whole_folder(path, overwrite=True) as folder:
        (folder / "new").touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_an_empty_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with files.whole_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_where_a_file_is(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="it is a file"), files.whole_folder(tmp_path / "out", overwrite):
        pass
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("parent", ["file", "file/deeper", "file/much/deeper"])
def test_unwritable_folder_is_told_before_the_work(parent: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"cannot write .*/{parent}/out: Not a dir"):
        files.refuse_taken(tmp_path / parent / "out", overwrite=False)
    with pytest.raises(OutputError), files.whole_folder(tmp_path / parent / "out"):
        raise AssertionError("the block must not begin")
    assert os.listdir(tmp_path) == ["file"]


def test_asking_leaves_nothing(tmp_path: Path) -> None:
    files.refuse_taken(tmp_path / "out", overwrite=False)
    files.refuse_taken(tmp_path / "a" / "b" / "out", overwrite=False)
    files.refuse_unwritable_file(tmp_path / "a" / "b" / "out.txt")
    files.refuse_unwritable_file("-")
    assert os.listdir(tmp_path) == []


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_what_a_killed_process_of_the_same_number_left(tmp_path: Path) -> None:
    (tmp_path / f".out.partial-{os.getpid()}").mkdir()
    with files.whole_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no regular file"), files.whole_file(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


UMASK = 0o027


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(UMASK)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def put(path: Path) -> None:
    with files.whole_file(path) as stream:
        stream.write("after")


def put_in_folder(path: Path) -> None:
    with files.whole_folder(path, overwrite=True) as folder:
        (folder / "new").write_text("after")


def put_resumable(path: Path) -> None:
    with resumable(path, {}) as partial:
        partial.stream.write("after")
        (begun,) = path.resolve().parent.glob("*.partial")
        assert mode(begun) == (mode(path) if path.exists() else 0o666 & ~UMASK)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("write", [put, put_resumable])
def test_a_new_file_has_the_mode_of_the_umask(write: Any, tmp_path: Path) -> None:
    write(tmp_path / "out")
    assert mode(tmp_path / "out") == 0o640


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("kept", [0o600, 0o644, 0o666, 0o400])
@pytest.mark.parametrize("write", [put, put_resumable])
def test_the_mode_of_a_file_is_kept(write: Any, kept: int, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    (tmp_path / "out").chmod(kept)
    write(tmp_path / "out")
    assert ((tmp_path / "out").read_text(), mode(tmp_path / "out")) == ("after", kept)


@pytest.mark.usefixtures("umask")
def test_the_mode_of_a_folder_is_kept(tmp_path: Path) -> None:
    put_in_folder(tmp_path / "out")
    assert mode(tmp_path / "out") == 0o750
    (tmp_path / "out").chmod(0o700)
    put_in_folder(tmp_path / "out")
    assert mode(tmp_path / "out") == 0o700


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    (tmp_path / "out").chmod(0o600)
    with files.whole_file(tmp_path / "out"):
        assert {mode(path) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("write", [put, put_resumable, put_in_folder])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("links", [1, 2])
def test_a_link_stays_and_its_target_is_written(write: Any, there: bool, links: int, tmp_path: Path) -> None:
    (real := tmp_path / "real").mkdir()
    link = tmp_path / "links" / "out"
    link.parent.mkdir()
    for number in range(links):
        (link.parent / ("out" if number == 0 else f"out{number}")).symlink_to(
            "../real/target" if number == links - 1 else f"out{number + 1}"
        )
    if there and write is put_in_folder:
        (real / "target").mkdir()
        (real / "target" / "old").touch()
    elif there:
        (real / "target").write_text("before")
    write(link)
    assert link.is_symlink()
    assert len(os.listdir(link.parent)) == links
    assert os.listdir(real) == ["target"]
    assert not (real / "target").is_symlink()
    found = real / "target" / "new" if write is put_in_folder else real / "target"
    assert found.read_text() == "after"
    assert write is not put_in_folder or os.listdir(real / "target") == ["new"]


@pytest.mark.parametrize("write", [put, put_resumable, put_in_folder])
def test_links_in_a_circle(write: Any, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError):
        write(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("write", [put, put_resumable, put_in_folder])
def test_a_link_into_a_folder_that_cannot_be_made(write: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").symlink_to("file/target")
    with pytest.raises(OutputError):
        write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("write", [put, put_resumable, put_in_folder])
def test_disks_that_fail(write: Any, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os if write is not put_resumable else bulk.os, "replace", failing)
    if write is put_in_folder:
        monkeypatch.setattr(files.os, "rename", failing)
    with pytest.raises(UnavailableError) as caught:
        write(tmp_path / "out")
    assert caught.value.exit_code == 5


def test_a_stream_that_fails_between_commits(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="room on the disk"), resumable(tmp_path / "out", {}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), resumable(tmp_path / "out", {}):
        (tmp_path / "another").read_text()
