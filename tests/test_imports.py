"""DESIGN's "may import" table, read off the sources, and what is importable with the base dependencies alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PARTS = ("core", "train", "export", "runtime", "bench", "cpp_ext", "cli")
ENGINES = {"onnxruntime", "openvino", "tensorrt"}
HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "optimum",
    "accelerate",
    "datasets",
    "peft",
    "sentence_transformers",
    "sklearn",
    "huggingface_hub",
} | ENGINES
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {  # folder -> (parts of headway, heavy libraries)
    "core": (set(), {"datasets", "huggingface_hub"}),  # inside the functions that need them
    "cpp_ext": (set(), set()),
    "runtime": (
        {"core", "cpp_ext"},
        ENGINES | {"sklearn"},
    ),  # the clusters of an index, where they are asked for
    "train": ({"core"}, {"torch", "transformers", "accelerate", "peft", "huggingface_hub"}),
    "export": (
        {"core", "train", "runtime"},
        {
            "sentence_transformers",
            "torch",
            "transformers",
            "onnx",
            "onnx_ir",
            "onnxscript",
            "optimum",
            "onnxruntime",
        },
    ),  # the engine, to look inside a graph
    "bench": (set(PARTS) - {"cli"}, HEAVY),
    "cli": (set(PARTS), HEAVY),
}
NEED_MORE = (
    "headway.bench.epoch",
    "headway.bench.few_shot",
    "headway.bench.gpu_check",
    "headway.bench.pipeline",
    "headway.bench.leaderboard",
    "headway.bench.precisions",
    "headway.bench.quality",
    "headway.bench.baselines",
    "headway.bench.plain.",
)
"""what measures training itself, beside plain scripts"""
BLOCKED = ["torch", "transformers", "onnx", "onnx_ir", "optimum", "onnxruntime", "pyarrow", "psutil"]
BLOCKED += ["huggingface_hub", "filelock", "httpx2"]


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            if node.module == "headway":
                yield from (f"headway.{alias.name}" for alias in node.names)


def parts_of_headway(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("headway.")}


def heavy_libraries(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)} & HEAVY


def test_every_folder_has_a_row() -> None:
    assert {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"examples", "tests"} == set(MAY_IMPORT)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_may_import(folder: str) -> None:
    parts, libraries = MAY_IMPORT[folder]
    assert sources(folder)
    for path in sources(folder):
        assert parts_of_headway(path) <= parts | {folder}, path
        assert heavy_libraries(path) <= libraries, path


def test_what_is_forbidden_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    import torch.nn\n    from headway import cli, core\n")
    assert heavy_libraries(tmp_path / "a.py") == {"torch"}
    assert parts_of_headway(tmp_path / "a.py") == {"cli", "core"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["headway", *parts]).removesuffix(".__init__")


def test_base_dependencies_are_enough() -> None:
    """Only `train`, `export` and NEED_MORE need more: all others import without engine or training library."""
    folders = ["core", "runtime", "cli", "bench", "cpp_ext"]
    every = [module_name(path) for folder in folders for path in sources(folder)]
    assert all(any(name.startswith(more) for name in every) for more in NEED_MORE)
    names = [name for name in every if not name.startswith(NEED_MORE)]
    code = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
for name in {names}:
    importlib.import_module(name)
print(len({names}), "imported")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr == ""
    assert found.stdout == f"{len(names)} imported\n"
