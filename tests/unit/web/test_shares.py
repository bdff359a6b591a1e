"""Callers who are slow, or many, hold no more than a share: whatever they do with one app or one hook, others are
answered.

A gateway as a worker has it, with callers who announce a body and do not send it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from controller.config import Settings
from controller.domain.apps.status import AppStatus, RepositoryRecord
from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.names import AppName
from controller.domain.routing.routes import ServiceKind
from controller.store import SqliteStore
from controller.web import platform_bodies, refusals, wsgi_bridge
from controller.web.asgi import GatewayApp
from controller.web.gateway import body
from controller.web.gateway.body import IncomingBody, RequestBody
from controller.web.gateway.shares import WorkerShares
from controller.web.pages.files import PER_PAGE
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.fake_objects import FakeObjects
from tests.support.gateway import Caller, make_api, make_route, make_service
from tests.support.loops import in_loop
from tests.support.waiting import wait_for

DEMO, OTHER = AppName("demo"), AppName("other")
SECRET = "a-secret-of-the-hook"


class Scene:
    def __init__(self, gateway: GatewayApp) -> None:
        self.gateway = gateway
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, method: str, path: str, caller: Caller, length: int, **headers: str) -> asyncio.Task[None]:
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [*fields, (b"content-length", b"%d" % length)],
            "client": ("192.0.2.7", 5),
            "server": ("127.0.0.1", 80),
        }
        self.tasks.append(asyncio.create_task(self.gateway.answer(scope, caller.receive, caller.send)))
        return self.tasks[-1]

    def slow(self, method: str, path: str, number: int, **headers: str) -> list[Caller]:
        """Callers who announce a body and send none."""
        callers = [Caller() for _ in range(number)]
        for caller in callers:
            self.ask(method, path, caller, 1000, content_type="application/json", **headers)
        return callers

    async def answered(self, method: str, path: str, **headers: str) -> Caller:
        caller = Caller(b"")
        await self.ask(method, path, caller, 0, **headers)
        return caller

    async def let_them_begin(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def harness(store: SqliteStore, settings: Settings, **web: Any) -> AsyncIterator[Scene]:
    store.routes.switch(make_route(make_api("image")))
    store.routes.switch(make_route(make_api("image"), app=OTHER))
    store.routes.publish(AppName("demo"), (make_service("files", ServiceKind.FILES),))
    store.apps.save(AppStatus(AppName("demo")))
    store.repositories.replace(
        RepositoryRecord(name, (AppName("demo"),), "branch:main", 60.0, "generic", SECRET)
        for name in ("one", "two")
    )
    gateway = GatewayApp(
        store, replace(settings, web=replace(settings.web, **web)), lambda access: FakeObjects()
    )
    await gateway.start()
    found = Scene(gateway)
    try:
        yield found
    finally:
        while (
            gateway.endpoints.flask.waiting._taken or gateway.endpoints.files.waiting._taken
        ):  # threads still answer
            await asyncio.sleep(0.01)
        for task in found.tasks:
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)
        await gateway.stop()


def kinds(callers: Iterable[Caller]) -> list[str]:
    return [json.loads(caller.body)["type"].rpartition(":")[2] for caller in callers if caller.body]


@in_loop
async def test_calls_without_their_body(store: SqliteStore, settings: Settings) -> None:
    async with harness(store, settings, queue_limit=10, per_app=4) as web:
        many = web.slow("POST", "/demo/image/predict", 30)
        await web.let_them_begin()
        assert kinds(many) == ["gateway-overloaded"] * 26
        assert "4 calls of app demo under way" in json.loads(many[-1].body)["detail"]
        await asyncio.to_thread(wait_for, lambda: store.gateways.taken(time.time()))
        assert store.gateways.taken(time.time()) == (TakenShare(DEMO, Resource.CALLS, 4),)
        other = await web.answered("POST", "/other/image/predict")
        assert kinds([other]) != ["gateway-overloaded"]
        assert (await web.answered("GET", "/-/healthz")).status == 200


@pytest.mark.parametrize(
    "path", ["/-/hooks/one", "/-/hooks/unknown", "/-/apps/demo/sync", "/-/healthz", "/demo/files/x"]
)
@in_loop
async def test_slow_bodies_hold_no_thread(store: SqliteStore, settings: Settings, path: str) -> None:
    """As many as all threads and all places to wait for one, twice."""
    async with harness(store, settings) as web:
        web.slow("POST", path, 2 * (wsgi_bridge.THREADS + wsgi_bridge.WAITING))
        web.slow("PUT", path, 2 * (wsgi_bridge.THREADS + wsgi_bridge.WAITING))
        await web.let_them_begin()
        for page in ("/-/healthz", "/demo/files/"):
            while (await web.answered("GET", page)).status != 200:
                await asyncio.sleep(0.01)
        hook = Caller(b"{}")
        await web.ask("POST", "/-/hooks/two", hook, 2, content_type="application/json")
        assert kinds([hook]) == ["bad-signature"]  # looked at


@in_loop
async def test_webhooks_of_one_repository_are_a_share(store: SqliteStore, settings: Settings) -> None:
    async with harness(store, settings) as web:
        many = web.slow("POST", "/-/hooks/one", 20)
        await web.let_them_begin()
        assert kinds(many) == ["gateway-overloaded"] * (20 - platform_bodies.HOOKS_EACH)


@pytest.mark.parametrize("path", ["/-/hooks/one", "/demo/image/predict"])
@in_loop
async def test_a_body_that_does_not_come(
    store: SqliteStore, settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(body, "GRACE", 0.05)
    monkeypatch.setattr(refusals, "LINGER", 0.05)
    async with harness(store, settings) as web:
        (caller,) = web.slow("POST", path, 1)
        await asyncio.gather(*web.tasks)
        assert (caller.status, kinds([caller])) == (408, ["body-timeout"])


@in_loop
async def test_a_refused_body_is_read_at_a_pace(
    store: SqliteStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller sees the answer either way, and sending quickly costs others nothing."""
    for rate, seconds, left in ((1, 0.1, 999), (2**40, 60.0, 0)):
        monkeypatch.setattr(refusals, "LINGER", seconds)
        monkeypatch.setattr(refusals, "LINGER_RATE", rate)
        async with harness(store, settings) as web:
            caller = Caller(*[b"x" * 100] * 1000)
            await web.ask("POST", "/-/unknown", caller, 100_000)
            assert (caller.status, len(caller._parts)) == (404, left)


