"""A function fits on a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.pages import ROOT

MOST = 50  # lines, with its head


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return its lines of code: those of a long text within it, such as a script, count as one."""
    texts = (node for node in ast.walk(function) if isinstance(node, ast.Constant | ast.JoinedStr))
    within = {line for text in texts for line in range(text.lineno + 1, (text.end_lineno or 0) + 1)}
    return len(set(range(function.lineno, (function.end_lineno or 0) + 1)) - within)


def test_no_function_is_longer_than_a_screen() -> None:
    packages = ROOT / "controller"
    files = [path for path in packages.rglob("*.py") if "orjson" not in path.relative_to(packages).parts]
    assert files
    long = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {function.name} has {lines(function)} lines"
        for path in files
        for function in functions(path)
        if lines(function) > MOST
    ]
    assert not long, f"split functions of more than {MOST} lines"
