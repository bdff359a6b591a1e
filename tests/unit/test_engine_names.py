"""What people read names the engine; Docker is named by its adapter, and by what is about Docker itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.pages import ROOT

#: Packages that do not know which engine there is.
NEUTRAL = ("domain", "ports", "reconcile", "runner", "store", "web", "daemon")


def files() -> list[Path]:
    found = [ROOT / "controller" / name for name in NEUTRAL]
    return [path for place in found for path in (place.rglob("*.py") if place.is_dir() else [place])]


def texts(tree: ast.Module) -> list[str]:
    """Texts of the program, without docstrings."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in constants if isinstance(node.value, str) and id(node) not in documented]


def test_the_core_names_no_engine() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in files()
        for text in texts(ast.parse(path.read_text()))
        if re.search(r"\bDocker\b", text)
    ]
    assert named == []


@pytest.mark.parametrize("package", NEUTRAL)
def test_packages_are_there(package: str) -> None:
    assert (ROOT / "controller" / package).exists()