@in_loop
async def test_a_body_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte within the grace, and all together not at the pace."""
    monkeypatch.setattr(body, "GRACE", 0.2)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    special = {b"content-length": b"100000"}
    with pytest.raises(RequestRefused) as caught:
        await RequestBody(IncomingBody(receive, special), special, 10**6).whole()
    assert caught.value.problem.kind is ProblemKind.BODY_TIMEOUT


@in_loop
async def test_a_body_at_a_steady_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come gives time for what is to come."""
    monkeypatch.setattr(body, "GRACE", 0.3)
    parts = [b"x" * body.PACE] * 5

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    special = {b"content-length": b"%d" % (5 * body.PACE)}
    assert len(await RequestBody(IncomingBody(receive, special), special, 10**6).whole()) == 5 * body.PACE


@in_loop
async def test_the_administrators_bodies_are_read(store: SqliteStore, settings: Settings) -> None:
    async with harness(store, settings) as web:
        for content, status in ((b'{"revision": 7}', 400), (b"x" * (platform_bodies.SMALL_BODY + 1), 413)):
            caller = Caller(content)
            headers = {"authorization": "Bearer letmein-token", "content_type": "application/json"}
            await web.ask("POST", "/-/apps/demo/approve", caller, len(content), **headers)
            assert caller.status == status, caller.body


@in_loop
async def test_forms_are_read_as_far_as_their_page_fills_them(store: SqliteStore, settings: Settings) -> None:
    """A folder's page sends the names of all files that are chosen on it."""
    chosen = urlencode([("name", "я" * 127)] * PER_PAGE).encode()
    form = {"content_type": "application/x-www-form-urlencoded"}
    async with harness(store, settings) as web:
        for path, content, status in (
            ("/-/apps/demo/files/data/g/", chosen, 401),  # it was read, and is nobody's
            ("/-/apps/demo/files/data/g/", b"x" * (platform_bodies.LARGE_FORM + 1), 413),
            ("/-/apps/demo/suspend", chosen, 413),
        ):
            caller = Caller(content)
            await web.ask("POST", path, caller, len(content), **form)
            assert caller.status == status, caller.body


def test_shares() -> None:
    shares = WorkerShares("calls", 3, 2)
    with shares.take("a", "app a"), shares.take("a", "app a"):
        with pytest.raises(RequestRefused, match="2 calls of app a under way, its share"):
            shares.take("a", "app a").__enter__()
        with shares.take("b", "app b"), pytest.raises(RequestRefused, match="has 3 calls under way"):
            shares.take("c", "app c").__enter__()
    with shares.take("a", "app a"), shares.take("a", "app a"), shares.take("b", "app b"):
        pass
    assert shares._by_key == {}


def test_peaks_of_two_periods_are_told() -> None:
    shares = WorkerShares("calls", 10, 5)
    with shares.take("a", "app a"), shares.take("a", "app a"), shares.take("b", "app b"):
        pass
    assert shares.peaks() == {"a": 2, "b": 1}, "although nothing is under way any more"
    shares.rotate()
    with shares.take("a", "app a"):
        assert shares.peaks() == {"a": 2, "b": 1}
        shares.rotate()
        assert shares.peaks() == {"a": 1}
        shares.rotate()
        assert shares.peaks() == {"a": 1}, "it is still under way"
    shares.rotate()
    shares.rotate()
    assert shares.peaks() == {}
