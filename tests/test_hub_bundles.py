"""A bundle is pushed to a hub and opened by its pinned name: against a stand-in of the hub on loopback."""

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headway.core import hub as bundles
from headway.core import manifest
from headway.core.errors import BundleError, HeadwayError, UnavailableError, UsageError
from headway.core.manifest import Bundle
from headway.runtime import load
from tests.conftest import Ran, Run
from tests.hub_server import TOKEN, Hub, serving

NAME = "acme/support"
ABSENT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between tries
    for other in ("HF_ASSETS_CACHE", "HF_OIDC_RESOURCE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def pushed(hub: Hub, bundle: Path) -> str:
    """A bundle's reference; the hub remembers no request of the push."""
    reference = bundles.push(bundle, NAME)
    hub.requests.clear()
    return reference


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


def content(hub: Hub, reference: str) -> dict[str, bytes]:
    """The files of a reference on the server, to be tampered with."""
    name, _, commit = reference.partition("@")
    return hub.repositories[name].commits[commit]


def kept(tmp_path: Path) -> list[str]:
    """The bundles that the cache would give without asking."""
    return [p.name for p in tmp_path.glob("home/assets/headway/*/*/*") if not p.name.startswith(".")]


def refused(ran: Ran, code: int, *parts: str) -> None:
    assert ran.code == code, ran.err
    for part in ("headway: ", *parts):
        assert part in ran.err
    assert "Traceback" not in ran.err
    assert TOKEN not in ran.err
    assert ran.out == ""


def test_pushed_and_loaded_by_reference(
    run: Run, hub: Hub, bundle: Path, texts: list[str], tmp_path: Path
) -> None:
    ran = run("push", bundle, NAME)
    assert (ran.code, ran.err) == (0, "")
    reference = ran.out.strip()
    assert re.fullmatch(r"acme/support@[0-9a-f]{40}", reference)
    assert hub.repositories[NAME].private
    declared = Bundle.read(bundle)
    assert content(hub, reference).keys() == {".gitattributes", manifest.NAME, *declared.files}
    for precision in declared.variants:
        ours = load(bundle, precision=precision, threads=1)
        theirs = load(reference, precision=precision, threads=1)
        assert theirs(texts) == ours(texts)
    folder = bundles.fetch(reference)
    assert folder.is_relative_to(tmp_path)
    assert not any(p.is_symlink() for p in folder.rglob("*"))
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == {manifest.NAME, *declared.files}


def test_every_command_opens_a_reference(
    run: Run, pushed: str, bundle: Path, dev_file: Path, tmp_path: Path
) -> None:
    def both(*arguments: object) -> None:
        first, second = (run(*(model if a is None else a for a in arguments)) for model in (bundle, pushed))
        assert (first.code, second.code) == (0, 0), second.err
        assert first.out == second.out

    both("inspect", None)
    both("predict", None, "--input", dev_file, "--output", "-", "--threads", 1)
    both("evaluate", None, "--data", dev_file, "--json", "-", "--threads", 1)
    few = ("--texts", 2, "--one-by-one", 1, "--rounds", 1, "--threads", 1)
    measured = run("bench", pushed, "--output", tmp_path / "figures", *few)
    assert measured.code == 0, measured.err
    results = json.loads((tmp_path / "figures" / "results.json").read_text())
    assert Bundle.read(bundle).seal in json.dumps(results)


def test_a_second_push_of_the_same_is_the_same(hub: Hub, pushed: str, copy: Path) -> None:
    assert bundles.push(copy, NAME) == pushed
    assert len(hub.repositories[NAME].commits) == 2  # the empty repository, and the bundle


def test_only_what_the_manifest_lists_is_sent_and_fetched(hub: Hub, copy: Path) -> None:
    (copy / "notes.txt").write_text("not for the hub")
    reference = bundles.push(copy, NAME)
    files = content(hub, reference)
    assert "notes.txt" not in files
    files["setup.py"] = b"raise SystemExit"
    folder = bundles.fetch(reference)
    assert not (folder / "setup.py").exists()
    assert sorted(hub.downloads()) == sorted([manifest.NAME, *Bundle.read(copy).files])


@pytest.mark.parametrize("file", ["tokenizer.json", "int8/model.onnx"])
def test_a_file_tampered_with_on_the_server(
    file: str, run: Run, hub: Hub, pushed: str, tmp_path: Path
) -> None:
    files = content(hub, pushed)
    whole = files[file]
    files[file] = whole[:-1] + bytes([whole[-1] ^ 1])
    refused(run("inspect", pushed), 3, f"bundle {pushed}: {file} was changed: its SHA-256 is not the one in")
    assert kept(tmp_path) == []
    files[file] = whole
    assert run("inspect", pushed).code == 0


def test_a_manifest_tampered_with(run: Run, hub: Hub, pushed: str, tmp_path: Path) -> None:
    files = content(hub, pushed)
    files[manifest.NAME] = files[manifest.NAME].replace(b'"refund"', b'"refuse"')
    refused(run("inspect", pushed), 3, pushed, "its seal does not fit")
    assert hub.downloads() == [manifest.NAME]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("path", ["../outside", "/outside"])
def test_a_forged_manifest_leads_nowhere(path: str, hub: Hub, pushed: str, copy: Path) -> None:
    rewritten: dict[str, Any] = json.loads((copy / manifest.NAME).read_text())
    del rewritten["seal"]
    rewritten["files"] = {path: {"bytes": 0, "sha256": ""}}
    forged = json.dumps(rewritten | {"seal": manifest._seal(rewritten)}).encode()
    content(hub, pushed)[manifest.NAME] = forged
    with pytest.raises(BundleError, match="leads out of it"):
        load(pushed)
    assert hub.downloads() == [manifest.NAME]


def test_a_file_that_the_server_lacks(hub: Hub, pushed: str, tmp_path: Path) -> None:
    del content(hub, pushed)["tokenizer.json"]
    with pytest.raises(BundleError, match="there is no tokenizer.json in it"):
        load(pushed)
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "revision", ["", "@", "@main", "@v1.0", "@0123456", f"@{ABSENT[:-1]}", f"@{ABSENT}0"]
)
def test_an_unpinned_reference(revision: str, run: Run, hub: Hub, pushed: str) -> None:
    refused(run("inspect", NAME + revision), 2, f"{NAME}{revision}: ", "must be pinned to a commit", "push")
    with pytest.raises(UsageError, match="must be pinned"):
        load(NAME + revision)
    assert hub.requests == []


