"""The folder names are written in three places; this keeps them the same."""

import importlib
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {p.parent.name for p in ROOT.glob("*/__init__.py")}


def test_the_folders() -> None:
    assert {"core", "train", "export", "runtime", "bench", "cpp_ext", "cli", "examples"} == FOLDERS


def test_every_folder_is_mapped_into_the_package() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tool["scikit-build"]["wheel"]["packages"] == {f"headway/{f}": f for f in FOLDERS}
    assert set(tool["mypy"]["packages"]) == {f"headway.{f}" for f in FOLDERS}


def test_every_folder_is_linked_for_static_tools() -> None:
    cmake = (ROOT / "cpp_ext" / "CMakeLists.txt").read_text()
    (parts,) = re.findall(r"foreach\(part ([\w ]+)\)", cmake)
    assert set(parts.split()) == FOLDERS


def test_bare_imports_of_the_folders_are_banned() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert set(ruff["flake8-tidy-imports"]["banned-api"]) == FOLDERS
    assert "TID" in ruff["extend-select"]


def test_headway_is_a_namespace_package() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "headway").exists()
    for folder in FOLDERS:
        assert importlib.import_module(f"headway.{folder}").__doc__


def test_base_install_has_neither_pytorch_nor_an_engine() -> None:
    needed = [r for r in distribution("headway").requires or [] if "extra ==" not in r]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in needed}
    assert names == {"numpy", "tokenizers", "msgspec", "cyclopts", "tqdm"}
