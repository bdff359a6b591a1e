"""Notifications from processes that are killed at each of their steps: receivers hear about each problem and each end,
and recognise what arrives twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.status import AppStatus, Event, EventType
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import check_id
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.domain.reasons import Reason
from controller.store import SqliteStore
from tests.support.receivers import Receiver, receiver
from tests.support.serve_runner import settings_of
from tests.support.serving_processes import serving
from tests.support.specs import make
from tests.support.stores import open_store
from tests.support.waiting import wait_for

APP, TEAM = AppName("demo"), ComponentName("team")
READY = Condition(ConditionType.READY, True, Reason.READY, "1 component as declared")
BROKEN = Condition(ConditionType.DEGRADED, True, Reason.CRASH_LOOP, "it ends again and again")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(settings_of(tmp_path, "notifications").database)) as opened:
        yield opened


def told(there: Receiver) -> list[tuple[int, int, int]]:
    """Return how much each message has, without repetitions: problems, ends, and notices."""
    messages = {one.id: one.json["data"] for one in there.received}
    return [(len(m["problems"]), len(m["over"]), len(m["notices"])) for m in messages.values()]


def settled(store: SqliteStore) -> bool:
    stored = store.notifications.get(APP, TEAM)
    assert stored
    return stored.state.message is None and not store.notifications.notices()[0]


@pytest.mark.parametrize("call", ["advance", "take", "record", "delivered"])
def test_killed_at_each_step(call: str, tmp_path: Path, store: SqliteStore) -> None:
    with receiver() as there:
        no_waits = {"group_wait": 0.0, "group_interval": 0.0, "severity": Severity.INFO}
        spec = make(NotificationSpec, TEAM, Channel.WEBHOOK, secret="hook", url=there.url, **no_waits)
        store.notifications.declare(APP, (spec,))
        for conditions in ((BROKEN,), (READY,)):
            before = len(told(there))
            store.apps.save(AppStatus(APP, conditions=conditions))
            store.events.add([Event(APP, EventType.NORMAL, Reason.APPLIED, "c0ffee: ready")])
            with serving("notifications", tmp_path, call) as process:
                assert process.wait(timeout=60) == -signal.SIGKILL
            with serving("notifications", tmp_path):
                wait_for(lambda: len(told(there)), enough=before.__lt__)
                wait_for(lambda: settled(store))
    assert [sum(each) for each in zip(*told(there), strict=True)] == [1, 1, 2]
    assert all(one.genuine for one in there.received)
    assert len({one.body for one in there.received}) == len(set(there.ids))


@pytest.mark.parametrize("call", ["send_test", "end_test", "record", "delivered"])
def test_a_test_that_was_asked_for_outlives_the_daemon(call: str, tmp_path: Path, store: SqliteStore) -> None:
    with receiver() as there:
        spec = make(NotificationSpec, TEAM, Channel.WEBHOOK, secret="hook", url=there.url)
        store.notifications.declare(APP, (spec,))
        asked = store.notifications.ask_test(APP, TEAM)
        with serving("notifications", tmp_path, call) as process:
            assert process.wait(timeout=60) == -signal.SIGKILL

        def delivered() -> bool:
            found = store.notifications.get(APP, TEAM)
            delivery = found.record.of(check_id(asked)) if found else None
            return delivery is not None and delivery.fate is Fate.DELIVERED

        with serving("notifications", tmp_path):
            wait_for(lambda: delivered() and not store.notifications.tests())
    assert set(there.ids) == {check_id(asked)}
    assert all(one.json["data"]["test"] for one in there.received)
