"""A model is fetched from the hub by its name: against a stand-in of the hub on loopback."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves `/<owner>/<name>/resolve/<revision>/<file>` from a folder, as the hub does."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        owner, name, kind, *rest = [*self.path.partition("?")[0].strip("/").split("/"), "", "", ""]
        file = self.folder / (rest[1] if len(rest) > 1 and rest[1] else "-")
        known = (owner, name, kind) == ("tester", "tiny-bert", "resolve") and file.is_file()
        content = file.read_bytes() if known else json.dumps({"error": "not found"}).encode()
        self.send_response(200 if known else 404)
        if known:
            self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        elif "/tester/tiny-bert/" in self.path:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(pretrained: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, pretrained))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _train(hub: str, model: str, train_file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = f"train text-classification --model {model} --max-length 32 --epochs 1 --threads 1"
    return subprocess.run(
        [
            *(sys.executable, "-m", "headway.cli.main", *command.split()),
            *("--train", str(train_file), "--output", str(folder / "checkpoint")),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_is_fetched_by_name(hub: str, train_file: Path, tmp_path: Path) -> None:
    done = _train(hub, "tester/tiny-bert", train_file, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "checkpoint" / "headway.json").read_text())["model"] == "tiny-bert"


def test_an_unknown_name_is_told(hub: str, train_file: Path, tmp_path: Path) -> None:
    done = _train(hub, "tester/nothing", train_file, tmp_path)
    assert done.returncode == 3
    assert "checkpoint tester/nothing: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoint").exists()
