"""Loops and threads that a bug does not end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.domain.backoff import Backoff
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.guards import GuardedGroup, GuardedStep, Pauses
from tests.support.waiting import wait_for


def test_pauses_grow_with_each_failure_in_a_row() -> None:
    pauses = Pauses(Backoff(1.0, 5.0))
    assert [pauses.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    pauses.reset()
    assert pauses.next() == 1.0


def test_a_step_that_failed_rests_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise KeyError("demo")

    step = GuardedStep("nothing is claimed", work)
    for _ in range(100):
        step()
    assert len(calls) == 1
    assert "nothing is claimed: bug: KeyError" in caplog.text
    assert "Traceback" in caplog.text
    caplog.clear()
    GuardedStep("nothing is claimed", _busy)()
    assert "nothing is claimed: the state is locked" in caplog.text
    assert "Traceback" not in caplog.text


def _busy() -> None:
    raise Transient(Reason.STATE_BUSY, "the state is locked")


@dataclass
class Told:
    parts: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, name: str, how: str) -> None:
        self.parts.append((name, how))
        if len(self.parts) == 1:
            raise RuntimeError("the state is locked")


def group(stop: threading.Event, told: Told) -> GuardedGroup:
    return GuardedGroup(stop, told.tell, first=0.001)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (None, "by itself"),
        (RuntimeError("a bug"), "by RuntimeError"),
        (SystemExit(0), "by SystemExit"),
        (KeyboardInterrupt(), "by KeyboardInterrupt"),
        (MemoryError(), "by MemoryError"),
    ],
    ids=repr,
)
def test_a_thread_that_ends_unasked_is_told_and_started_again(
    end: BaseException | None, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    stop, lives, told = threading.Event(), [], Told()

    def life(stop: threading.Event) -> None:
        lives.append(1)
        if len(lives) < 3:
            if end is not None:
                raise end
            return
        stop.wait()

    threads = group(stop, told)
    threads.thread("runner", life)
    wait_for(lambda: len(lives) == 3)
    stop.set()
    threads.join(60.0)
    assert told.parts == [("runner", how)] * 2
    assert f"runner ended {how} although nobody stopped it" in caplog.text
    assert threads.failed == ""


def test_a_thread_that_was_stopped_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    stop, lives, told = threading.Event(), [], Told()

    def life(stop: threading.Event) -> None:
        lives.append(1)
        stop.wait()

    threads = group(stop, told)
    threads.thread("runner", life)
    wait_for(lambda: lives)
    stop.set()
    threads.join(60.0)
    assert (lives, told.parts, caplog.text) == ([1], [], "")


def child(here: Path, ending: str) -> list[str]:
    """A program that notes its process and then does as `ending` says."""
    code = f"import os, signal, time; print(os.getpid(), file=open({str(here / 'lives')!r}, 'a')); {ending}"
    return [sys.executable, "-c", code]


def lives(here: Path) -> list[int]:
    path = here / "lives"
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=str)
def test_a_child_that_is_killed_is_told_and_started_again(tmp_path: Path, number: signal.Signals) -> None:
    stop, told = threading.Event(), Told()
    children = group(stop, told)
    children.child("web", child(tmp_path, "time.sleep(600)"))
    wait_for(lambda: len(lives(tmp_path)) == 1)
    os.kill(lives(tmp_path)[0], number)
    wait_for(lambda: len(lives(tmp_path)) == 2)
    assert told.parts == [("web", f"by {number.name}")]
    assert not stop.is_set()
    stop.set()
    children.join(60.0)
    with pytest.raises(ProcessLookupError):
        os.kill(lives(tmp_path)[1], 0)
    assert (len(told.parts), children.failed) == (1, "")


@pytest.mark.parametrize(
    ("ending", "starts", "how"),
    [
        ("os._exit(3)", 1, "with code 3"),  # it cannot even start
        ("os._exit(0)", 5, "with code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 5, "by SIGKILL"),
    ],
)
def test_a_child_that_cannot_live_ends_the_process(
    tmp_path: Path, ending: str, starts: int, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    stop, told = threading.Event(), Told()
    children = group(stop, told)
    children.child("web", child(tmp_path, ending))
    assert stop.wait(60)
    children.join(60.0)
    assert len(lives(tmp_path)) == starts
    assert told.parts == [("web", how)] * starts
    assert children.failed == f"web ended {how} and cannot be kept running; its log says why"
    assert children.failed in caplog.text


def test_a_child_that_cannot_be_started_ends_the_process(tmp_path: Path) -> None:
    stop, told = threading.Event(), Told()
    children = group(stop, told)
    children.child("web", [str(tmp_path / "missing")])
    assert stop.wait(60)
    children.join(60.0)
    assert children.failed.startswith("web ended ")


def test_a_step_that_ends_the_interpreter_rests_too(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        sys.exit(0)

    GuardedStep("nothing is claimed", work)()
    assert "nothing is claimed: bug: SystemExit" in caplog.text
