"""A stand-in of the Hugging Face Hub on loopback: repositories with commits, made, written and read over HTTP."""

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1, sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

TOKEN = "hf_the_token_of_the_tests"

Files = dict[str, bytes]


@dataclass
class Repository:
    """Every commit's files, by its 40 hex digits; the last one is `main`."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)

    def commit(self, files: Files) -> str:
        listing = json.dumps({name: sha256(content).hexdigest() for name, content in sorted(files.items())})
        commit = sha1(listing.encode()).hexdigest()
        self.commits[commit] = files
        return commit

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


@dataclass
class Hub:
    """What the server knows, what it was asked, and what it shall break."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """method and path of each, in order"""
    broken: set[str] = field(default_factory=set)
    """files that it answers with 500"""

    def add(self, name: str, folder: Path) -> str:
        """A repository with the files of a folder; returns its commit."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.repositories[name] = Repository()
        return self.repositories[name].commit(files)

    def downloads(self) -> list[str]:
        """The files that were sent, in order."""
        sent = [r.partition("/resolve/")[2] for r in self.requests if r.startswith("GET ")]
        return [revision_and_file.partition("/")[2] for revision_and_file in sent if revision_and_file]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks for models, as the hub does."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match path.strip("/").split("/"):
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "models", owner, name] | ["api", "models", owner, name, "revision", "main"] if (
                repository := self._readable(f"{owner}/{name}")
            ):
                self._json(
                    {
                        "id": f"{owner}/{name}",
                        "private": repository.private,
                        "sha": repository.head,
                        "tags": [],
                    }
                )
            case ["api", "models", owner, name, "preupload", "main"]:
                self._preupload(self.hub.repositories[f"{owner}/{name}"], json.loads(body))
            case ["api", "models", owner, name, "commit", "main"]:
                self._commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case ["api", "models", owner, name, "tree", *_] if repository := self._readable(
                f"{owner}/{name}"
            ):
                self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", repository.head)  # no chat templates
            case [owner, name, "resolve", revision, *file] if repository := self._readable(f"{owner}/{name}"):
                self._resolve(repository, revision, "/".join(file))
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _readable(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        return repository if repository and (self._known or not repository.private) else None

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self._known:
            self._refuse(HTTPStatus.UNAUTHORIZED)
        elif name.startswith("others/"):
            self._refuse(HTTPStatus.FORBIDDEN)
        else:
            taken = name in self.hub.repositories
            new = Repository(private=wanted["visibility"] == "private")
            new.commit({".gitattributes": b"*.onnx filter=lfs\n"})
            self.hub.repositories.setdefault(name, new)
            status = HTTPStatus.CONFLICT if taken else HTTPStatus.OK
            self._json({"url": f"{self.hub.url}/{name}"}, status)

    def _preupload(self, repository: Repository, wanted: dict[str, Any]) -> None:
        """Every file's content comes in the commit itself; those that are there already, with their git hash."""
        there = repository.commits[repository.head]
        oids = {n: sha1(b"blob %d\0" % len(c) + c).hexdigest() for n, c in there.items()}
        names = [file["path"] for file in wanted["files"]]
        modes = [
            {"path": n, "uploadMode": "regular", "shouldIgnore": False, "oid": oids.get(n)} for n in names
        ]
        self._json({"files": modes})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.head])
        for line in lines[1:]:
            files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = repository.commit(files)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def _resolve(self, repository: Repository, revision: str, file: str) -> None:
        commit = repository.head if revision == "main" else revision
        if commit not in repository.commits:
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        elif file in self.hub.broken:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif file not in repository.commits[commit]:
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", commit)
        else:
            content = repository.commits[commit][file]
            self._send(content, HTTPStatus.OK, {"ETag": f'"{sha1(content).hexdigest()}"'} | _at(commit))

    def _refuse(self, status: HTTPStatus, code: str = "", commit: str | None = None) -> None:
        about = {"X-Error-Code": code} if code else {}
        self._send(b'{"error": "no"}', status, about | (_at(commit) if commit else {}))

    def _json(self, content: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _at(commit: str) -> dict[str, str]:
    return {"X-Repo-Commit": commit}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub without repositories, until the block ends."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
