"""The loop with real threads and the real queue. Tests wait for what is to happen, never for a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.clock import SystemClock
from controller.domain.apps.requests import Outcome, ReconcileRequest, RequestState, Trigger
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.reconcile.deps import PassOutcome
from controller.reconcile.loop import ControlLoop
from controller.store import SqliteStore
from tests.support.failing import BUGS, Faults, failing_store
from tests.support.stores import open_store
from tests.support.waiting import wait_for

A, B = AppName("a"), AppName("b")


@dataclass
class Passes:
    """The work: counts, and waits at a gate if there is one."""

    gate: threading.Event | None = None
    outcome: Callable[[ReconcileRequest], PassOutcome] = lambda request: PassOutcome(
        Outcome.READY, "as declared", "c1"
    )
    seen: list[ReconcileRequest] = field(default_factory=list)
    now: dict[AppName, int] = field(default_factory=dict)
    most: int = 0
    overlaps: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: ReconcileRequest) -> PassOutcome:
        with self._lock:
            self.seen.append(request)
            self.now[request.app] = self.now.get(request.app, 0) + 1
            self.overlaps += self.now[request.app] > 1
            self.most = max(self.most, sum(self.now.values()))
        if self.gate:
            self.gate.wait()
        with self._lock:
            self.now[request.app] -= 1
        return self.outcome(request)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "state.db")
    yield made
    made.close()


@contextmanager
def turning(
    store: SqliteStore, work: Passes, workers: int = 4, beat: Callable[[], None] = lambda: None
) -> Iterator[ControlLoop]:
    stop = threading.Event()
    loop = ControlLoop(store, SystemClock(), work, workers, beat)
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield loop
    finally:
        stop.set()
        if work.gate:
            work.gate.set()
        thread.join()


def outcome_of(store: SqliteStore, request: int) -> str:
    found = store.requests.get(request)
    return found.outcome if found and found.state is RequestState.DONE else ""


def test_a_request_made_before_the_start_is_served(store: SqliteStore) -> None:
    request = store.requests.enqueue(A, Trigger.START)
    with turning(store, Passes()):
        wait_for(lambda: outcome_of(store, request))
    found = store.requests.get(request)
    assert found is not None
    assert (found.outcome, found.message, found.revision) == ("Ready", "as declared", "c1")


def test_requests_of_other_threads_are_seen(store: SqliteStore) -> None:
    with turning(store, Passes()):
        requests = [store.requests.enqueue(app, Trigger.WEBHOOK) for app in (A, B)]
        wait_for(lambda: all(outcome_of(store, request) for request in requests))


def test_wishes_for_a_running_app_are_gathered_into_one(store: SqliteStore) -> None:
    work = Passes(gate=threading.Event())
    with turning(store, work):
        store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: len(work.seen) == 1)
        later = {store.requests.enqueue(A, Trigger(reason)) for reason in ("webhook", "drift", "webhook")}
        assert len(later) == 1
        assert work.gate is not None
        work.gate.set()
        wait_for(lambda: outcome_of(store, later.pop()) if later else True)
        wait_for(lambda: len(work.seen) == 2)
    assert work.seen[1].reasons == ("webhook", "drift")


def test_an_app_is_never_in_two_passes_and_the_workers_are_shared(store: SqliteStore) -> None:
    work = Passes(gate=threading.Event())
    with turning(store, work, workers=2):
        for app in (A, B, AppName("c")):
            store.requests.enqueue(app, Trigger.POLL)
        wait_for(lambda: len(work.seen) == 2)
        for app in (A, B, AppName("c")):
            store.requests.enqueue(app, Trigger.DRIFT)
        assert work.gate is not None
        work.gate.set()
        wait_for(
            lambda: store.requests.next_due() is None and not any(work.now.values()) and len(work.seen) >= 5
        )
    assert (work.overlaps, work.most) == (0, 2)


def test_what_is_to_be_waited_for_is_asked_for_again(store: SqliteStore) -> None:
    work = Passes()
    work.outcome = lambda request: (
        PassOutcome(Outcome.WAITING, retry_after=0.0) if len(work.seen) < 3 else PassOutcome(Outcome.READY)
    )
    with turning(store, work):
        store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: len(work.seen) == 3)
    assert [request.reasons for request in work.seen] == [("poll",), ("retry",), ("retry",)]


def test_a_retry_is_not_due_before_its_time(store: SqliteStore) -> None:
    work = Passes(outcome=lambda request: PassOutcome(Outcome.WAITING, retry_after=3600.0))
    with turning(store, work):
        request = store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: outcome_of(store, request))
        other = store.requests.enqueue(B, Trigger.POLL)
        wait_for(lambda: outcome_of(store, other))
    queued = store.requests.queued(A)
    assert queued is not None
    assert queued.reasons == ("retry",)
    assert len([request for request in work.seen if request.app == A]) == 1


def test_stopping_waits_for_the_passes_under_way(store: SqliteStore) -> None:
    work = Passes(gate=threading.Event())
    stop = threading.Event()
    thread = threading.Thread(
        target=ControlLoop(store, SystemClock(), work, 2, lambda: None).run, args=(stop,)
    )
    request = store.requests.enqueue(A, Trigger.POLL)
    thread.start()
    wait_for(lambda: len(work.seen) == 1)
    stop.set()
    thread.join(timeout=0.0)
    assert thread.is_alive()
    assert outcome_of(store, request) == ""
    assert work.gate is not None
    work.gate.set()
    thread.join()
    assert outcome_of(store, request) == "Ready"


def test_the_heart_beats_while_the_loop_turns(store: SqliteStore) -> None:
    beats = threading.Event()
    with turning(store, Passes(), beat=beats.set):
        wait_for(beats.is_set)


STEPS = (
    "changed",
    "requests.claim",
    "requests.next_due",
    "requests.finish",
    "requests.enqueue",
    "transaction",
)


@pytest.mark.parametrize("bug", BUGS[:2], ids=lambda bug: type(bug()).__name__)
@pytest.mark.parametrize("step", [*STEPS, "work", "beat"])
def test_a_bug_in_any_step_ends_neither_the_loop_nor_the_work_of_others(
    store: SqliteStore, step: str, bug: Callable[[], Exception]
) -> None:
    """`a` meets the bug, in the step and when its outcome is written down; then both are served as ever."""
    faults = Faults()
    asked = store.requests.enqueue(A, Trigger.POLL)
    other = store.requests.enqueue(B, Trigger.POLL)
    faults.arm(step, [bug(), bug()])

    def work(request: ReconcileRequest) -> PassOutcome:
        if request.app == A and not faulty_pass_over.is_set():
            faulty_pass_over.set()
            faults.meet("work")
        return PassOutcome(Outcome.READY, retry_after=3600.0 if step == "requests.enqueue" else None)

    def beat() -> None:
        faults.meet("beat")
        beats.append(1)

    beats: list[int] = []
    faulty_pass_over = threading.Event()
    with turning(failing_store(store, faults), Passes(outcome=work), beat=beat):
        first = wait_for(lambda: outcome_of(store, asked))
        assert wait_for(lambda: outcome_of(store, other)) == "Ready"
        assert first == ("Failed" if step == "work" else "Ready")
        again = store.requests.enqueue(A, Trigger.DRIFT)
        wait_for(lambda: outcome_of(store, again))
        if step == "beat":
            wait_for(lambda: beats)
    assert faults.raised >= 1
    if step == "work":
        queued = store.requests.queued(A)
        assert queued is None or queued.reasons == ("retry",)


def test_a_step_that_always_fails_does_not_keep_the_others_from_working(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    def never() -> None:
        raise ZeroDivisionError

    with turning(store, Passes(), beat=never):
        request = store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: outcome_of(store, request))
    assert "could not write the heartbeat: bug: ZeroDivisionError" in caplog.text


def test_an_outcome_whose_text_cannot_be_written_is_written_without_it(store: SqliteStore) -> None:
    unwritable: Any = object()
    with turning(store, Passes(outcome=lambda request: PassOutcome(Outcome.FAILED, unwritable))):
        request = store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: outcome_of(store, request))
    found = store.requests.get(request)
    assert found is not None
    assert "could not be saved" in found.message


def test_a_state_that_does_not_answer_for_a_while_ends_nothing(store: SqliteStore) -> None:
    """Neither the loop, nor the app whose outcome could not be written."""
    faults = [
        Transient(Reason.STATE_BUSY, "the state is locked"),
        Transient(Reason.STATE_DISK_FULL, "no room"),
    ]
    finish = store.requests.finish

    def fails_at_first(request: int, outcome: str, message: str, revision: str) -> None:
        if faults:
            raise faults.pop()
        finish(request, Outcome(outcome), message, revision)

    store.requests.finish = fails_at_first  # type: ignore[method-assign]
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 1:
            raise Transient(Reason.STATE_BUSY, "the state is locked")

    with turning(store, Passes(), beat=beat):
        request = store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: outcome_of(store, request) == "Ready")
        again = store.requests.enqueue(A, Trigger.POLL)
        wait_for(lambda: outcome_of(store, again) == "Ready")
    assert faults == []
