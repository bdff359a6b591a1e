"""What conditions, events and failures say to people is made as a message (`domain/localizable.py`), so that pages can
show it in another language. Another text would be English for everybody."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import controller

ROOT = Path(controller.__file__).parent
PACKAGES = ("adapters", "domain/apps", "domain/runs", "domain/storage", "manifests", "reconcile", "runner")
#: What takes a message for people, as an argument.
TAKES = frozenset(
    (
        "Stalled",
        "Transient",
        "Waiting",
        "Superseded",
        "StageFailure",
        "Condition",
        "Event",
        "Hold",
        "ManifestProblem",
        "Finding",
        "ErrorRule",
        "translated",
        "_event",
        "problem",
    )
)
_WORDS = re.compile(r"[A-Za-z]{2,}[,;:]? +[A-Za-z{]")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)(?:!r)?\}")


def plain_messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each message that is not a `Localizable`."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and _name(call.func) in TAKES:
            for given in (*call.args, *(keyword.value for keyword in call.keywords)):
                if (text := _text(given)) and _WORDS.search(text):
                    yield given.lineno, text


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(given: ast.expr) -> str:
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        return given.value
    if isinstance(given, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in given.values)
    return ""


@pytest.mark.parametrize("package", PACKAGES)
def test_messages_can_be_translated(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT.parent)}:{line}: {text}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in plain_messages(path.read_text())
    ]
    advice = 'write Localizable("… {name}", name=name), and its Russian in web/locale/ru/work.po'
    assert not found, "\n".join([advice, *found])


def test_the_check_finds_them() -> None:
    source = (
        'raise Stalled(Reason.X, f"no box {name}")\nEvent(app, message="it is gone")\nStalled(Reason.X, why)'
    )
    assert [text for _, text in plain_messages(source)] == ["no box {}", "it is gone"]


def wrong_places(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and pattern of each message whose places are not those of its values: a place without a value would be
    shown as it is written."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and _name(call.func) in ("Localizable", "Text") and call.args:
            names = {keyword.arg for keyword in call.keywords}
            pattern = _text(call.args[0])
            if pattern and None not in names and {place[1] for place in _PLACE.finditer(pattern)} != names:
                yield call.lineno, pattern


def test_each_place_of_a_message_has_a_value() -> None:
    found = [
        f"{path.relative_to(ROOT.parent)}:{line}: {pattern}"
        for path in sorted(ROOT.rglob("*.py"))
        if ("Localizable(" in (source := path.read_text()) or "Text(" in source)
        for line, pattern in wrong_places(source)
    ]
    assert not found, "\n".join(found)


def test_that_check_finds_them() -> None:
    source = 'Localizable("{size} of {most}", size=1, file=2)\nText("{a!r}", a=1)\nLocalizable("{a: b}")\nText("", x=1)'
    assert [pattern for _, pattern in wrong_places(source)] == ["{size} of {most}"]
