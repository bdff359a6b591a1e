"""Every reason code that the controller can give, read from its source: what it raises, conditions, events, holds.

A reason is a text in CamelCase at one of a few places. Found by the syntax tree, so that a new one cannot be forgotten
in docs/reference/status.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from controller.domain.apps.conditions import ConditionType

CONTROLLER = Path(__file__).parents[2] / "controller"
_CAMEL_CASE = re.compile(r"[A-Z][A-Za-z]*[a-z][A-Za-z]*")

#: What errors say about the next step, in the words of the page.
NEXT = {"Transient": "retried", "Waiting": "waits", "Stalled": "stalled"}
#: Calls with a reason among their arguments; those of `NEXT` raise it.
_GIVERS = {
    "Condition",
    "Event",
    "Hold",
    "Unresolved",
    "print_error",
    "record_event",
    "_record_event",
    "_report_once",
    "_failed",
    "_degraded",
    "_not_ready",
}
_TABLES = {"ErrorRule"}  # (class of error, reason, …)


def reasons() -> dict[str, set[str]]:
    """Reason -> how it goes on ("retried", "waits", "stalled"); an empty set where only a condition or an event
    gives it."""
    found: dict[str, set[str]] = {kind.value: set() for kind in ConditionType}
    for path in sorted(CONTROLLER.rglob("*.py")):
        if "serving" not in path.relative_to(CONTROLLER).parts[:1]:
            for reason, follows in _in(ast.parse(path.read_text())):
                found.setdefault(reason, set()).update(follows)
    return found


def _in(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                yield from _own_reason(node)
            case ast.Call(args=args) if _name(node.func) in NEXT:
                yield from _all(args[:1], {NEXT[_name(node.func)]})
            case ast.Call(args=[kind, reason, *_]) if _name(node.func) in _TABLES and _name(kind) in NEXT:
                yield from _all([reason], {NEXT[_name(kind)]})
            case ast.Tuple(elts=[kind, reason, *_]) if _name(kind) in NEXT:
                yield from _all([reason], {NEXT[_name(kind)]})
            case ast.Call(args=args) if _name(node.func) in _GIVERS:
                yield from _all(args, set())


def _own_reason(node: ast.ClassDef) -> Iterator[tuple[str, set[str]]]:
    """A class of errors with a reason of its own: `super().__init__("Reason", …)`."""
    follows = {NEXT[_name(base)] for base in node.bases if _name(base) in NEXT}
    for call in ast.walk(node) if follows else ():
        if isinstance(call, ast.Call) and _name(call.func) == "__init__":
            yield from _all(call.args[:1], follows)


def _all(arguments: list[ast.expr], follows: set[str]) -> Iterator[tuple[str, set[str]]]:
    for argument in arguments:
        for value in _values(argument):
            if (
                isinstance(value, ast.Constant)
                and isinstance(value.value, str)
                and _CAMEL_CASE.fullmatch(value.value)
            ):
                yield value.value, follows


def _values(argument: ast.expr) -> list[ast.expr]:
    match argument:
        case ast.BoolOp(values=values):
            return values
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
    return [argument]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
