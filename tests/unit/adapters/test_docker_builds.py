"""How the classic builder's failures are read."""

from __future__ import annotations

from collections import deque

import pytest

from controller.adapters.docker.build_errors import BUILD_TAIL, build_failed, read_build
from controller.adapters.docker.builds import _is_no_step
from controller.domain.errors import Stalled, Transient
from controller.domain.text import MAX_MESSAGE


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (
            "failed to export image: failed to set parent sha256:5552: unknown parent image ID sha256:5552",
            Transient,
            "EngineConflict",
        ),
        ("No such image: sha256:5552", Transient, "EngineConflict"),
        (
            'failed to get destination image "sha256:5552": failed to get layer for image sha256:5552: x',
            Transient,
            "EngineConflict",
        ),
        ("The command '/bin/sh -c false' returned a non-zero code: 1", Stalled, "BuildFailed"),
        (
            "The command '/bin/sh -c echo No such image: sha256:5; exit 1' returned a non-zero code: 1",
            Stalled,
            "BuildFailed",
        ),
        ("No such image: example.org/none:1", Stalled, "BuildFailed"),
    ],
)
def test_a_cache_that_is_removed_meanwhile_is_not_the_commits_fault(
    text: str, kind: type[Exception], reason: str
) -> None:
    error = build_failed(text, deque(), "cannot build image x")
    assert isinstance(error, kind)
    assert getattr(error, "reason", "") == reason


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("failed to solve: no active session for 8f0c: context deadline exceeded", Transient),
        ('process "/bin/sh -c echo no active session; exit 1" did not complete: exit code: 1', Stalled),
    ],
)
def test_a_session_that_is_lost_is_not_the_commits_fault(text: str, kind: type[Exception]) -> None:
    error = build_failed(text, deque(), "cannot build image x")
    assert isinstance(error, kind)


def test_a_failed_build_is_told_by_its_last_lines_however_long_they_are() -> None:
    tail: deque[str] = deque(maxlen=BUILD_TAIL)
    for number in range(100):
        message = {"stream": f"{'x' * 1_000_000} line {number}\n"}
        read_build(message, tail, lambda line: None, str, "cannot build image x")
    error = build_failed("a non-zero code: 1" + "y" * 1_000_000, tail, "cannot build image x")
    assert isinstance(error, Stalled)
    assert len(error.message) < MAX_MESSAGE
    assert "a non-zero code: 1" in error.message
    assert error.message.endswith("line 99")


@pytest.mark.parametrize(
    ("state", "command", "is_one"),
    [
        ("created", "/bin/sh -c '#(nop) LABEL a=b'", True),
        ("running", "/bin/sh -c '#(nop) LABEL a=b'", False),
        ("created", "/bin/sh -c 'make'", False),
        ("created", "python3 -m mine", False),
    ],
)
def test_containers_of_cut_instructions_are_told_from_those_of_people(
    state: str, command: str, is_one: bool
) -> None:
    """Who starts a container from an image that was built here gives it the label of builds, too."""
    assert _is_no_step({"State": state, "Command": command}) is is_one
