"""Closed vocabularies are enums: the code names their members, and docs/reference describes each member.

mypy refuses a bare text where a reason, an outcome, a trigger or a cause is expected; the tests here refuse the ways
around it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import EventType
from controller.domain.open_enum import OpenEnum
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunCause
from tests.support.pages import ROOT
from tests.support.reasons import members, name_of, sources

VOCABULARIES = (Reason, Outcome, Trigger, RunCause, ConditionType, EventType)
#: Keywords and names of arguments that take a member.
WORDS = {"reason", "failure_reason", "outcome", "trigger", "cause"}
#: Where a text that looks like a reason is S3's own word, or a program without our modules reads it.
FOREIGN = ("adapters/objects/", "web/objects/", "adapters/post_receive.py", "domain/reasons.py")
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module", name="modules")
def _modules() -> list[tuple[Path, ast.Module]]:
    return list(sources())


def test_no_argument_takes_a_bare_word(modules: list[tuple[Path, ast.Module]]) -> None:
    bare = [
        f"{path}:{keyword.value.lineno}"
        for path, tree in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in WORDS and any(_words(keyword.value))
    ]
    assert bare == []


def test_no_reason_is_written_as_a_text(modules: list[tuple[Path, ast.Module]]) -> None:
    """Reasons of one word ("Failed") are words for other things, too; those of several words are reasons only."""
    several = {reason.value for reason in Reason if re.fullmatch(r"([A-Z][a-z]+){2,}", reason)}
    # what `prichal status` shows as a state, a key of Docker's answers, the name of a class
    several -= set(ConditionType) | {"NotReady", "ExitCode", "ConfigInvalid"}
    bare = [
        f"{path}:{node.lineno}: {node.value}"
        for path, tree in modules
        if not path.as_posix().startswith(FOREIGN)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in several
    ]
    assert bare == [], "name the member of Reason"


def test_no_member_is_made_up_on_the_spot(modules: list[tuple[Path, ast.Module]]) -> None:
    """`Reason("Oops")` would be a reason that nobody has documented."""
    names = {vocabulary.__name__ for vocabulary in VOCABULARIES}
    made_up = [
        f"{path}:{node.lineno}"
        for path, tree in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name_of(node.func) in names and any(_words(*node.args))
    ]
    assert made_up == []


def test_every_reason_is_given_somewhere(modules: list[tuple[Path, ast.Module]]) -> None:
    given = {reason for _, tree in modules for reason in members(tree)}
    # a new condition of these types is an event that is named after it
    assert set(Reason) - given - {ConditionType.DEGRADED, ConditionType.PRUNE_PENDING} == set()


@pytest.mark.parametrize(
    ("vocabulary", "pages"),
    [
        (Reason, "status runs"),
        (Outcome, "status"),
        (Trigger, "status"),
        (ConditionType, "status"),
        (RunCause, "runs"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_every_member_is_documented(vocabulary: type[Reason], pages: str) -> None:
    text = "".join((REFERENCE / f"{page}.md").read_text() for page in pages.split())
    described = set(re.findall(r"`(\w+)`", text))
    assert [member for member in vocabulary if member and member not in described] == []


@pytest.mark.parametrize("vocabulary", [Reason, Outcome, Trigger])
def test_what_another_release_has_stored_is_kept(vocabulary: type[OpenEnum]) -> None:
    unknown = vocabulary("FromTheFuture")
    assert (unknown, unknown.value, hash(unknown)) == (
        "FromTheFuture",
        "FromTheFuture",
        hash("FromTheFuture"),
    )
    assert unknown not in set(vocabulary)


def test_what_is_no_text_is_no_member() -> None:
    with pytest.raises(ValueError, match="5 is not a valid Reason"):
        Reason(5)  # type: ignore[arg-type]


def _words(*expressions: ast.expr) -> Iterator[str]:
    """Yield the texts among the possible values of these expressions; an empty one says that there is nothing."""
    for expression in expressions:
        match expression:
            case ast.Constant(value=str(text)) if text:
                yield text
            case ast.BoolOp(values=values):
                yield from _words(*values)
            case ast.IfExp(body=body, orelse=orelse):
                yield from _words(body, orelse)
