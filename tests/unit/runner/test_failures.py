"""Whose fault it was; and that all reasons that a run can give are described."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from controller.domain.errors import ControllerError, Stalled, Transient, Waiting
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.ports import JobState, ObservedJob
from controller.runner import failures
from controller.runner.failures import failure_of_error, failure_of_job, too_slow
from tests.support.pages import ROOT
from tests.support.specs import make


def job(code: int, **rest: object) -> ObservedJob:
    return ObservedJob("i", "n", AppName("demo"), "r", "fit", 1, JobState.ENDED, exit_code=code, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason", "platform", "final"),
    [
        (Stalled(Reason.INPUT_MISSING, ""), "InputMissing", False, True),
        (Stalled(Reason.OUTPUT_MISSING, ""), "OutputMissing", False, False),
        (Stalled(Reason.STORAGE_FULL, "the box"), "StorageFull", False, True),
        (Transient(Reason.STORAGE_FULL, "its disk"), "StorageFull", True, False),
        (Stalled(Reason.IMAGE_NOT_FOUND, ""), "ImagePull", False, True),
        (Transient(Reason.REGISTRY_UNREACHABLE, ""), "ImagePull", True, False),
        (Transient(Reason.IMAGE_GONE, ""), "ImagePull", True, False),
        (Transient(Reason.ENGINE_DISK_FULL, ""), "DiskFull", True, False),
        (Stalled(Reason.STORAGE_DENIED, ""), "StorageDenied", True, True),
        (Stalled(Reason.NAME_TAKEN, ""), "NameTaken", True, True),
        (Waiting(Reason.REPOSITORY_EMPTY, "", 1.0), "RepositoryEmpty", True, False),
    ],
    ids=lambda value: f"{type(value).__name__} {value.reason}" if isinstance(value, ControllerError) else "",
)
def test_errors(error: ControllerError, reason: str, platform: bool, final: bool) -> None:
    found = failure_of_error(error)
    assert (found.reason, found.platform, found.final) == (reason, platform, final)


def test_who_stopped_it_knows_why() -> None:
    found = too_slow(make(Stage, "fit", "i", timeout=90.0))
    assert found.reason == "Timeout"
    assert "1m30s" in found.message


def test_out_of_memory_in_a_child_of_a_command_that_ended_well() -> None:
    assert failure_of_job(job(0, oom_killed=True), make(Stage, "fit", "i")) is None


def _given() -> Iterator[str]:
    """Reasons in the source of the runner, by the calls that give them."""
    for path in (ROOT / "controller" / "runner").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="StageFailure" | "Stalled" | "Transient"),
                    args=[ast.Attribute(value=ast.Name(id="Reason"), attr=reason), *_],
                ):
                    yield Reason[reason].value


def _described(page: str) -> Iterator[str]:
    """By the first cells of its tables."""
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text()
    for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE):
        yield from re.findall(r"`(\w+)`", cell)


def test_every_reason_is_described() -> None:
    given = {*_given(), failures.TIMEOUT, "Canceled", "DiskFull", "ImagePull", "NotRun", "Reused"}
    assert {"ExitCode", "OOMKilled", "InputMissing"} <= given, "the reader of the source finds them"
    assert given <= {*_described("runs"), *_described("status")}
