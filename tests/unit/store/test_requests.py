"""The rules of the queue, within one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controller.domain.apps.requests import WEBHOOK_INTERVAL, Outcome, RequestState, Trigger
from controller.domain.names import AppName
from controller.store import SqliteStore
from controller.store.requests import RequestQueue
from controller.store.sqlite import Database

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.store.conftest import HandClock

A, B = AppName("a"), AppName("b")


def test_a_second_wish_is_merged_into_the_queued_one(store: SqliteStore, clock: HandClock) -> None:
    first = store.requests.enqueue(A, Trigger.POLL, not_before=clock.at + 60)
    assert store.requests.enqueue(A, Trigger.WEBHOOK) == first
    assert store.requests.enqueue(A, Trigger.POLL, not_before=clock.at + 99) == first
    queued = store.requests.queued(A)
    assert queued is not None
    assert (queued.reasons, queued.not_before, queued.created) == (("poll", "webhook"), 0.0, clock.at)


def test_a_wish_for_a_running_app_waits_behind_it(store: SqliteStore, clock: HandClock) -> None:
    first = store.requests.enqueue(A, Trigger.POLL)
    running = store.requests.claim(clock.at)
    assert running is not None
    assert (running.id, running.state) == (first, RequestState.RUNNING)
    second = store.requests.enqueue(A, Trigger.WEBHOOK)
    assert second != first
    assert store.requests.claim(clock.at) is None
    assert store.requests.next_due() is None, "no moment makes it due: the running one has to end"
    store.requests.finish(first, Outcome.READY, "", "abc")
    claimed = store.requests.claim(clock.at)
    assert claimed is not None
    assert claimed.id == second


def test_a_burst_of_webhooks_is_two_passes(store: SqliteStore, clock: HandClock) -> None:
    """However short a pass is: what comes after it waits for the others of the burst."""
    began, passes = clock.at, 0
    for _ in range(1000):
        store.requests.enqueue(A, Trigger.WEBHOOK)
        if running := store.requests.claim(clock.at):
            store.requests.finish(running.id, Outcome.READY, "", "abc")
            passes += 1
        clock.at += WEBHOOK_INTERVAL / 1001
    assert passes == 1
    assert store.requests.next_due() == began + WEBHOOK_INTERVAL
    last = store.requests.claim(began + WEBHOOK_INTERVAL)
    assert last
    store.requests.finish(last.id, Outcome.READY, "", "abc")
    assert store.requests.next_due() is None


@pytest.mark.parametrize("state", [RequestState.RUNNING, RequestState.DONE])
@pytest.mark.parametrize(
    ("before", "trigger", "waits"),
    [
        (Trigger.WEBHOOK, Trigger.WEBHOOK, True),
        (Trigger.POLL, Trigger.WEBHOOK, False),
        (Trigger.WEBHOOK, Trigger.PUSH, False),
        (Trigger.WEBHOOK, Trigger.MANUAL, False),
    ],
)
def test_only_a_webhook_behind_a_webhook_waits(
    store: SqliteStore, clock: HandClock, state: RequestState, before: Trigger, trigger: Trigger, waits: bool
) -> None:
    first = store.requests.enqueue(A, before)
    assert store.requests.claim(clock.at)
    if state is RequestState.DONE:
        store.requests.finish(first, Outcome.READY, "", "abc")
    store.requests.enqueue(B, Trigger.WEBHOOK)
    store.requests.enqueue(A, trigger)
    queued, other = store.requests.queued(A), store.requests.queued(B)
    assert queued is not None
    assert other is not None
    assert queued.not_before == (clock.at + WEBHOOK_INTERVAL if waits else 0.0)
    assert other.not_before == 0.0
    if waits:  # a person does not wait for it
        store.requests.enqueue(A, Trigger.MANUAL)
        queued = store.requests.queued(A)
        assert queued is not None
        assert queued.not_before == 0.0


def test_a_request_is_not_due_before_its_time(store: SqliteStore, clock: HandClock) -> None:
    request = store.requests.enqueue(A, Trigger.RETRY, not_before=clock.at + 10)
    assert store.requests.claim(clock.at + 9.9) is None
    assert store.requests.next_due() == clock.at + 10
    claimed = store.requests.claim(clock.at + 10)
    assert claimed is not None
    assert claimed.id == request


def test_what_has_been_due_longest_comes_first(store: SqliteStore, clock: HandClock) -> None:
    late = store.requests.enqueue(A, Trigger.RETRY, not_before=clock.at + 50)
    clock.at += 20
    early = store.requests.enqueue(B, Trigger.WEBHOOK)
    claimed = [store.requests.claim(clock.at + 100) for _ in range(2)]
    assert [request.id for request in claimed if request] == [early, late]


def test_a_finished_request_tells_its_outcome_and_keeps_it(store: SqliteStore, clock: HandClock) -> None:
    request = store.requests.enqueue(A, Trigger.PUSH)
    store.requests.claim(clock.at)
    store.requests.finish(request, Outcome.DEGRADED, "not ready", "abc123")
    store.requests.finish(request, Outcome.READY, "told twice", "def456")
    done = store.requests.get(request)
    assert done is not None
    assert (done.state, done.outcome, done.message, done.revision) == (
        RequestState.DONE,
        "Degraded",
        "not ready",
        "abc123",
    )


def test_an_id_that_was_never_given_is_unknown(store: SqliteStore) -> None:
    assert store.requests.get(1) is None
    assert store.requests.queued(A) is None
    assert store.requests.next_due() is None


def test_recovery_queues_again_what_was_running(store: SqliteStore, clock: HandClock) -> None:
    request = store.requests.enqueue(A, Trigger.POLL)
    store.requests.claim(clock.at)
    assert store.requests.recover() == 1
    assert store.requests.recover() == 0
    claimed = store.requests.claim(clock.at)
    assert claimed is not None
    assert claimed.id == request


def test_recovery_hands_over_to_the_request_that_is_queued_already(
    store: SqliteStore, clock: HandClock
) -> None:
    dead = store.requests.enqueue(A, Trigger.POLL)
    other = store.requests.enqueue(B, Trigger.POLL)
    store.requests.claim(clock.at)
    store.requests.claim(clock.at)
    clock.at += 5
    heir = store.requests.enqueue(A, Trigger.WEBHOOK, not_before=clock.at + 100)
    assert store.requests.recover() == 2

    claimed = [store.requests.claim(clock.at) for _ in range(3)]
    assert [request and request.id for request in claimed] == [other, heir, None], "due at once, in its place"
    follower = store.requests.get(heir)
    assert follower is not None
    assert follower.reasons == ("poll", "webhook")

    asked = store.requests.get(dead)
    assert asked is not None
    assert (asked.id, asked.state) == (dead, RequestState.RUNNING), "the id handed out tells how it goes on"
    store.requests.finish(heir, Outcome.READY, "all well", "abc")
    asked = store.requests.get(dead)
    assert asked is not None
    assert (asked.id, asked.outcome, asked.revision) == (dead, "Ready", "abc")


def test_an_id_survives_several_crashes(store: SqliteStore, clock: HandClock) -> None:
    first = store.requests.enqueue(A, Trigger.POLL)
    last = first
    for _ in range(4):
        claimed = store.requests.claim(clock.at)
        assert claimed is not None
        last = store.requests.enqueue(A, Trigger.WEBHOOK)
        store.requests.recover()
    claimed = store.requests.claim(clock.at)
    assert claimed is not None
    assert claimed.id == last
    store.requests.finish(last, Outcome.READY, "", "abc")
    asked = store.requests.get(first)
    assert asked is not None
    assert (asked.id, asked.outcome) == (first, "Ready")


@pytest.fixture
def short_queue(store: SqliteStore, path: Path, clock: HandClock) -> RequestQueue:
    return RequestQueue(Database(path), clock, keep_done=3)


def test_only_the_newest_finished_requests_of_an_app_are_kept(
    short_queue: RequestQueue, clock: HandClock
) -> None:
    other = short_queue.enqueue(B, Trigger.POLL)
    short_queue.claim(clock.at)
    short_queue.finish(other, Outcome.READY, "", "")
    ids = []
    for _ in range(5):
        ids.append(short_queue.enqueue(A, Trigger.POLL))
        short_queue.claim(clock.at)
        short_queue.finish(ids[-1], Outcome.READY, "", "")
    kept = [request for request in ids if short_queue.get(request)]
    assert kept == ids[-3:]
    assert short_queue.get(other) is not None
    assert short_queue.enqueue(A, Trigger.POLL) > ids[-1], "an id never comes to mean another request"
