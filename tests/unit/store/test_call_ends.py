"""Ends of async calls on their way from the web process to the outbox of the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.spec import Webhook
from controller.domain.errors import Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.async_calls import AsyncCall, CallState, EndedCall
from controller.ports import WebhookUnderWay
from controller.store import SqliteStore, open_guest_store
from controller.store import webhooks as webhook_table
from controller.store.codec import encode
from tests.support.gateway import make_route
from tests.support.stores import open_store

CALL = AsyncCall(
    "0f" * 16,
    AppName("demo"),
    "image",
    ComponentName("classify"),
    "ann",
    CallState.SUCCEEDED,
    "",
    "",
    1.0,
    2.0,
    3.0,
    200,
    "application/json",
    17,
)
HOOK = Webhook("hook", "https://example.org/all")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    path = tmp_path / "db" / "state.db"
    with closing(open_store(path)) as daemon:
        daemon.routes.switch(make_route(webhook=HOOK))
        daemon.routes.switch(make_route(component=ComponentName("plain")))
        with closing(open_guest_store(path)) as web:
            yield daemon, web


def take(daemon: SqliteStore) -> None:
    daemon.requests.claim(0.0)


def test_the_daemon_sends_what_the_web_process_has_told(stores: tuple[SqliteStore, SqliteStore]) -> None:
    daemon, web = stores
    for _ in range(2):  # the web process was killed before it knew that it had told it
        web.webhooks.call_ended(EndedCall(CALL, "https://example.org/mine"))
        take(daemon)
    found = daemon.webhooks.of(CALL.id)
    assert {message.url for message in found} == {"https://example.org/mine", HOOK.url}
    assert {(message.secret, message.pipeline, message.title) for message in found} == {
        ("hook", "classify", f"webhook of call {CALL.id}")
    }
    document = json.loads(found[0].body)
    assert document["type"] == "call.succeeded"
    assert document["data"]["result"] == {"status": 200, "contentType": "application/json", "size": 17}
    assert document["data"]["links"]["result"] == f"/demo/image/calls/{CALL.id}/result"


def test_a_receiver_that_is_named_twice_is_notified_once(stores: tuple[SqliteStore, SqliteStore]) -> None:
    daemon, web = stores
    web.webhooks.call_ended(EndedCall(CALL, HOOK.url))
    take(daemon)
    assert len(daemon.webhooks.of(CALL.id)) == 1


@pytest.mark.parametrize("component", ["plain", "missing"])
def test_without_a_webhook_of_the_component_nothing_is_sent(
    stores: tuple[SqliteStore, SqliteStore], component: str
) -> None:
    daemon, web = stores
    web.webhooks.call_ended(EndedCall(replace(CALL, component=ComponentName(component)), HOOK.url))
    take(daemon)
    assert daemon.webhooks.of(CALL.id) == ()


SPOILT: list[dict[str, Any]] = [
    {"id": "../x"},
    {"id": "A" * 32},
    {"app": "../other"},
    {"api": "a/b"},
    {"component": "Up"},
    {"user": "u" * 1001},
    {"user": "\0"},
    {"state": "RUNNING"},
    {"state": "PENDING"},
    {"message": "m" * 5001},
    {"status": 10**9},
    {"status": -1},
    {"length": -1},
    {"created": float("nan")},
    {"ended": float("inf")},
    {"id": 7},
]


@pytest.mark.parametrize("spoilt", [*SPOILT, "{", "[]", "null", "7", '"x"', "x" * 100_000, ""])
def test_hostile_rows_are_dropped(
    stores: tuple[SqliteStore, SqliteStore], spoilt: dict[str, Any] | str
) -> None:
    daemon, web = stores
    text = spoilt if isinstance(spoilt, str) else _with(spoilt)
    with web.transaction(), web._database.write() as db:
        db.execute("INSERT INTO call_ends VALUES (?, ?)", ("00" * 16, text))
    web.webhooks.call_ended(EndedCall(CALL))
    take(daemon)
    assert [message.run for message in daemon.webhooks.due(1e12, WebhookUnderWay())] == [CALL.id]


def _with(changes: dict[str, Any]) -> str:
    document = json.loads(encode(EndedCall(replace(CALL, id="00" * 16))))
    return json.dumps({**document, "call": {**document["call"], **changes}})


@pytest.mark.parametrize(
    "url", ["ftp://x", "file:///etc/passwd", "https://u:p@example.org/", "x", "https://" + "x" * 2000]
)
def test_hostile_receivers(stores: tuple[SqliteStore, SqliteStore], url: str) -> None:
    daemon, web = stores
    web.webhooks.call_ended(EndedCall(CALL, url))
    take(daemon)
    assert daemon.webhooks.of(CALL.id) == ()


def test_neither_database_is_filled(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, web = stores
    monkeypatch.setattr(webhook_table, "MOST_ENDS", 3)
    monkeypatch.setattr(webhook_table, "MOST_OF_APP", 2)
    for number in range(3):
        web.webhooks.call_ended(EndedCall(replace(CALL, id=f"{number:032x}")))
    with pytest.raises(Transient):
        web.webhooks.call_ended(EndedCall(CALL))
    take(daemon)
    assert len(daemon.webhooks.due(1e12, WebhookUnderWay())) == 2
