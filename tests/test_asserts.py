"""Under `python -O` no assert is run: none may do anything but look."""

import ast
from pathlib import Path

import pytest

import headway.core

ROOT = Path(headway.core.__file__).parents[1]
PARTS = ("bench", "cli", "core", "cpp_ext", "export", "runtime", "train")
LOOKING = {
    "all",
    "any",
    "callable",
    "hasattr",
    "isinstance",
    "issubclass",
    "len",
    "max",
    "min",
    "set",
    "sorted",
    "sum",
}
"""functions that an assert may call"""


def acting(source: str) -> list[int]:
    """Lines of asserts that call anything else, assign, await or yield."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            for part in ast.walk(node.test):
                called = isinstance(part, ast.Call) and not (
                    isinstance(part.func, ast.Name) and part.func.id in LOOKING
                )
                if called or isinstance(part, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
                    found.append(node.lineno)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_asserts_only_look(part: str) -> None:
    found = {
        p.relative_to(ROOT): lines for p in (ROOT / part).rglob("*.py") if (lines := acting(p.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "assert f(x)",
        "assert all(c.set(i) for i in x)",
        "assert x.pop()",
        "assert (y := x)",
        "assert not -f(x)",
    ],
)
def test_what_acts_is_seen(source: str) -> None:
    assert acting(source) == [1]
    assert acting("assert isinstance(x, int) and all(len(a) > 1 for a in x), f(x)") == []
