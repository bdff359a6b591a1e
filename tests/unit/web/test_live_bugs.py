"""A bug in a live answer (long poll, event stream, followed log) ends that answer and nothing else: not the loop, not
the worker, not another stream. Tried with each call of the store that each kind of answer makes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from controller.config import Settings
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import AppStatus, Event, EventType, RepositoryRecord, WebhookDelivery
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunState, new_run
from controller.store import SqliteStore
from controller.web.asgi import GatewayApp
from tests.support.fake_objects import FakeObjects
from tests.support.gateway import APP, Caller
from tests.support.runs import RunDriver, make_pipeline, one_pipeline

TOKEN = {"authorization": "Bearer letmein-token"}
MOST = 4  # faults of one call of the store: the first time it is made, the second, …
#: In the tasks of the call that is hit, and in what they start.
VICTIM: ContextVar[bool] = ContextVar("VICTIM", default=False)


class Bug(Exception):
    pass


@dataclass
class Faults:
    """Which call of the store raises, counted from 1; and what was called."""

    name: str = ""
    number: int = 0
    made: Counter[str] = field(default_factory=Counter)

    def meet(self, name: str) -> None:
        if VICTIM.get():
            self.made[name] += 1
            if (name, self.made[name]) == (self.name, self.number):
                raise Bug(name)


class FaultyTable:
    def __init__(self, table: Any, name: str, faults: Faults) -> None:
        self._table, self._name, self._faults = table, name, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._table, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._faults.meet(f"{self._name}.{name}")
            return found(*args, **kwargs)

        return call


class FaultyStore:
    def __init__(self, store: SqliteStore, faults: Faults) -> None:
        self._store = store
        for name in ("requests", "apps", "events", "repositories", "runs"):
            setattr(self, name, FaultyTable(getattr(store, name), name, faults))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass
class Kind:
    path: str
    news: Callable[[Any], object]  # what makes the answer go on, or end
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ends: bool = True  # with the news; the others go on until the caller leaves


def request_done(worker: Worker) -> None:
    request = worker.store.requests.claim(2e9)
    assert request is not None
    worker.store.requests.finish(request.id, Outcome.READY, "", "c0ffee")


def happen(worker: Worker) -> None:
    worker.store.events.add([Event(APP, EventType.NORMAL, Reason("News"), "it happened")])


def end_runs(worker: Worker) -> None:
    for run in worker.store.runs.unfinished(APP):
        worker.player.finish(run.id)


KINDS = {
    "progress of a webhook": Kind("/-/hooks/repo/1?wait=30", request_done, headers=TOKEN),
    "events of an app": Kind("/-/apps/demo/events?follow=1", happen, headers=TOKEN, ends=False),
    "a run": Kind("/demo/train/runs/r1?wait=30", end_runs),
    "transitions of a run": Kind("/demo/train/runs/r1/events", end_runs),
    "log of a run": Kind("/demo/train/runs/r1/logs?stage=fit&follow=1", end_runs),
    "a run that is submitted": Kind(
        "/demo/train/runs",
        end_runs,
        "POST",
        {"prefer": "wait=30", "content-type": "application/json"},
        b'{"inputs": {"data": "g/in.csv"}, "outputs": {"report": "g2"}}',
    ),
}


@dataclass
class Worker:
    store: SqliteStore
    player: RunDriver
    gateway: GatewayApp

    async def ask(self, kind: Kind, caller: Caller) -> None:
        path, _, query = kind.path.partition("?")
        fields = [(name.encode(), value.encode()) for name, value in kind.headers.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": kind.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [*fields, (b"content-length", b"%d" % len(kind.body))],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        await self.gateway.answer(scope, caller.receive, caller.send)

    def prepare(self) -> None:
        """What the answers are about, not yet over."""
        store = self.store
        end_runs(self)
        for run in store.runs.list(APP):
            store.runs.forget([run])
        store.runs.submit(new_run("r1", make_pipeline(), 1.0))
        self.player.begin("r1")
        self.player.log("r1", "fit", 1).write_bytes(b"")
        while (left := store.requests.claim(2e9)) is not None:
            store.requests.finish(left.id, Outcome.READY, "", "")
        wish = store.requests.enqueue(APP, Trigger.PUSH)
        store.repositories.replace([])  # forgets deliveries
        store.repositories.replace([RepositoryRecord("repo", (APP,), "branch:main", 60.0)])
        store.repositories.remember(WebhookDelivery("1", "repo", (wish,), 1.0))

    async def play(self, kind: Kind, hit: bool) -> Caller:
        """One answer from its begin over the news to its end."""
        caller = Caller(kind.body)
        VICTIM.set(hit)
        asked = asyncio.create_task(self.ask(kind, caller))
        VICTIM.set(False)
        before = self.gateway.endpoints.live._open, self.gateway.endpoints.runs._open
        await settled(lambda: asked.done() or self.waits(before, kind))
        kind.news(self)
        if not kind.ends:
            await settled(lambda: asked.done() or b"News" in caller.body)
            asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled() or asked.exception() is None, "it would have come to the server"
        return caller

    def waits(self, before: tuple[int, int], kind: Kind) -> bool:
        """Whether the answer waits for news."""
        open = self.gateway.endpoints.live._open + self.gateway.endpoints.runs._open
        waiting = (
            self.gateway.watch._waiters
            if kind.path.startswith("/-/")
            else self.gateway.endpoints.runs._news._waiters
        )
        return (
            open > sum(before)
            and bool(waiting)
            and (kind.method != "POST" or bool(self.store.runs.unfinished(APP)[1:]))
        )


async def settled(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@asynccontextmanager
async def working(store: SqliteStore, settings: Settings, faults: Faults) -> AsyncIterator[Worker]:
    store.apps.save(AppStatus(APP))
    store.runs.publish(APP, (make_pipeline(),))
    store.routes.publish(APP, (one_pipeline(),))
    faulty: Any = FaultyStore(store, faults)
    gateway = GatewayApp(faulty, settings, lambda access: FakeObjects())
    await gateway.start()
    try:
        yield Worker(store, RunDriver(store, settings.run_files), gateway)
    finally:
        await gateway.stop()


@pytest.mark.parametrize("name", list(KINDS))
def test_a_bug_in_a_live_answer_ends_it_and_nothing_else(
    store: SqliteStore, settings: Settings, name: str
) -> None:
    kind, faults = KINDS[name], Faults()

    async def play() -> None:
        async with asyncio.timeout(50), working(store, settings, faults) as worker:
            worker.prepare()
            caller = await worker.play(kind, hit=True)
            assert caller.status == 200, caller.body
            assert caller.complete or not kind.ends
            calls = dict(faults.made)
            assert calls, "nothing of the store was asked"
            for call, times in calls.items():
                for number in range(1, min(times, MOST) + 1):
                    worker.prepare()
                    bystander = Caller()
                    beside = asyncio.create_task(worker.ask(KINDS["events of an app"], bystander))
                    await bystander.got_part.wait()
                    faults.name, faults.number = call, number
                    faults.made.clear()
                    hit = await worker.play(kind, hit=True)
                    assert hit.messages, f"no answer: {call} {number}"
                    faults.number = 0
                    happen(worker)
                    await settled(lambda seen=bystander, task=beside: task.done() or b"News" in seen.body)  # type: ignore[misc]
                    assert not beside.done(), f"another stream ended: {call} {number}"
                    beside.cancel()
                    await asyncio.wait([beside])
                    assert (worker.gateway.endpoints.live._open, worker.gateway.endpoints.runs._open) == (
                        0,
                        0,
                    ), "a place was kept"
                    worker.prepare()
                    again = await worker.play(kind, hit=False)
                    assert again.status == 200, f"the next one fails: {call} {number}"

    uvloop.run(play())


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("number", range(4))
def test_a_caller_whose_connection_breaks_takes_nobody_along(
    store: SqliteStore, settings: Settings, name: str, number: int
) -> None:
    kind = KINDS[name]

    class Broken(Caller):
        async def send(self, message: Any) -> None:
            if len(self.messages) >= number:
                raise ConnectionResetError
            await super().send(message)

    async def play() -> None:
        async with asyncio.timeout(50), working(store, settings, Faults()) as worker:
            worker.prepare()
            asked = asyncio.create_task(worker.ask(kind, Broken(kind.body)))
            await settled(lambda: asked.done() or worker.waits((0, 0), kind))
            kind.news(worker)
            if not kind.ends and number > 2:
                asked.cancel()
            await asyncio.wait([asked])
            assert (worker.gateway.endpoints.live._open, worker.gateway.endpoints.runs._open) == (0, 0), (
                "a place was kept"
            )
            worker.prepare()
            assert (await worker.play(kind, hit=False)).status == 200

    uvloop.run(play())


def test_states_of_the_test_are_what_it_says(store: SqliteStore, settings: Settings) -> None:
    """Or the kinds above would be answered at once."""

    async def play() -> None:
        async with working(store, settings, Faults()) as worker:
            worker.prepare()
            run = store.runs.get(APP, "r1")
            assert run is not None
            assert run.state is RunState.RUNNING

    uvloop.run(play())
