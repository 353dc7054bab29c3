"""Bundles on a Hugging Face Hub: push one to a repository, fetch one by a name that is pinned to a commit."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from headway.core import manifest
from headway.core.errors import BundleError, HeadwayError, OutputError, UnavailableError, UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
REFERENCE = re.compile(rf"{NAME.pattern}(@[^/]*)?")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def located(bundle: str | Path) -> Path:
    """The folder of a bundle: what `fetch` gives for a name on the hub, else `bundle` itself.

    What exists on this machine is never taken for a name on the hub. Raises what `fetch` raises.
    """
    folder = Path(bundle)
    return folder if folder.exists() or not REFERENCE.fullmatch(str(folder)) else fetch(str(folder))


def fetch(reference: str) -> Path:
    """The folder of the hub's bundle `owner/name@<40 hex digits of a commit>`, every file of it verified.

    The first call downloads the manifest and the files that it lists into headway's part of the hub's cache
    (HF_ASSETS_CACHE, HF_HOME); later ones send nothing. Concurrent calls wait for one download.

    Raises:
        UsageError: the reference is not pinned to a commit.
        BundleError: no such repository or commit (for this user), or what is there is no whole bundle.
        UnavailableError: the hub cannot be reached or refuses, or `huggingface_hub` is not installed.
    """
    name, _, commit = reference.partition("@")
    if not (NAME.fullmatch(name) and COMMIT.fullmatch(commit)):
        raise UsageError(
            reference,
            "no folder has this name, and a bundle on the hub must be pinned to a commit: "
            "owner/name@<40 hex digits>, as `headway push` prints it",
        )
    folder = _cache() / name / commit
    if folder.is_dir():  # got its name when it was whole
        return folder
    _library()
    with _told(reference, folder.parent):
        from filelock import FileLock  # the hub's library brings it

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{commit}.lock")):
            if not folder.is_dir():
                _download(name, commit, folder)
    return folder


def push(bundle: Path, name: str, private: bool = True) -> str:
    """Upload a bundle to the repository `name`, made where there is none; returns `owner/name@commit`.

    Sends the manifest and the files that it lists, after comparing all of them with it.

    Raises:
        UsageError: `name` is not owner/name, or `private` and the repository is public.
        BundleError: the folder is no bundle, or a damaged one.
        UnavailableError: no token, no permission, no hub, or `huggingface_hub` is not installed.
    """
    if not NAME.fullmatch(name):
        raise UsageError(name, "a repository on the hub is named owner/name")
    declared = manifest.Bundle.read(bundle)
    declared.verify(bundle)
    hub = _library()
    with _told(name, bundle):
        token = hub.get_token()
        if token is None:
            raise UnavailableError("a token for the hub", LOG_IN)
        api = hub.HfApi(endpoint=_endpoint(), token=token)
        api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(name).private:
            raise UsageError("--public", f"the repository {name} is public: give it to push there")
        files = [
            hub.CommitOperationAdd(file, manifest.inside(bundle, file))
            for file in (manifest.NAME, *declared.files)
        ]
        with warnings.catch_warnings(action="ignore"):  # that the model card has no YAML
            done = api.create_commit(name, files, commit_message=f"headway bundle {declared.seal}")
    return f"{name}@{done.oid}"


def _cache() -> Path:
    """headway's folder in the place that the hub's library sets aside for others; read at each call."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{user}/huggingface"
    return Path(os.environ.get("HF_ASSETS_CACHE") or f"{home}/assets").expanduser() / "headway"


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _library() -> ModuleType:
    """`huggingface_hub`, without telemetry unless the user decided about it."""
    undecided = "HF_HUB_DISABLE_TELEMETRY" not in os.environ
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ModuleNotFoundError as error:
        raise UnavailableError("the package 'huggingface_hub'", "pip install 'headway[hub]'") from error
    if undecided:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # it may have been imported before
    return huggingface_hub


def _download(name: str, commit: str, folder: Path) -> None:
    """Make `folder`, whole or not at all. After a broken connection the next call goes on where this one ended."""
    partial = folder.with_name(f".{commit}.partial")
    try:
        _get(name, commit, manifest.NAME, partial)
        declared = manifest.Bundle.read(partial)
        for file in declared.files:
            manifest.inside(partial, file)
            _get(name, commit, file, partial)
            declared.verify(partial, [file])
    except BundleError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise BundleError(Path(f"{name}@{commit}"), error.problem) from error
    shutil.rmtree(partial / ".cache")  # the library's notes on its downloads
    os.rename(partial, folder)


def _get(name: str, commit: str, file: str, folder: Path) -> None:
    """Download one file to its place in a folder: the file itself, never a link into a cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        hf_hub_download(name, file, revision=commit, local_dir=folder, endpoint=_endpoint())
    except RemoteEntryNotFoundError as error:
        raise BundleError(folder, f"there is no {file} in it") from error


@contextmanager
def _told(reference: str, place: Path) -> Iterator[None]:
    """Raise whatever goes wrong between the hub and the folder `place` as one of headway's errors."""
    import httpx2  # the hub's library brings it and lets its errors through
    from huggingface_hub.errors import OIDCError

    try:
        yield
    except (httpx2.HTTPError, OIDCError, OSError, ValueError, RuntimeError) as error:  # the last: hf_xet
        raise _error(error, reference, place) from error


def _error(error: BaseException, reference: str, place: Path) -> HeadwayError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # what kept the library from asking the hub
    if isinstance(error, errors.HFValidationError):
        return UsageError(reference, str(error))
    if isinstance(error, errors.RepositoryNotFoundError):
        return BundleError(
            Path(reference), f"the hub has no such repository, or it is closed to you: {LOG_IN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BundleError(Path(reference), "its repository has no such commit")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return UnavailableError(reference, "HF_HUB_OFFLINE is set, and it was not fetched before")
    hub = f"the hub at {_endpoint() or constants.ENDPOINT}"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return UnavailableError(f"permission for {reference} on the hub", LOG_IN)
        return UnavailableError(hub, f"it answered {status}; try again later")
    if (
        isinstance(error, OSError)
        and error.errno is not None
        and not isinstance(error, ConnectionError | TimeoutError)
    ):
        return OutputError.of(place, error)
    return UnavailableError(hub, f"{type(error).__name__}: {error}; see to the connection, or HF_ENDPOINT")
