"""The documentation's code blocks: found in the pages, checked, and run in order on small stand-ins of the models."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import filelock
import yaml

from headway.cli import main as cli
from headway.cli import run as recipes
from headway.core import files
from headway.core.progress import Progress, silent
from headway.export.options import ExportOptions
from tests import corpora
from tests.tiny_bert import tiny_bert

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_RUN = "not run by the tests"
"""begins the title of a block whose commands are only checked; the title says why"""
SHELL = ("sh", "bash")
KNOWN = (*SHELL, "python", "toml", "json", "text")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
ENCODER, WRITER, DECODER = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "facebook/bart-base",
    "openai-community/gpt2",
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        return not self.title.startswith(NOT_RUN)

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]*)"', match["rest"])
        indent = len(match["indent"])
        lines = "".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(page, line, match["language"], title[1] if title else "", lines))
    return found


def head(page: Path) -> dict[str, Any]:
    """A page's own facts, between lines of three hyphens at its beginning."""
    match = re.match(r"---\n(.*?)\n---\n", page.read_text("utf-8"), re.DOTALL)
    return yaml.safe_load(match[1]) if match else {}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a script, without redirections."""
    inner = re.compile(r"\$\(([^()]*)\)")
    for within in inner.findall(text):
        yield from commands(within)
    text = re.sub(r"(?m)^\s*#.*$", "", inner.sub("WORD", text.replace("\\\n", " ")))
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|&;()\n"):
            if words:
                yield _plain(words)
            words = []
        else:
            words.append(word)


def _plain(words: list[str]) -> list[str]:
    """Without what is redirected and variables that are set before."""
    cut = next((i for i, word in enumerate(words) if word and set(word) <= set("<>")), len(words))
    kept = words[:cut]
    while kept and re.match(r"\w+=", kept[0]):
        kept = kept[1:]
    return kept


def check_command(words: list[str]) -> str | None:
    """What is wrong with a command of a block that is not run, or None."""
    match words:
        case [] | ["cd" | "export", *_]:
            return None
        case ["headway", *arguments]:
            return _option_problem(arguments)
        case ["torchrun", *_] | ["python", "-m", "headway.cli.main", *_]:
            return _option_problem(words[words.index("headway.cli.main") + 1 :])
        case ["python", "-m", module, *_]:
            return None if importlib.util.find_spec(module) else f"no module {module}"
        case ["make", *targets]:
            known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            names = {t for t in targets if "=" not in t}
            return None if names <= known else f"make has no {names - known}"
        case ["pip", "install", *wanted]:
            return next((p for w in wanted if (p := _extra_problem(w))), None)
    return f"nothing checks '{words[0]}'"


def _option_problem(arguments: list[str]) -> str | None:
    if arguments[-1:] in (["--help"], ["--version"]):
        arguments = arguments[:-1]
        return None if not arguments or arguments[0] in cli.VERBS else f"no command {arguments[0]}"
    try:
        cli.app.parse_args(arguments, print_error=False, exit_on_error=False)
    except Exception as error:  # noqa: BLE001 (whatever it is, a reader would meet it)
        return str(error)
    return None


def _extra_problem(wanted: str) -> str | None:
    match = re.fullmatch(r"headway(?:\[([\w,]+)\])?", wanted)
    if match is None:
        return f"nothing checks the package '{wanted}'"
    unknown = set((match[1] or "cpu").split(",")) - set(metadata("headway").get_all("Provides-Extra") or [])
    return f"headway has no {unknown}" if unknown else None


def commands_outside_blocks(page: Path) -> list[str]:
    """Lines that are code by their indentation alone, where nothing would check them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return re.findall(r"(?m)^ {4,}(?:headway|python|pip|make|torchrun) .*$", text)


def check(block: Block) -> None:
    """Raise AssertionError for what can be seen without running it."""
    assert block.language in KNOWN, f"{block}: unknown language '{block.language}'"
    if block.language in SHELL:
        for words in commands(block.text):
            problem = _option_problem(words[1:]) if words[:1] == ["headway"] else None
            problem = problem if block.runs else check_command(words)
            assert problem is None, f"{block}: {shlex.join(words)}: {problem}"
    elif block.language == "python":
        for module, name in _imports(ast.parse(block.text)):
            if module.startswith("headway"):
                assert hasattr(importlib.import_module(module), name), f"{block}: {module} has no {name}"
    elif block.language == "toml":
        _check_recipe(block)
    elif block.language == "json":
        parts = block.text.splitlines() if block.title.endswith(".jsonl") else [block.text]
        for part in parts:
            json.loads(part)
    else:
        for line in block.text.splitlines():
            assert not re.match(r"\s*(headway|pip|python|make) ", line), (
                f"{block}: a command in a block of text"
            )


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def _check_recipe(block: Block) -> None:
    read = tomllib.loads(block.text)
    if {"task", "train"} <= read.keys():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.toml"
            path.write_text(block.text, encoding="utf-8")
            recipes._options(path, recipes._read(path).train)


