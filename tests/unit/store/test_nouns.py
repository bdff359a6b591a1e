"""Apps, events, routes, gateways and repositories as the store keeps them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import AppStatus, Event, EventType, RepositoryRecord, WebhookDelivery
from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.localizable import Localizable, as_document
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Route
from controller.domain.text import MAX_MESSAGE
from controller.store import SqliteStore
from controller.store.events import MOST_TEXT
from tests.support.stores import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.store.conftest import HandClock

DAY = 86400.0
A, B = AppName("a"), AppName("b")
C = ComponentName("c")


@pytest.fixture
def other(store: SqliteStore, path: Path) -> SqliteStore:
    """The same state as another process sees it."""
    other = open_store(path)
    other.changed()
    return other


def event(app: AppName, reason: str, at: float = 0.0) -> Event:
    return Event(app, EventType.NORMAL, Reason(reason), "it happened", at=at)


# --- apps


def test_an_unknown_app_has_an_empty_status(store: SqliteStore) -> None:
    assert store.apps.status(A) == AppStatus(A)
    assert store.apps.all() == ()


def test_status_and_events_are_saved_together(
    store: SqliteStore, other: SqliteStore, clock: HandClock
) -> None:
    status = AppStatus(A, applied_revision="abc", failures=2)
    store.apps.save(status, [event(A, "Deployed")])
    assert other.apps.all() == (status,)
    assert [(e.reason, e.at) for e in other.events.list(A)] == [("Deployed", clock.at)]


def test_saving_what_is_stored_writes_nothing(store: SqliteStore, other: SqliteStore) -> None:
    status = AppStatus(A, applied_revision="abc")
    store.apps.save(status)
    assert other.changed()
    store.apps.save(status)
    store.apps.save(replace(status, suspended=True))
    assert not other.changed()


def test_a_reconcile_does_not_undo_what_a_person_decided_meanwhile(store: SqliteStore) -> None:
    before = store.apps.status(A)
    store.apps.set_suspended(A, True)
    store.apps.approve(A, "abc")
    store.apps.save(replace(before, applied_revision="abc"))
    assert store.apps.status(A) == AppStatus(
        A, applied_revision="abc", suspended=True, approved_revision="abc"
    )
    store.apps.set_suspended(A, False)
    assert not store.apps.status(A).suspended


def test_a_plan_is_stored_before_it_is_acted_on(store: SqliteStore, other: SqliteStore) -> None:
    store.apps.save(AppStatus(A, applied_revision="old", failures=1))
    store.apps.record_plan(A, "new", "plan a @ new")
    assert other.apps.status(A) == AppStatus(
        A, applied_revision="old", attempted_revision="new", plan="plan a @ new", failures=1
    )


def test_a_forgotten_app_leaves_its_history_for_a_while(store: SqliteStore, clock: HandClock) -> None:
    store.apps.save(AppStatus(A), [event(A, "Removed")])
    store.apps.forget(A)
    assert store.apps.all() == ()
    assert [e.reason for e in store.events.list(A)] == ["Removed"]
    store.apps.save(AppStatus(B), [event(B, "Ready")])
    clock.at += 89 * DAY
    store.prune()
    assert [e.reason for e in store.events.list(None)] == ["Removed", "Ready"]
    clock.at += 2 * DAY
    store.prune()
    assert [e.reason for e in store.events.list(None)] == ["Ready"], "a connected app keeps its history"


def test_what_is_old_is_pruned(store: SqliteStore, clock: HandClock) -> None:
    done = store.requests.enqueue(A, Trigger.PUSH)
    store.requests.claim(clock.at)
    store.requests.finish(done, Outcome.READY, "", "")
    delivery = WebhookDelivery("d-1", "demo", (done,), clock.at)
    store.repositories.remember(delivery)
    clock.at += 29 * DAY
    store.prune()
    assert store.requests.get(done) is not None
    assert store.repositories.delivery("demo", "d-1") == delivery
    waiting = store.requests.enqueue(B, Trigger.POLL)
    clock.at += 40 * DAY
    store.prune()
    assert store.requests.get(done) is None
    assert store.repositories.delivery("demo", "d-1") is None
    assert store.requests.get(waiting) is not None, "what is not done is not old"


# --- events


def test_events_are_listed_oldest_first(store: SqliteStore) -> None:
    store.events.add([event(A, "One"), event(B, "Two"), event(A, "Three")])
    assert [e.reason for e in store.events.list(None)] == ["One", "Two", "Three"]
    assert [e.reason for e in store.events.list(None, limit=2)] == ["Two", "Three"], "the newest ones"
    assert [e.reason for e in store.events.list(A)] == ["One", "Three"]
    first = store.events.list(None)[0]
    assert [e.reason for e in store.events.list(None, after=first.id, limit=1)] == ["Two"], "the next ones"


def test_the_history_of_an_app_is_bounded(store: SqliteStore) -> None:
    store.events.add([event(B, "Other")])
    store.events.add(event(A, f"E{n}") for n in range(12))
    assert [e.reason for e in store.events.list(A)] == ["E7", "E8", "E9", "E10", "E11"]
    assert [e.reason for e in store.events.list(B)] == ["Other"]


def test_events_are_bounded_in_what_they_say(tmp_path: Path) -> None:
    """Of each app by itself, the newest stay."""
    store = open_store(tmp_path / "db" / "other.db", keep_events=10_000)
    other = Event(B, EventType.NORMAL, Reason.READY, "all is well")
    store.events.add([other])
    long = "x" * MAX_MESSAGE
    for number in range(MOST_TEXT // MAX_MESSAGE + 50):
        store.events.add(
            [Event(A, EventType.WARNING, Reason.BUILD_FAILED, f"{number:04}{long}"[:MAX_MESSAGE])]
        )
    kept = store.events.list(A, limit=10_000)
    assert sum(len(event.message) for event in kept) <= MOST_TEXT
    assert [event.message[:4] for event in kept][-1] == f"{MOST_TEXT // MAX_MESSAGE + 49:04}"
    assert len(kept) == MOST_TEXT // MAX_MESSAGE
    assert len(store.events.list(B)) == 1
    store.close()


def test_an_event_keeps_all_its_parts(store: SqliteStore) -> None:
    told = Event(A, EventType.WARNING, Reason("Crashed"), "exit 137 – пам'ять", C, "abc", 12.25)
    store.events.add([told])
    (found,) = store.events.list(A)
    assert replace(found, id=0) == told
    assert found.id > 0


# --- routes


def route(app: AppName = A, upstreams: tuple[str, ...] = ("172.18.0.2:8002",)) -> Route:
    return Route(app, C, "1:aa", "abc", upstreams, (Api("image", C, True, users=(("ann", "scrypt:…"),)),))


def test_a_switch_is_one_version_of_the_table(store: SqliteStore, other: SqliteStore) -> None:
    assert other.routes.version() == 0
    assert store.routes.switch(route(B)) == 1
    assert store.routes.switch(route(A)) == 2
    assert store.routes.switch(route(A, ("172.18.0.3:8002",))) == 3
    assert other.routes.all() == (route(A, ("172.18.0.3:8002",)), route(B))
    assert other.routes.of(B) == (route(B),)
    assert other.routes.version() == 3


def test_a_route_in_force_already_changes_nothing(store: SqliteStore, other: SqliteStore) -> None:
    version = store.routes.switch(route())
    other.changed()
    assert store.routes.switch(route()) == version


def test_withdrawing(store: SqliteStore) -> None:
    store.routes.switch(route())
    assert store.routes.withdraw(A, C) == 2
    assert store.routes.all() == ()
    assert store.routes.withdraw(A, C) == 2, "what is not there is not withdrawn again"


# --- gateways


def test_drained_once_every_worker_has_switched_and_ended_its_requests(store: SqliteStore) -> None:
    old = "172.18.0.2:8002"
    assert store.gateways.drained(old, 5, now=100.0), "nobody serves"
    store.gateways.report("w1", 5, frozenset({old, "172.18.0.9:80"}), now=100.0)
    store.gateways.report("w2", 4, frozenset(), now=100.0)
    assert not store.gateways.drained(old, 5, now=101.0)
    store.gateways.report("w1", 5, frozenset(), now=101.0)
    assert not store.gateways.drained(old, 5, now=101.0), "w2 has not loaded the switch"
    store.gateways.report("w2", 6, frozenset(), now=101.0)
    assert store.gateways.drained(old, 5, now=101.0)


def test_a_worker_that_left_or_died_holds_nothing_up(store: SqliteStore) -> None:
    old = "172.18.0.2:8002"
    store.gateways.report("leaves", 1, frozenset({old}), now=100.0)
    store.gateways.report("dies", 1, frozenset({old}), now=100.0)
    store.gateways.leave("leaves")
    assert not store.gateways.drained(old, 1, now=102.9)
    assert store.gateways.drained(old, 1, now=103.1)


# --- activity


def test_the_last_use_of_each_component(store: SqliteStore, other: SqliteStore) -> None:
    d = ComponentName("d")
    store.activity.touch([(A, C), (A, d), (B, C)], at=100.0)
    other.activity.touch([(A, C)], at=105.0)
    store.activity.touch([(A, C)], at=104.0)  # told later, used earlier
    assert store.activity.of(A) == {C: 105.0, d: 100.0}
    assert store.activity.of(AppName("nobody")) == {}


def test_calls_of_long_ago_are_forgotten(store: SqliteStore, clock: HandClock) -> None:
    store.activity.touch([(A, C)], at=clock.at - 91 * DAY)
    store.activity.touch([(B, C)], at=clock.at - 89 * DAY)
    store.prune()
    assert (store.activity.of(A), store.activity.of(B)) == ({}, {C: clock.at - 89 * DAY})


# --- repositories


def test_repositories_are_replaced_as_a_whole(store: SqliteStore, other: SqliteStore) -> None:
    demo = RepositoryRecord("demo", (A, B), "branch:main", 60.0, "github", "s3cret")
    store.repositories.replace([RepositoryRecord("old", (), "tag:v1", 0.0), demo])
    store.repositories.replace([demo])
    assert other.repositories.all() == (demo,)
    assert other.repositories.get("demo") == demo
    assert other.repositories.get("old") is None


def test_replacing_repositories_with_the_same_writes_nothing(store: SqliteStore, other: SqliteStore) -> None:
    demo = RepositoryRecord("demo", (A,), "branch:main", 60.0)
    store.repositories.replace([demo])
    assert other.changed()
    store.repositories.replace([demo])
    assert not other.changed()


def test_a_delivery_is_new_once(store: SqliteStore) -> None:
    delivery = WebhookDelivery("d-1", "demo", (7, 8), 12.0)
    assert store.repositories.remember(delivery)
    assert not store.repositories.remember(replace(delivery, requests=()))
    assert store.repositories.remember(replace(delivery, repository="other"))
    assert store.repositories.delivery("demo", "d-1") == delivery
    assert store.repositories.delivery("demo", "d-2") is None


# --- heartbeat


def test_the_last_heartbeat(store: SqliteStore, other: SqliteStore) -> None:
    assert other.last_heartbeat() is None
    store.heartbeat(10.0)
    store.heartbeat(12.5)
    assert other.last_heartbeat() == 12.5


def test_shares_of_living_workers_are_told(store: SqliteStore) -> None:
    calls = TakenShare(AppName("demo"), Resource.CALLS, 3)
    checks = TakenShare(AppName("demo"), Resource.PASSWORD_CHECKS, 2)
    store.gateways.report("w1", 1, frozenset(), 100.0, (calls, checks))
    store.gateways.report("w2", 1, frozenset(), 100.0, (calls,))
    store.gateways.report("w3", 1, frozenset(), 100.0)
    assert sorted(each.resource for each in store.gateways.taken(101.0)) == sorted(
        [calls.resource, calls.resource, checks.resource]
    )
    store.gateways.report("w1", 1, frozenset(), 101.0)
    assert store.gateways.taken(101.0) == (calls,), "w1 has none any more"
    assert store.gateways.taken(110.0) == (), "w2 is dead"
    store.gateways.report("w2", 1, frozenset(), 110.0, (calls,))
    store.gateways.leave("w2")
    assert store.gateways.taken(110.0) == ()


def test_events_keep_what_their_messages_are_made_of(store: SqliteStore, path: Path) -> None:
    message = Localizable("pipelines: {why}", why=Localizable("new: {names}", names="train"))
    store.events.add([Event(A, EventType.NORMAL, Reason.PUBLISHED, message)])
    (found,) = store.events.list(A)
    assert isinstance(found.message, Localizable)
    assert as_document(found.message) == as_document(message)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE events SET message = 'others wrote this'")
    (found,) = store.events.list(A)
    assert (found.message, type(found.message)) == ("others wrote this", str)