def test_a_local_folder_of_that_name_wins(
    hub: Hub, pushed: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle, tmp_path / pushed)
    monkeypatch.chdir(tmp_path)
    assert load(pushed).manifest == Bundle.read(bundle)
    assert bundles.located(pushed) == Path(pushed)
    assert hub.requests == []


@pytest.mark.parametrize("path", ["bundle", "some/where/else", "../up", "/a/b", "a/b@c/d"])
def test_other_paths_are_paths(path: str) -> None:
    assert bundles.located(path) == Path(path)


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        (f"acme/nothing@{ABSENT}", "the hub has no such repository, or it is closed to you"),
        (f"acme/support@{ABSENT}", "its repository has no such commit"),
    ],
)
def test_what_the_hub_does_not_have(reference: str, problem: str, run: Run, pushed: str) -> None:
    refused(run("inspect", reference), 3, f"bundle {reference}: {problem}")


def test_a_repository_without_a_bundle(run: Run, hub: Hub, pretrained: Path) -> None:
    reference = f"acme/model@{hub.add('acme/model', pretrained)}"
    refused(run("inspect", reference), 3, reference, f"there is no {manifest.NAME} in it")


def test_a_private_repository_is_closed_to_others(
    run: Run, pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    refused(run("inspect", pushed), 3, "closed to you", "HF_TOKEN")


@pytest.mark.parametrize("name", ["a--b/c", "acme/support.git"])
def test_a_name_that_no_hub_has(name: str, run: Run, hub: Hub, bundle: Path) -> None:
    refused(run("inspect", f"{name}@{ABSENT}"), 2, name)
    refused(run("push", bundle, name), 2, name)
    assert hub.requests == []


def test_no_server(run: Run, hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the port that discards
    place = "the hub at http://127.0.0.1:9 is not available"
    refused(run("inspect", f"{NAME}@{ABSENT}"), 5, place)
    refused(run("push", bundle, NAME), 5, place)


def test_offline_is_told(run: Run, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(run("inspect", pushed), 5, pushed, "HF_HUB_OFFLINE is set")


def test_the_second_time_nothing_is_asked(
    hub: Hub, pushed: str, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(pushed, threads=1)(texts)
    hub.requests.clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert load(pushed, threads=1)(texts) == first
    assert hub.requests == []


def test_a_broken_download_is_not_taken_for_whole_and_goes_on(
    run: Run, hub: Hub, pushed: str, tmp_path: Path
) -> None:
    last = list(json.loads(content(hub, pushed)[manifest.NAME])["files"])[-1]
    hub.broken.add(last)
    refused(run("inspect", pushed), 5, "the hub at ", "it answered 500")
    assert kept(tmp_path) == []
    hub.broken.clear()
    hub.requests.clear()
    assert run("inspect", pushed).code == 0
    assert hub.downloads() == [last]
    assert kept(tmp_path) == [pushed.partition("@")[2]]


def test_fetched_by_many_at_once(hub: Hub, pushed: str, bundle: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(bundles.fetch, [pushed] * 4))
    assert len(folders) == 1
    assert len(hub.downloads()) == len(set(hub.downloads())) == 1 + len(Bundle.read(bundle).files)


def test_a_cache_that_cannot_be_written(run: Run, pushed: str, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    refused(run("inspect", pushed), 2, "cannot write")


def test_a_damaged_bundle_is_not_pushed(run: Run, hub: Hub, copy: Path) -> None:
    (copy / "tokenizer.json").write_bytes(b"{}")
    refused(run("push", copy, NAME), 3, "tokenizer.json has 2 bytes")
    assert hub.requests == []


def test_what_is_no_bundle_is_not_pushed(
    run: Run, hub: Hub, checkpoint: Path, copy: Path, tmp_path: Path
) -> None:
    (copy / manifest.NAME).write_text((copy / manifest.NAME).read_text().replace('"refund"', '"refuse"'))
    refused(run("push", copy, NAME), 3, "its seal does not fit")
    refused(run("push", checkpoint, NAME), 3, "has the format 'headway-checkpoint-1'")
    refused(run("push", tmp_path / "none", NAME), 3, f"there is no {manifest.NAME} in it")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["support", "a/b/c", f"{NAME}@main", "/support", "acme/"])
def test_a_name_that_is_none(name: str, run: Run, hub: Hub, bundle: Path) -> None:
    refused(run("push", bundle, name), 2, f"{name}: a repository on the hub is named owner/name")
    assert hub.requests == []


def test_nothing_private_becomes_public(run: Run, hub: Hub, bundle: Path) -> None:
    first = run("push", bundle, NAME, "--public")
    assert first.code == 0
    assert not hub.repositories[NAME].private
    refused(run("push", bundle, NAME), 2, "--public: the repository acme/support is public")
    assert list(hub.repositories[NAME].commits)[-1] == first.out.strip().partition("@")[2]


def test_a_token_is_needed_to_push(run: Run, hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(run("push", bundle, "others/support"), 5, "permission for others/support")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(run("push", bundle, NAME), 5, "permission for acme/support on the hub is not available: log in")
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    refused(run("push", bundle, NAME), 5, "a token for the hub is not available: log in", "HF_TOKEN")
    assert hub.requests == []
    assert hub.repositories == {}


def test_without_the_library(run: Run, pushed: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for command in (("push", bundle, NAME), ("inspect", pushed)):
        refused(run(*command), 5, "the package 'huggingface_hub'", "pip install 'headway[hub]'")
    with pytest.raises(UnavailableError):
        load(pushed)


@pytest.mark.parametrize(("said", "off"), [(None, True), ("0", False)])
def test_telemetry_is_off_unless_the_user_decided(
    said: str | None, off: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", said or "")
    if said is None:
        monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    with pytest.raises(HeadwayError):
        bundles.fetch(f"{NAME}@{ABSENT}")
    assert off is constants.HF_HUB_DISABLE_TELEMETRY