def play(page: Path, folder: Path, shared: Path, apart: dict[str, str] | None = None) -> None:
    """Run a page's blocks in order in a folder; `shared` holds what is made once.

    Commands of headway alone and Python run in this process, unless `apart` is given: then all run in processes with
    this environment.
    """
    begin(page, folder, shared)
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder), exports_once():
        for block in blocks(page):
            if not block.runs or block.language == "text":
                continue
            if block.language in ("json", "toml"):
                if block.title:
                    path = folder / block.title
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text, encoding="utf-8")
            elif block.language == "python" and apart is None:
                code = compile(block.text, str(block), "exec")
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(code, names)  # noqa: S102 (the documentation's own)
            elif block.language == "python":
                _process([sys.executable, "-c", block.text], block, apart)
            elif apart is None and _of_headway_alone(block):
                for words in commands(block.text):
                    _headway(words[1:], block)
            else:
                _process(["bash", "-euo", "pipefail", "-c", block.text], block, apart)


@contextlib.contextmanager
def exports_once() -> Iterator[None]:
    """What was exported already, of the same weights by the same options, is copied: a page shows some things twice."""
    from headway.export import bundle

    export, made = bundle.export, dict[Any, bundle.Report]()

    def remembering(folder: Path, options: ExportOptions, progress: Progress = silent) -> bundle.Report:
        weights = Path(folder, "model.safetensors")
        key = weights.is_file() and (files.sha256(weights), replace(options, output=Path(), overwrite=False))
        if key not in made or not key:
            made[key] = export(folder, options, progress)
            return made[key]
        files.refuse_taken(options.output, options.overwrite)
        shutil.rmtree(options.output, ignore_errors=True)
        shutil.copytree(made[key].bundle, options.output)
        return replace(made[key], bundle=options.output)

    bundle.export = remembering
    try:
        yield
    finally:
        bundle.export = export


def _of_headway_alone(block: Block) -> bool:
    every = list(commands(block.text))
    return all(w[:1] == ["headway"] for w in every) and not re.search(
        r"[|&;<>$*]|^\w+=", block.text, re.MULTILINE
    )


def _headway(arguments: list[str], block: Block) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(arguments)
    assert code == 0, f"{block}: headway {shlex.join(arguments)}\n{err.getvalue()}"


def _process(command: list[str], block: Block, apart: dict[str, str] | None) -> None:
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = os.environ | here | (apart or {})
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{block}:\n{block.text}\n{ran.stdout}\n{ran.stderr}"


def begin(page: Path, folder: Path, shared: Path) -> None:
    """Put there what a page begins with: models by their names, the examples, and what tutorials left."""
    for name, make in MODELS.items():
        place = folder / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(once(shared / "models" / name, make))
    (folder / "examples").symlink_to(ROOT / "examples")
    for name, source in head(page).get("begins_with", {}).items():
        task, _, rest = source.partition("/")
        copied = tutorial(task, shared) / rest
        (shutil.copytree if copied.is_dir() else shutil.copyfile)(copied, folder / name)


def tutorial(task: str, shared: Path) -> Path:
    """What a task's tutorial leaves."""
    page = DOCS / "tutorials" / f"{task}.md"
    return once(shared / "tutorials" / task, lambda folder: play(page, folder, shared))


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that is made by the first process of a test run that asks for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            building = Path(f"{folder}.building")
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            make(building)
            building.rename(folder)
    return folder


def _encoder(folder: Path) -> None:
    """A tiny random BERT that reads 512 tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tiny_bert(folder, [*(r["text"] for r in corpora.texts("train")), *letters], length=512, layers=1)


def _writer(folder: Path) -> None:
    import transformers

    from tests.test_architectures import model_of

    model_of("bart", transformers.AutoModelForSeq2SeqLM, folder)


def _decoder(folder: Path) -> None:
    import transformers

    from tests.test_architectures import model_of

    model_of("gpt2", transformers.AutoModelForCausalLM, folder)


MODELS: dict[str, Callable[[Path], object]] = {ENCODER: _encoder, WRITER: _writer, DECODER: _decoder}
"""stand-ins of the models that the pages name"""
