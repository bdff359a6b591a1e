"""What follows from each reason ("retried", "waits", "stalled"), read from the source: the class of the error that has
it. `tests/unit/test_status_reference.py` holds docs/reference/status.md against it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from controller.domain.reasons import Reason

CONTROLLER = Path(__file__).parents[2] / "controller"

#: What errors say about the next step, in the words of the page.
NEXT = {"Transient": "retried", "Waiting": "waits", "Stalled": "stalled"}
_TABLES = {"ErrorRule"}  # (class of error, reason, …)


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Yield the controller's modules. The serving library is not among them: it runs in other people's images and
    imports nothing of ours."""
    for path in sorted(CONTROLLER.rglob("*.py")):
        module = path.relative_to(CONTROLLER)
        if module.parts[0] != "serving":
            yield module, ast.parse(path.read_text())


def reasons() -> dict[Reason, set[str]]:
    """Return how it goes on after each reason; an empty set where only a condition or an event gives it."""
    found: dict[Reason, set[str]] = {reason: set() for reason in Reason if reason}
    for _, tree in sources():
        for reason, follows in _in(tree):
            found[reason].add(follows)
    return found


def _in(tree: ast.Module) -> Iterator[tuple[Reason, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                yield from _own_reason(node)
            case ast.Call(args=[reason, *_]) if name_of(node.func) in NEXT:
                yield from ((each, NEXT[name_of(node.func)]) for each in members(reason))
            case ast.Call(args=[kind, reason, *_]) if name_of(node.func) in _TABLES and name_of(kind) in NEXT:
                yield from ((each, NEXT[name_of(kind)]) for each in members(reason))
            case ast.Tuple(elts=[kind, reason, *_]) if name_of(kind) in NEXT:
                yield from ((each, NEXT[name_of(kind)]) for each in members(reason))


def _own_reason(node: ast.ClassDef) -> Iterator[tuple[Reason, str]]:
    """A class of errors with a reason of its own: `super().__init__(Reason.…, …)`."""
    follows = [NEXT[name_of(base)] for base in node.bases if name_of(base) in NEXT]
    for call in ast.walk(node) if follows else ():
        if isinstance(call, ast.Call) and name_of(call.func) == "__init__":
            yield from ((each, follows[0]) for each in members(*call.args[:1]))


def members(*expressions: ast.AST) -> Iterator[Reason]:
    """Yield the reasons that are named within these expressions."""
    for expression in expressions:
        for node in ast.walk(expression):
            if isinstance(node, ast.Attribute) and name_of(node.value) == Reason.__name__:
                yield Reason[node.attr]


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
