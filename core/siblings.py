"""Families of sibling modules (tasks, backends, precisions, peers): one file adds one member."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from headway.core.errors import UsageError


def names(family: str) -> list[str]:
    """Names of a family's members as users write them: module `text_classification` is "text-classification"."""
    package = importlib.import_module(family)
    modules = pkgutil.iter_modules(package.__path__)
    return sorted(m.name.replace("_", "-") for m in modules if m.name != "base")


def load(family: str, name: str, option: str) -> ModuleType:
    """Import one member. Raises UsageError, naming `option`, if the family has no such member."""
    known = names(family)
    if name not in known:
        raise UsageError(option, f"unknown '{name}'; known: {', '.join(known)}")
    return importlib.import_module(f"{family}.{name.replace('-', '_')}")
